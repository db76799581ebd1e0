"""Whisper's conversion: small random networks against a plain computation in float64."""

import struct

import numpy as np
import onnxruntime as ort
import pytest

from engines.zoo.ctranslate2 import read_checkpoint
from engines.zoo.errors import CheckpointError
from engines.zoo.whisper_decoder import decoder
from engines.zoo.whisper_encoder import encoder
from engines.zoo.whisper_weights import WhisperWeights
from tests.zoo.checkpoints import Plain, packed, whisper

VARIABLES = whisper()
PLAIN = Plain(VARIABLES)


@pytest.fixture(scope="module")
def encode():
    return ort.InferenceSession(encoder(WhisperWeights(packed(VARIABLES)), "encoder"))


@pytest.fixture(scope="module")
def decode():
    return ort.InferenceSession(decoder(WhisperWeights(packed(VARIABLES)), "decoder"))


@pytest.mark.parametrize("frames", [1, 2, 7, 300])
def test_the_encoder_computes_the_states_of_every_row(encode, frames):
    mel = np.random.default_rng(frames).standard_normal((2, 80, frames)).astype(np.float32)
    (states,) = encode.run(None, {"mel": mel})
    np.testing.assert_allclose(states, [PLAIN.encode(row) for row in mel], atol=1e-4)


def test_the_decoder_computes_a_whole_text_at_once(decode):
    random = np.random.default_rng(2)
    tokens, states = random.integers(0, 70, (2, 9)), random.standard_normal((2, 11, 128)).astype(np.float32)
    logits, cache = decode.run(None, feed(tokens, [0, 0], np.full((2, 4, 2, 3, 64), 50, np.float32), states))
    for row in range(2):
        expected = PLAIN.decode(tokens[row], states[row])
        np.testing.assert_allclose(logits[row], expected[0], atol=1e-3)
        np.testing.assert_allclose(cache[row], expected[1], atol=1e-3)


def test_the_decoder_goes_on_from_its_cache_with_rows_at_different_places(decode):
    """What lies in the cache behind a row's place, here nonsense, does not matter."""
    random = np.random.default_rng(3)
    tokens, states = random.integers(0, 70, (2, 9)), random.standard_normal((2, 11, 128)).astype(np.float32)
    cache = np.full((2, 4, 2, 16, 64), 50, np.float32)
    places = [3, 6]
    for row, place in enumerate(places):
        rest = feed(tokens[row : row + 1, :place], [0], cache[row : row + 1], states[row : row + 1])
        cache[row, :, :, :place] = decode.run(["new_cache"], rest)[0][0]
    for _ in range(3):
        now = np.array([[tokens[row, place]] for row, place in enumerate(places)])
        logits, fresh = decode.run(None, feed(now, places, cache, states))
        for row, place in enumerate(places):
            np.testing.assert_allclose(
                logits[row, 0], PLAIN.decode(tokens[row, : place + 1], states[row])[0][-1], atol=1e-3
            )
            cache[row, :, :, place] = fresh[row, :, :, 0]
        places = [place + 1 for place in places]


def feed(tokens, places, cache, states):
    return {"tokens": tokens, "position": np.array(places, np.int64), "cache": cache, "states": states}


def test_a_checkpoint_is_read_as_it_was_written():
    read = read_checkpoint(packed(VARIABLES), "WhisperSpec")
    assert read.keys() == VARIABLES.keys()
    for name, value in VARIABLES.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


SMALL = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (packed(SMALL)[:-20], "truncated"),
        (packed(SMALL, version=7), "binary version 7, only 6 can be read"),
        (packed(SMALL, specification="TransformerSpec"), "is a 'TransformerSpec', expected 'WhisperSpec'"),
        (packed(SMALL).replace(struct.pack("<BI", 0, 24), struct.pack("<BI", 9, 24)), "unknown type 9"),
        (
            packed(SMALL).replace(struct.pack("<BI", 0, 24), struct.pack("<BI", 0, 20)),
            "20 bytes, which is not its shape",
        ),
        (packed(SMALL).replace(b"a\0\2", b"a\0\xff"), "255 dimensions"),
        (packed(SMALL).replace(b"a\0", b"\xff\0"), "not UTF-8"),
    ],
)
def test_a_damaged_checkpoint_is_refused(data, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(data, "WhisperSpec")


def test_another_network_is_refused():
    with pytest.raises(CheckpointError, match=r"variable 'encoder/conv1/weight' is missing"):
        WhisperWeights(packed(SMALL))
    with pytest.raises(CheckpointError, match="of another network"):
        WhisperWeights(packed({**VARIABLES, "encoder/num_heads": np.array(7, np.int16)}))
    biased = {**VARIABLES, "decoder/layer_0/attention/linear_1/bias": np.ones(256, np.float16)}
    with pytest.raises(CheckpointError, match=r"keys of decoder/layer_0/attention have a bias"):
        decoder(WhisperWeights(packed(biased)), "decoder")
