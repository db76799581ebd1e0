"""The real detector, through the batcher."""

import time

import numpy as np
import pytest

from services.chassis.errors import ServiceError
from services.speech.voice import CHUNK, VoiceDetector
from tests.mesh import zoo_models
from tests.speech.hosting import call, hosting, noise, sound


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return zoo_models(tmp_path_factory.mktemp("voice"), ("silero_vad",))


async def heard(host, samples, state=None, rpc=None):
    detector = VoiceDetector(host, host.resolve("silero_vad", "detect_speech"))
    return await detector.probabilities(samples, rpc or call(), deadline=time.monotonic() + 60, state=state)


async def test_a_voice_is_told_from_noise_and_silence(models):
    quiet = np.zeros(16000, np.float32)
    samples = np.concatenate([quiet, noise(1.0), sound(), quiet])
    async with hosting(models, "silero_vad") as host:
        rpc = call()
        found, _ = await heard(host, samples, rpc=rpc)
    assert found.dtype == np.float32
    assert len(found) == -(-len(samples) // CHUNK)
    assert found[: 32000 // CHUNK].max() < 0.5
    assert np.median(found[32000 // CHUNK + 10 : (32000 + len(sound())) // CHUNK - 10]) > 0.9
    assert found[-20:].max() < 0.5
    assert rpc.receipt.model == "silero_vad"


async def test_a_recording_in_parts_is_heard_as_in_one(models):
    """Also when it is so long that it takes several engine runs."""
    samples = np.tile(sound(), 17)
    assert len(samples) > 2 * 1024 * CHUNK
    async with hosting(models, "silero_vad") as host:
        whole, end = await heard(host, samples)
        parts, state = [], None
        for start in range(0, len(samples), 7 * CHUNK):
            part, state = await heard(host, samples[start : start + 7 * CHUNK], state)
            parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
    np.testing.assert_allclose(state.memory, end.memory, atol=1e-5)


async def test_nothing_is_no_chunk_and_a_little_is_one(models):
    async with hosting(models, "silero_vad") as host:
        rpc = call()
        nothing, state = await heard(host, np.zeros(0, np.float32), rpc=rpc)
        assert nothing.shape == (0,)
        assert rpc.receipt is None
        assert (await heard(host, np.zeros(1, np.float32), state))[0].shape == (1,)


async def test_a_deadline_that_has_passed_is_told(models):
    async with hosting(models, "silero_vad") as host:
        detector = VoiceDetector(host, host.resolve("silero_vad", "detect_speech"))
        with pytest.raises(ServiceError) as failed:
            await detector.probabilities(sound(), call(), deadline=time.monotonic() - 1)
        assert failed.value.reason == "DEADLINE_EXCEEDED"
