"""A model host with the zoo's speech models, and sounds to try them on."""

import contextlib
import math
import time
from pathlib import Path

import numpy as np
import soundfile

from engines.repository import Repository
from services.chassis.call import Call
from services.chassis.models import HostOptions, ModelHost
from services.speech.transcriber import Listening

TEA = "A cup of hot tea is the best thing after a long walk in the rain."


@contextlib.asynccontextmanager
async def hosting(models: Path, *names: str):
    host = ModelHost(Repository(models), HostOptions("speech", models=names, cores=2))
    await host.start()
    try:
        await host.loaded()
        yield host
    finally:
        await host.close()


def sound(name="tea.ogg"):
    """A synthetic voice (hibari-tts) saying TEA; 16 kHz."""
    samples, rate = soundfile.read(Path(__file__).parent / "sounds" / name, dtype="float32")
    assert rate == 16000
    return samples


def noise(seconds, loudness=0.01):
    return (np.random.default_rng(0).standard_normal(int(16000 * seconds)) * loudness).astype(np.float32)


def call():
    return Call("headrace.speech.v1.SpeechService/Recognize", math.inf)


def listening(**how):
    return Listening(time.monotonic() + 60, **how)
