"""Each process killed in turn under a load on every domain: only its own calls fail, and it is back within 5 s."""

import asyncio
import io
import os
import signal
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from headrace.nlp.v1 import nlp_pb2, nlp_pb2_grpc
from headrace.recommendation.v1 import recommendation_pb2, recommendation_pb2_grpc
from headrace.speech.v1 import speech_pb2, speech_pb2_grpc
from headrace.vision.v1 import vision_pb2, vision_pb2_grpc
from services.chassis.default_models import DEFAULTS
from tests.e2e.conftest import default_services
from tests.mesh import RunningMesh, running_mesh

BACK_WITHIN = 5.0
#: The largest model loads behind a process that already answers: 2 s of both cores, which the others use meanwhile.
BEHIND = {"speech/recognize": 8.0}
RATE = 16_000
#: A stream that has begun may end with either; a unary call in flight or refused, with the first alone.
UNARY = {grpc.StatusCode.UNAVAILABLE}
STREAM = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}


@pytest.fixture(scope="module")
def mortal(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A whole mesh of its own, since its processes are killed."""
    with running_mesh(tmp_path_factory.mktemp("mortals"), zoo, default_services()) as running:
        yield running


def noise(seconds: float) -> bytes:
    """16-bit samples that are no speech, the same each time."""
    samples = np.random.default_rng(7).normal(0, 800, int(seconds * RATE))
    return samples.astype("<i2").tobytes()


def recording(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(noise(seconds))
    return file.getvalue()


@dataclass
class Caller:
    """Calls one rpc again and again; how its calls ended, and when the last failed and the next succeeded."""

    call: Callable[[grpc.aio.Channel], Awaitable[Any]]
    codes: Counter[grpc.StatusCode] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    last_failure: float = 0.0
    last_success: float = 0.0

    async def run(self, gateway: str, stop: asyncio.Event) -> None:
        async with grpc.aio.insecure_channel(gateway, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
            while not stop.is_set():
                try:
                    await self.call(channel)
                except grpc.aio.AioRpcError as error:
                    self.codes[error.code()] += 1
                    self.words[error.details() or ""] += 1
                    self.last_failure = time.monotonic()
                    await asyncio.sleep(0.05)
                else:
                    self.codes[grpc.StatusCode.OK] += 1
                    self.last_success = time.monotonic()
                    await asyncio.sleep(0.1)


async def stream_speech(channel: grpc.aio.Channel) -> None:
    """Two seconds of a live stream, sent as they would be spoken."""

    async def spoken() -> AsyncIterator[Any]:
        config = speech_pb2.StreamingConfig(encoding=speech_pb2.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE)
        yield speech_pb2.StreamingRecognizeRequest(config=config)
        for _ in range(20):
            yield speech_pb2.StreamingRecognizeRequest(audio=noise(0.1))
            await asyncio.sleep(0.1)

    async for _ in speech_pb2_grpc.SpeechServiceStub(channel).StreamingRecognize(spoken(), timeout=20):
        pass


def load(picture: bytes) -> dict[str, Caller]:
    """A caller of each domain, by "<domain>" or "<domain>/<what>"."""
    image = vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=picture)])
    texts = nlp_pb2.EmbedTextsRequest(texts=["the water rises", "a turbine turns"])
    trending = recommendation_pb2.RecommendRequest(page_size=5)
    audio = speech_pb2.Audio(content=recording(1.0))
    callers = {
        "vision": Caller(lambda channel: vision_pb2_grpc.VisionServiceStub(channel).Classify(image, timeout=20)),
        "nlp": Caller(lambda channel: nlp_pb2_grpc.NlpServiceStub(channel).Embed(texts, timeout=20)),
        "recommendation": Caller(
            lambda channel: recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend(trending, timeout=20)
        ),
        "speech": Caller(
            lambda channel: speech_pb2_grpc.SpeechServiceStub(channel).DetectSpeech(
                speech_pb2.DetectSpeechRequest(audio=audio), timeout=20
            )
        ),
        "speech/recognize": Caller(
            lambda channel: speech_pb2_grpc.SpeechServiceStub(channel).Recognize(
                speech_pb2.RecognizeRequest(audio=audio), timeout=20
            )
        ),
        "speech/stream": Caller(stream_speech),
    }
    return {name: caller for name, caller in callers.items() if name.partition("/")[0] in DEFAULTS}


async def all_succeed(callers: dict[str, Caller], since: float, seconds: float) -> None:
    """Wait until every caller has succeeded with a call that ended after `since`."""
    deadline = time.monotonic() + seconds
    while late := [name for name, caller in callers.items() if caller.last_success <= since]:
        assert time.monotonic() < deadline, f"not answered: {late}, {[callers[name].words for name in late]}"
        await asyncio.sleep(0.02)


async def killed(mesh: RunningMesh, process: str, picture: bytes) -> tuple[dict[str, Caller], float]:
    """Kill a process under load; return the callers and when it was killed, once all are answered again."""
    callers, stop = load(picture), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for caller in callers.values():
            group.create_task(caller.run(mesh.gateway, stop))
        await all_succeed(callers, 0.0, 30)
        os.kill(mesh.pids()[process], signal.SIGKILL)
        moment = time.monotonic()
        try:
            await asyncio.sleep(0.5)
            await all_succeed(callers, moment + 0.5, 20)
            # Whoever hears of the failure late has heard of it now.
            await all_succeed(callers, time.monotonic(), 20)
        finally:
            stop.set()
    return callers, moment


@pytest.mark.parametrize("domain", list(DEFAULTS))
async def test_a_killed_service_fails_its_own_calls_only(mortal: RunningMesh, crops: list[bytes], domain: str) -> None:
    callers, moment = await killed(mortal, f"{domain}-0", crops[0])
    for name, caller in callers.items():
        if name.partition("/")[0] != domain:
            assert set(caller.codes) == {grpc.StatusCode.OK}, (name, caller.words)
            continue
        allowed = STREAM if name.endswith("stream") else UNARY
        assert set(caller.codes) <= {grpc.StatusCode.OK, *allowed}, (name, caller.codes, caller.words)
        assert caller.last_failure - moment < BEHIND.get(name, BACK_WITHIN), (name, caller.words)


async def test_killed_gateway_and_control_process(mortal: RunningMesh, crops: list[bytes]) -> None:
    callers, moment = await killed(mortal, "control", crops[0])
    for name, caller in callers.items():
        assert set(caller.codes) == {grpc.StatusCode.OK}, (name, caller.words)
    callers, moment = await killed(mortal, "envoy", crops[0])
    for name, caller in callers.items():
        allowed = STREAM if name.endswith("stream") else UNARY
        assert set(caller.codes) <= {grpc.StatusCode.OK, *allowed}, (name, caller.codes, caller.words)
        assert caller.last_failure - moment < BEHIND.get(name, BACK_WITHIN), (name, caller.words)
