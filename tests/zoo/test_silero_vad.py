"""The rebuilt detector against the original, which hears one chunk a run."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import soundfile

from engines.zoo import silero_vad
from engines.zoo.artifacts import Artifacts, default_cache
from engines.zoo.errors import CheckpointError
from engines.zoo.graph import Graph

SPEECH = Path(__file__).parents[1] / "speech" / "sounds" / "tea.ogg"


@pytest.fixture(scope="module")
def sessions():
    files = Artifacts(default_cache()).files(silero_vad.RECIPE, lambda *_: None, lambda: None)
    built = silero_vad.build(files, lambda *_: None)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(next(iter(files.values())), options), ort.InferenceSession(built["1/model.onnx"])


def test_it_hears_what_the_original_hears(sessions):
    original, rebuilt = sessions
    speech, _ = soundfile.read(SPEECH, dtype="float32")
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32) * 0.1
    windows = np.lib.stride_tricks.sliding_window_view(np.stack([speech, noise]), 576, axis=1)[:, ::512]
    state = np.zeros((2, 2, 128), np.float32)
    found, end = rebuilt.run(None, {"audio": np.ascontiguousarray(windows), "state": state})
    memory = state
    for chunk in range(windows.shape[1]):
        inputs = {"input": np.ascontiguousarray(windows[:, chunk]), "state": memory, "sr": np.array(16000)}
        expected, memory = original.run(None, inputs)
        np.testing.assert_allclose(found[:, chunk], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(end, memory.transpose(1, 0, 2), atol=1e-5)
    assert found[0].max() > 0.9
    assert found[1].max() < 0.5


def test_another_network_is_refused():
    other = Graph("other")
    other.node("Identity", ["x"], "y")
    data = other.to_bytes({"x": ["n", 1]}, {"y": ["n", 1]})
    with pytest.raises(CheckpointError, match=r"tensor 'stft.forward_basis_buffer' is missing"):
        silero_vad.build({"silero_vad/data/silero_vad_16k_op15.onnx": data}, lambda *_: None)
