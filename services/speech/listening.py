"""The ears of one recording or stream: sound in, events of speech out, and the sound that they are about."""

import math
from dataclasses import dataclass

import numpy as np

from services.chassis.call import Call
from services.speech.layouts import SAMPLE_RATE, Samples
from services.speech.segments import CHUNK, Event, Rules, Segmenter, levels
from services.speech.voice import VoiceDetector, VoiceState


class Tape:
    """The latest part of a long sound; positions are samples from its very beginning."""

    def __init__(self) -> None:
        self._buffer = np.empty(4 * SAMPLE_RATE, np.float32)
        self._first = 0  # position of the first sample that is kept
        self._count = 0

    @property
    def end(self) -> int:
        """How many samples there have been."""
        return self._first + self._count

    def append(self, samples: Samples) -> None:
        """Add to the end."""
        need = self._count + len(samples)
        if need > len(self._buffer):
            grown = np.empty(max(need, 2 * len(self._buffer)), np.float32)
            grown[: self._count] = self._buffer[: self._count]
            self._buffer = grown
        self._buffer[self._count : need] = samples
        self._count = need

    def forget(self, before: int) -> None:
        """Drop what lies before a position, when that is worth the copying."""
        gone = min(before, self.end) - self._first
        if gone > 0 and gone >= self._count - gone:
            kept = self._count - gone
            self._buffer[:kept] = self._buffer[gone : self._count]
            self._first, self._count = self._first + gone, kept

    def cut(self, start: int, end: int) -> Samples:
        """A copy of what lies from `start` to before `end`, as far as it is there."""
        first, after = max(0, start - self._first), max(0, end - self._first)
        return self._buffer[first : min(after, self._count)].copy()


@dataclass(slots=True)
class Ears:
    """What a listener hears with: the detector, the call that it hears for, and when speech begins and ends."""

    detector: VoiceDetector
    call: Call
    rules: Rules


class Listener:
    """Hears one sound from its beginning to its end."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self._state: VoiceState | None = None
        self._rest = np.zeros(0, np.float32)
        self.segmenter = Segmenter(ears.rules)
        self.tape = Tape()

    async def hear(self, samples: Samples, deadline: float = math.inf) -> list[Event]:
        """What the next samples bring. Take the sound of what is over from the tape before hearing more.

        Raises ServiceError: the detector has no room, failed, or did not answer by the monotonic instant `deadline`.
        """
        self.tape.forget(self.segmenter.needed_from)
        self.tape.append(samples)
        sound = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(sound) - len(sound) % CHUNK
        self._rest = sound[whole:]
        return await self._detect(sound[:whole], deadline) if whole else []

    async def finish(self, deadline: float = math.inf) -> list[Event]:
        """What the end of the sound brings; raises what `hear` raises."""
        rest, self._rest = self._rest, self._rest[:0]
        events = await self._detect(rest, deadline) if len(rest) else []
        return events + self.segmenter.finish(self.tape.end)

    async def _detect(self, sound: Samples, deadline: float) -> list[Event]:
        ears = self._ears
        probabilities, self._state = await ears.detector.probabilities(
            sound, ears.call, deadline=deadline, state=self._state
        )
        return self.segmenter.heard(probabilities, levels(sound))
