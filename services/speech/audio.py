"""From the bytes of a recording to mono samples at 16 kHz, block by block: numpy, soundfile and soxr, no gRPC.

A recording is never in memory whole: what a header promises is checked before anything is decoded, and what comes out
is counted, so that a small file that unfolds to days of sound is refused after its first `max_seconds`.

Truncated containers are decoded as far as they go; the length that is answered tells how far. Bare samples must be
whole, for a length that does not fit is the surest sign of a wrong encoding or channel count.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import soundfile

from services.speech.layouts import (
    AudioError,
    Layout,
    Resampler,
    Samples,
    container_magic,
    mono,
    sound,
)

KNOWN_FORMATS: Final = "WAV, FLAC, OGG or MP3"
#: Of containers, samples a second and channel; and channels.
_MIN_RATE, _MAX_RATE, _MAX_CHANNELS = 4_000, 384_000, 64
#: Of one block that `blocks` yields.
_BLOCK_SECONDS: Final = 10
#: Of one read: what a damaged frame takes with it is at most this much.
_READ_FRAMES: Final = 4_096
#: Headers that do not know how long they go on say something like this.
_UNKNOWN_FRAMES: Final = 2**48
#: What libsndfile calls the formats that are admitted.
_DECODERS: Final = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC", "OGG": "OGG", "MP3": "MP3"}
#: Where, which bytes, what it is: files that are often sent and not read here.
_STRANGERS: Final = (
    (4, b"ftyp", "an MP4 or M4A file"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska file"),
    (0, b"FORM", "an AIFF file"),
    (0, b"caff", "a CAF file"),
    (0, b"#!AMR", "an AMR file"),
)


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as sent. `layout`: how bare samples lie in `content`; None = a container, which says so itself."""

    content: bytes
    layout: Layout | None = None


class OpenRecording:
    """A recording whose header has been looked at. `seconds`: how long it says it is; 0 = it does not say.

    Raises AudioError on `content` or `encoding`: nothing in it, not what it says it is, longer than `max_seconds`.
    """

    def __init__(self, recording: Recording, max_seconds: float) -> None:
        content, layout = recording.content, recording.layout
        if not content:
            raise AudioError("content", f"is empty; send the bytes of a {KNOWN_FORMATS} file, or bare samples")
        self._source: _Bare | _Contained = _Bare(content, layout) if layout is not None else _Contained(content)
        self._max_seconds = max_seconds
        self.seconds = self._source.frames / self._source.rate
        if self._source.exact:
            self._check_length(self.seconds)

    def blocks(self) -> Iterator[Samples]:
        """The sound as float32 [n] in [-1, 1], mono, 16 kHz, in blocks of about 10 s; iterate once.

        Raises AudioError on `content`: not a single sample in it, no sound, or longer than the limit.
        """
        rate, heard = self._source.rate, 0
        resampler = Resampler(rate)
        for block in self._source.blocks():
            heard += len(block)
            self._check_length(heard / rate)
            if len(ready := resampler.feed(block)):
                yield ready
        if not heard:
            raise AudioError("content", "holds no sound: it has 0 samples")
        if len(ready := resampler.finish()):
            yield ready

    def _check_length(self, seconds: float) -> None:
        if seconds > self._max_seconds:
            limit = f"at most {self._max_seconds:.0f} s are accepted"
            raise AudioError("content", f"is {seconds:.0f} s long or longer; {limit}: cut it, or stream it")


def sniff(content: bytes) -> str:
    """The container format of these bytes. Raises AudioError on `content` when it is none of the known ones."""
    if known := container_magic(content[:12]):
        return known
    # A frame of MPEG audio: 11 bits set, then a layer that is not the reserved one.
    if len(content) > 2 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0 and content[1] & 0x06:
        return "MP3"
    for offset, magic, name in _STRANGERS:
        if content[offset : offset + len(magic)] == magic:
            raise AudioError("content", f"is {name}, which is not read here; send {KNOWN_FORMATS}, or bare samples")
    problem = f"is not a {KNOWN_FORMATS} file; bare samples need audio.encoding and audio.sample_rate_hertz to be set"
    raise AudioError("content", problem)


class _Bare:
    """Bare samples in blocks."""

    exact = True

    def __init__(self, content: bytes, layout: Layout) -> None:
        if name := container_magic(content[:12]):
            problem = f"is {layout.encoding}, but the content is a {name} file; leave the encoding unset for files"
            raise AudioError("encoding", problem)
        if len(content) % layout.frame_bytes:
            size = f"{layout.frame_bytes}-byte frames ({layout.encoding}, channels: {layout.channels})"
            raise AudioError(
                "content", f"has {len(content)} bytes, not a whole number of {size}; check both and resend"
            )
        self._content, self._layout = content, layout
        self.rate = layout.rate
        self.frames = len(content) // layout.frame_bytes

    def blocks(self) -> Iterator[Samples]:
        """Mono samples at the layout's rate."""
        layout = self._layout
        data, step = memoryview(self._content), _BLOCK_SECONDS * layout.rate * layout.frame_bytes
        for start in range(0, len(data), step):
            yield mono(data[start : start + step], layout)


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # The package has no types.
    """A file that is read from its beginning to its end.

    soundfile seeks to where it is after every read of a seekable file, from which MP3 comes out maimed, and Ogg slowly.
    """

    def seekable(self) -> bool:
        """Say that it is not."""
        return False


class _Contained:
    """A container in blocks. Its first bytes are looked at: no other decoder is ever tried on a caller's bytes."""

    def __init__(self, content: bytes) -> None:
        self._name = sniff(content)
        try:
            self._file = _Sequential(io.BytesIO(content))
        except soundfile.LibsndfileError as error:
            problem = f"is not a whole {self._name} file: its header is damaged or cut short; send the file unchanged"
            raise AudioError("content", problem) from error
        self.rate: int = self._file.samplerate
        self.frames: int = self._file.frames if self._file.frames < _UNKNOWN_FRAMES else 0
        # An MP3 header speaks of the file as it once was; one that was cut is shorter.
        self.exact = self._name != "MP3"
        if problem := self._unacceptable():
            self._file.close()
            raise AudioError("content", problem)

    def blocks(self) -> Iterator[Samples]:
        """Mono samples at the file's rate, up to where it breaks off."""
        with self._file as file:
            whole = False
            reads = max(1, _BLOCK_SECONDS * file.samplerate // _READ_FRAMES)
            while not whole:
                parts: list[Samples] = []
                while len(parts) < reads and not whole:
                    part = self._read()
                    parts.append(part)
                    whole = len(part) < _READ_FRAMES
                yield np.concatenate(parts)

    def _unacceptable(self) -> str:
        file = self._file
        if _DECODERS.get(file.format) != self._name:
            return f"begins as a {self._name} file but is {file.format}; send {KNOWN_FORMATS}, or bare samples"
        if not _MIN_RATE <= file.samplerate <= _MAX_RATE:
            return f"has {file.samplerate} samples a second; files need {_MIN_RATE} to {_MAX_RATE}"
        if file.channels > _MAX_CHANNELS:
            return f"has {file.channels} channels; at most {_MAX_CHANNELS} are accepted"
        return ""

    def _read(self) -> Samples:
        try:
            frames = self._file.read(_READ_FRAMES, "float32", always_2d=True)
        except soundfile.LibsndfileError:
            # Damaged from here on: what was read before is what there is.
            return np.zeros(0, np.float32)
        return sound(np.ascontiguousarray(frames.mean(axis=1, dtype=np.float32)))
