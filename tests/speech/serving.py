"""The speech service on a real port in the test's own event loop, and sounds to send it."""

import contextlib
import io
from pathlib import Path

import numpy as np
import soundfile

from headrace.speech.v1 import speech_pb2 as pb
from tests.serving import Served
from tests.serving import serving as serving_of

CLIPS = Path(__file__).parent / "clips"
INVOICE = "Please send the invoice to our office in London before Friday afternoon."
BEACH = "He walked slowly along the beach, watching the ship come in."  # So the recogniser hears it; said was "ships".
RATE = 16_000
DEFAULTS = {"recognize": "whisper_tiny_en", "streaming": "whisper_tiny_en", "detect_speech": "silero_vad"}


def serving(models: Path, flags: dict[str, object] | None = None) -> contextlib.AbstractAsyncContextManager[Served]:
    """The speech service with its usual defaults; `flags` are settings by dotted key."""
    usual = {"services.speech.defaults": DEFAULTS, "services.speech.cores": 2}
    return serving_of("speech", models, {**usual, **(flags or {})})


def clip(name: str) -> np.ndarray:
    """float32 [n] at 16 kHz."""
    sound, rate = soundfile.read(CLIPS / f"{name}.ogg", dtype="float32")
    assert rate == RATE
    return sound


def silence(seconds: float) -> np.ndarray:
    """Nearly nothing: the noise of a quiet room."""
    noise = np.random.default_rng(7).standard_normal(int(seconds * RATE))
    return (noise * 3e-4).astype(np.float32)


def conversation() -> np.ndarray:
    """Two sentences and the silence around them, 12.4 s."""
    parts = [silence(0.5), clip("invoice"), silence(1.5), clip("beach"), silence(1.5)]
    return np.concatenate(parts)


def pcm(sound: np.ndarray) -> bytes:
    """LINEAR16."""
    return (sound * 32_767).astype("<i2").tobytes()


def file(sound: np.ndarray, kind: str = "WAV", rate: int = RATE, subtype: str | None = None) -> bytes:
    """A container."""
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def words(text: str) -> list[str]:
    """Lower case, without punctuation."""
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter == " ").split()


def config(**fields: object) -> pb.StreamingRecognizeRequest:
    """The first message of a stream."""
    given = {"encoding": pb.AUDIO_ENCODING_LINEAR16, "sample_rate_hertz": RATE, **fields}
    return pb.StreamingRecognizeRequest(config=pb.StreamingConfig(**given))


def audio(data: bytes) -> pb.StreamingRecognizeRequest:
    """Another message of a stream."""
    return pb.StreamingRecognizeRequest(audio=data)
