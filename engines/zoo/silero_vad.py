"""Silero VAD 6, 16 kHz: whether somebody speaks, for each 32 ms; made anew so that one run hears many chunks."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from engines.base import Array, Tensors
from engines.zoo.errors import CheckpointError
from engines.zoo.layers import LayerGraph
from engines.zoo.recipe import Fixture, PinnedFile, Recipe, Step, Wheel

_SOURCE: Final = "silero_vad/data/silero_vad_16k_op15.onnx"
#: Samples of a chunk with those before it that it is heard with, and those mirrored behind it.
_HEARD: Final = 576
_MIRRORED: Final = 64
_STFT_HOP: Final = 128
_BINS: Final = 129
_MEMORY: Final = 128
#: Strides of the four convolutions that follow the spectrum.
_STRIDES: Final = (1, 2, 2, 1)


def build(files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
    """The network with the original's weights. Raises CheckpointError."""
    weights = _weights(files[_SOURCE])
    try:
        return {"1/model.onnx": _network(weights)}
    except KeyError as error:
        raise CheckpointError(f"Silero VAD weights: tensor {error} is missing") from None


def _weights(data: bytes) -> dict[str, Array]:
    model = onnx.load_from_string(data)
    return {tensor.name.removeprefix("model."): numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _network(weights: Mapping[str, Array]) -> bytes:
    """`audio` [batch, chunks, 576], `state` [batch, 2, 128] -> `speech` [batch, chunks], `new_state`.

    The original takes one chunk a run. All but its recurrent cell looks at one chunk only, so here the chunks pass that
    part side by side, and an LSTM node passes along them.
    """
    graph = LayerGraph("silero_vad")
    chunks = graph.add("Reshape", "audio", graph.integers(-1, _HEARD))
    x = _features(graph, weights, chunks)
    lengths = graph.add("Concat", graph.size("audio", 0), graph.size("audio", 1), graph.integers(_MEMORY), axis=0)
    along = graph.add("Transpose", graph.add("Reshape", x, lengths), perm=[1, 0, 2])
    hidden = _recurrent(graph, weights, along)
    last = weights["decoder.decoder.2.weight"].reshape(1, _MEMORY)
    score = graph.linear(graph.add("Relu", hidden), last, weights["decoder.decoder.2.bias"])
    flat = graph.add("Squeeze", graph.add("Transpose", score, perm=[1, 0, 2]), graph.integers(2))
    graph.node("Sigmoid", [flat], "speech")
    return graph.to_bytes(
        {"audio": ["batch", "chunks", _HEARD], "state": ["batch", 2, _MEMORY]},
        {"speech": ["batch", "chunks"], "new_state": ["batch", 2, _MEMORY]},
    )


def _features(graph: LayerGraph, weights: Mapping[str, Array], chunks: str) -> str:
    """The magnitude spectrum of each chunk through four convolutions: [chunks of all rows, 128, 1]."""
    padded = graph.add("Pad", chunks, graph.integers(0, 0, 0, _MIRRORED), mode="reflect")
    wave = graph.add("Unsqueeze", padded, graph.integers(1))
    basis = graph.weight(weights["stft.forward_basis_buffer"])
    real, imaginary = graph.split(graph.add("Conv", wave, basis, strides=[_STFT_HOP]), [_BINS, _BINS], axis=1)
    power = graph.add("Add", graph.add("Mul", real, real), graph.add("Mul", imaginary, imaginary))
    x = graph.add("Sqrt", power)
    for layer, stride in enumerate(_STRIDES):
        inputs = [graph.weight(weights[f"encoder.{layer}.reparam_conv.{part}"]) for part in ("weight", "bias")]
        x = graph.add("Relu", graph.add("Conv", x, *inputs, pads=[1, 1], strides=[stride]))
    return x


def _recurrent(graph: LayerGraph, weights: Mapping[str, Array], x: str) -> str:
    """`x` [chunks, batch, 128] through the cell: [chunks, batch, 128]; writes `new_state`."""
    inputs = [graph.weight(_gates(weights[f"decoder.rnn.weight_{kind}"])[np.newaxis]) for kind in ("ih", "hh")]
    bias = np.concatenate([_gates(weights[f"decoder.rnn.bias_{kind}"]) for kind in ("ih", "hh")])
    before = [graph.add("Transpose", part, perm=[1, 0, 2]) for part in graph.split("state", [1, 1], axis=1)]
    # An empty name is an input left out: the lengths, which are all the same.
    made = graph.lstm([x, *inputs, graph.weight(bias[np.newaxis]), "", *before], _MEMORY)
    after = [graph.add("Transpose", part, perm=[1, 0, 2]) for part in made[1:]]
    graph.node("Concat", after, "new_state", axis=1)
    return graph.add("Squeeze", made[0], graph.integers(1))


def _gates(value: Array) -> Array:
    """From PyTorch's order of gates (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
    entry, forget, cell, output = np.split(value, 4)
    return np.concatenate([entry, output, forget, cell])


def _inputs() -> Tensors:
    """Two rows: a buzz of falling pitch with formants that comes and goes, and noise."""
    random = np.random.default_rng(0)
    count = 24
    time = np.arange(64 + 512 * count) / 16000
    pitch = 2 * np.pi * np.cumsum(140 - 40 * time) / 16000
    buzz = sum(np.sin(k * pitch) / (1 + ((k * 120 - f) / 150) ** 2) for f in (600, 1200, 2500) for k in range(1, 30))
    voice = 0.1 * buzz * (np.sin(2 * np.pi * 3 * time) > -0.3) + 0.002 * random.standard_normal(len(time))
    rows = np.stack([voice, 0.05 * random.standard_normal(len(time))]).astype(np.float32)
    audio = np.lib.stride_tricks.sliding_window_view(rows, _HEARD, axis=1)[:, ::512]
    return {"audio": np.ascontiguousarray(audio), "state": np.zeros((2, 2, _MEMORY), np.float32)}


RECIPE: Final = Recipe(
    name="silero_vad",
    revision=1,
    summary="voice activity detector, 16 kHz, any language",
    licence="MIT",
    wheels=(
        Wheel(
            package="silero-vad",
            version="6.2.3",
            filename="silero_vad-6.2.3-py3-none-any.whl",
            sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
            size=11317527,
            files=(PinnedFile(_SOURCE, "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"),),
        ),
    ),
    build=build,
    fixture=Fixture("silero_vad.npz", _inputs, tolerance=1e-5),
)
