"""Audio as callers have it becomes the bytes that are sent: recordings whole, streams in pieces and in step."""

import asyncio
import os
import time
import wave
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

Encoding: TypeAlias = Literal["LINEAR16", "FLOAT32", "MULAW"]


@dataclass(frozen=True, slots=True)
class RawAudio:
    """Bare samples and how they lie in bytes: samples a second and channel (8000 to 48000), channels interleaved."""

    content: bytes
    sample_rate: int
    encoding: Encoding = "LINEAR16"
    channels: int = 1


AudioSource: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | RawAudio
"""One recording: a WAV, FLAC, OGG or MP3 file as bytes, path, or opened in binary mode; or bare samples."""


@dataclass(frozen=True, slots=True)
class WavChunks:
    """The samples of a WAV file of 16 bits and one channel, in chunks as a live source would send them.

    `chunk_seconds`: how much sound a chunk holds. `pace`: how many times as fast as it was spoken the chunks come,
    1.0 = as from a microphone; None = as fast as they are taken. Iterate it, plainly or asynchronously, as often as
    wanted.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no WAV file of 16 bits and one channel.
    """

    path: str | os.PathLike[str]
    chunk_seconds: float = 0.1
    pace: float | None = 1.0

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        with self._open() as file:
            return file.getframerate()

    def __iter__(self) -> Iterator[bytes]:
        begun = time.monotonic()
        for due, chunk in self._chunks():
            time.sleep(max(0.0, begun + due - time.monotonic()))
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        begun = time.monotonic()
        for due, chunk in self._chunks():
            await asyncio.sleep(max(0.0, begun + due - time.monotonic()))
            yield chunk

    def _open(self) -> wave.Wave_read:
        try:
            file = wave.open(os.fspath(self.path), "rb")  # noqa: SIM115 - callers close it
        except (wave.Error, EOFError) as error:
            raise ValueError(f"{self.path}: is no WAV file that can be streamed ({error})") from error
        if file.getsampwidth() != 2 or file.getnchannels() != 1:
            shape = f"{8 * file.getsampwidth()} bits, channels: {file.getnchannels()}"
            file.close()
            raise ValueError(f"{self.path}: has {shape}; only 16 bits and one channel can be streamed")
        return file

    def _chunks(self) -> Iterator[tuple[float, bytes]]:
        """Chunks with the seconds after which a live source would have them."""
        with self._open() as file:
            rate = file.getframerate()
            frames, sent = max(1, int(self.chunk_seconds * rate)), 0
            while chunk := file.readframes(frames):
                sent += len(chunk) // 2
                yield (sent / rate / self.pace if self.pace else 0.0), chunk


def read(audio: AudioSource) -> bytes | RawAudio:
    """The bytes of a file, or bare samples as they are.

    Raises:
        OSError: its file cannot be read.
        TypeError: it is no audio source.
    """
    if isinstance(audio, RawAudio):
        return audio
    if isinstance(audio, bytes | bytearray | memoryview):
        return bytes(audio)
    if isinstance(audio, str | os.PathLike):
        return Path(audio).read_bytes()
    if not hasattr(audio, "read"):
        kind = type(audio).__name__
        raise TypeError(f"audio: {kind} is no audio source, give bytes, a path or an open binary file")
    content = audio.read()
    if not isinstance(content, bytes):
        raise TypeError("audio: the file is open in text mode, open it with 'rb'")
    return content
