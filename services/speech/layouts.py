"""Bare samples, as callers lay them out in bytes, become mono samples at 16 kHz: whole or as they arrive."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import soxr

Samples = npt.NDArray[np.float32]
Encoding = Literal["LINEAR16", "FLOAT32", "MULAW"]

#: Samples a second of everything behind this module.
SAMPLE_RATE: Final = 16_000
#: Of bare samples, samples a second and channel.
MIN_RATE, MAX_RATE = 8_000, 48_000
#: Of bare samples.
MAX_CHANNELS: Final = 8
#: Sound that overshoots is clipped; this far out it is no sound, but integers sent as floats.
_ABSURD_PEAK: Final = 16.0

_DTYPES: Final[dict[Encoding, str]] = {"LINEAR16": "<i2", "FLOAT32": "<f4", "MULAW": "u1"}
_MAGIC: Final = ((b"fLaC", "FLAC"), (b"OggS", "OGG"), (b"ID3", "MP3"))


class AudioError(Exception):
    """Sound that cannot be used; speaks to its sender. `field` of the audio is at fault, `problem` says what to do."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Layout:
    """How bare samples lie in bytes. Raises AudioError for a rate or a number of channels that is not accepted."""

    encoding: Encoding
    rate: int
    channels: int = 1

    def __post_init__(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:
            problem = f"is {self.rate}; bare samples need a rate from {MIN_RATE} to {MAX_RATE} hertz"
            raise AudioError("sample_rate_hertz", problem)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise AudioError("channel_count", f"is {self.channels}; must be 0 (meaning 1) to {MAX_CHANNELS}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return np.dtype(_DTYPES[self.encoding]).itemsize * self.channels


class SampleReader:
    """Bare samples that arrive in pieces of any number of bytes, even ones that split a sample."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rest = b""
        self._resample = Resampler(layout.rate)

    def feed(self, data: bytes) -> Samples:
        """What can be made of the bytes so far: float32 [n] at 16 kHz. Raises AudioError on `content`."""
        data = self._rest + data if self._rest else data
        whole = len(data) - len(data) % self._layout.frame_bytes
        self._rest = data[whole:]
        return self._resample.feed(mono(memoryview(data)[:whole], self._layout))

    def finish(self) -> Samples:
        """What the resampler still holds; the bytes of an unfinished sample are dropped."""
        self._rest = b""
        return self._resample.finish()


class Resampler:
    """Mono float32 at `rate` to 16 kHz, in pieces."""

    def __init__(self, rate: int) -> None:
        self._stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def feed(self, samples: Samples) -> Samples:
        """The part of the output that `samples` complete."""
        return samples if self._stream is None else self._run(samples, last=False)

    def finish(self) -> Samples:
        """The rest of the output."""
        empty = np.zeros(0, np.float32)
        return empty if self._stream is None else self._run(empty, last=True)

    def _run(self, samples: Samples, *, last: bool) -> Samples:
        assert self._stream is not None  # noqa: S101  # Both callers have looked.
        return np.asarray(self._stream.resample_chunk(samples, last=last), np.float32)


def mono(data: bytes | memoryview, layout: Layout) -> Samples:
    """Whole frames as float32 [frames] in [-1, 1], the channels' mean. Raises AudioError on `content`."""
    values = np.frombuffer(data, _DTYPES[layout.encoding])
    if layout.encoding == "LINEAR16":
        samples = values.astype(np.float32) * np.float32(1.0 / 32_768.0)
    elif layout.encoding == "MULAW":
        samples = _MULAW[values]
    else:
        samples = sound(values.astype(np.float32))
    return samples if layout.channels == 1 else samples.reshape(-1, layout.channels).mean(axis=1, dtype=np.float32)


def sound(values: Samples) -> Samples:
    """Floats as sound: clipped to [-1, 1]. Raises AudioError on `content` for what can be none."""
    if values.size == 0:
        return values
    peak = float(np.abs(values).max())
    if not np.isfinite(peak):
        raise AudioError("content", "holds samples that are no numbers (NaN or infinite); send floats in [-1, 1]")
    if peak > _ABSURD_PEAK:
        raise AudioError("content", f"holds samples as large as {peak:.6g}; floats must be in [-1, 1]: scale them")
    return values if peak <= 1.0 else np.clip(values, -1.0, 1.0)


def container_magic(head: bytes) -> str:
    """Which file format begins with these bytes, "" = none. Bare samples all but never look like one."""
    if head[:4] in {b"RIFF", b"RIFX", b"RF64"} and head[8:12] == b"WAVE":
        return "WAV"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def _mulaw_table() -> Samples:
    """ITU-T G.711: sign, exponent and mantissa, all bits inverted, to 14-bit values scaled to [-1, 1]."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = (((mantissa.astype(np.int32) << 3) + 0x84) << exponent) - 0x84
    return (np.where(code & 0x80, -magnitude, magnitude) / 32_768.0).astype(np.float32)


_MULAW: Final = _mulaw_table()
