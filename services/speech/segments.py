"""Where somebody speaks, from the probabilities of a voice detector: pure, incremental, without clock and network.

The hysteresis and its numbers are those of Silero VAD's published `get_speech_timestamps`: speech begins at the first
chunk of probability `onset` or more, and ends where the probability fell under `offset` and stayed below `onset` for
`min_silence`; shorter than `min_speech` it is dropped.

A stretch is handed over in pieces that a recogniser can hear at once. The longer a piece has grown, the shorter a pause
may end it; where nobody pauses it is cut at the longest pause of its last part, or where it is least loud.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

#: Samples of one chunk of the detector: 32 ms at 16 kHz.
CHUNK: Final = 512
_RATE: Final = 16_000
#: Share of a piece that is too long, counted from its end, in which its best pause is looked for.
_LATE: Final = 0.5
#: The same for the least loud chunk, when there is no pause.
_LATEST: Final = 0.2

#: Seconds, for times without a limit.
_FOREVER: Final = 1e9

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rules:
    """When speech begins and ends; times in seconds, `onset` and `offset` are probabilities.

    `pad`: what is added to both ends of a stretch, so that no sound is clipped. `margin`: how much more of the silence
    around a piece is to be heard with it. `max_piece`: the longest piece, pads and margins included. From `soft_piece`
    on, a piece ends at a pause of `soft_silence` already.
    """

    onset: float = 0.5
    offset: float = 0.35
    min_speech: float = 0.25
    min_silence: float = 0.1
    pad: float = 0.03
    margin: float = 0.0
    max_piece: float = float("inf")
    soft_piece: float = float("inf")
    soft_silence: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.offset <= self.onset <= 1.0:
            raise ValueError(f"offset must not be above onset, both in 0..1: {self}")
        if min(self.min_silence, self.soft_silence) < max(2 * self.pad, CHUNK / _RATE):
            raise ValueError(f"a silence must hold two pads and a chunk: {self}")
        if self.max_piece < 1.0 or self.soft_piece < self.min_speech:
            raise ValueError(f"pieces must be allowed to last a second: {self}")


@dataclass(frozen=True, slots=True)
class Began:
    """Somebody speaks since sample `at`."""

    at: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Speech from sample `start` to before sample `end`; never overlaps another piece.

    `hear_from`, `hear_to`: the same with a margin of the silence around it, for who recognises words.
    """

    start: int
    end: int
    hear_from: int
    hear_to: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Nobody speaks any more since sample `at`; the pieces before this event were all of the stretch."""

    at: int


Event = Began | Piece | Ended


class Segmenter:
    """Turns probabilities, as they come, into Began, Piece... and Ended, in this order, over and over."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._silence = _chunks(rules.min_silence)
        self._soft_silence = _chunks(rules.soft_silence)
        self._speech = max(1, _chunks(rules.min_speech))
        self._pad = int(rules.pad * _RATE)
        self._margin = int(rules.margin * _RATE)
        self._longest = (min(rules.max_piece, _FOREVER) * _RATE - 2 * (self._pad + self._margin)) // CHUNK
        self._soft = _chunks(min(rules.soft_piece, _FOREVER))
        self._now = 0  # chunks heard
        self._start: int | None = None  # first chunk of the piece that grows
        self._quiet: int | None = None  # first chunk of the pause that lasts
        self._told = False  # Began has been said
        self._certain = False  # what grows is kept however short it stays: it was cut off a longer stretch
        self._said = 0  # samples that pieces have covered
        self._pauses: list[tuple[int, int]] = []
        self._levels: list[float] = []  # of the chunks from _start on

    @property
    def speaking(self) -> bool:
        """True between Began and Ended."""
        return self._told

    @property
    def growing(self) -> Piece | None:
        """The piece that grows, as it would be if nobody spoke any more; None while there is none that counts."""
        if self._start is None or not self._certain:
            return None
        end = self._voice_end()
        return Piece(self._first_sample(), end, self.needed_from, min(self._now * CHUNK, end + self._margin))

    @property
    def quiet(self) -> int:
        """For how many samples nobody has spoken in the piece that grows."""
        return 0 if self._quiet is None else (self._now - self._quiet) * CHUNK

    @property
    def needed_from(self) -> int:
        """The first sample that a later piece may still want to hear."""
        start = (self._now if self._start is None else self._start) * CHUNK - self._pad
        return max(self._said, start - self._margin)

    def heard(self, probabilities: Values, levels: Values) -> list[Event]:
        """What the next chunks bring. `levels`: how loud each is, in any unit."""
        events: list[Event] = []
        for probability, level in zip(probabilities.tolist(), levels.tolist(), strict=True):
            self._chunk(probability, level, events)
        return events

    def finish(self, total: int) -> list[Event]:
        """What the end of the sound brings, after `total` samples."""
        events: list[Event] = []
        if self._start is not None or self._told:
            self._end(events, total)
        return [_within(event, total) for event in events]

    def _chunk(self, probability: float, level: float, events: list[Event]) -> None:
        now, rules = self._now, self._rules
        self._now += 1
        if probability >= rules.onset:
            self._voice(now)
        elif probability < rules.offset and self._quiet is None and self._start is not None:
            self._quiet = now
        if self._start is not None:
            self._levels.append(level)
            self._tell(events)
            self._limit(events)
        if self._quiet is not None and self._now - self._quiet >= self._silence:
            self._end(events, self._quiet * CHUNK + self._pad)

    def _voice(self, now: int) -> None:
        if self._start is None:
            self._start, self._certain = now, False
        elif self._quiet is not None:
            self._pauses.append((self._quiet, now))
        self._quiet = None

    def _tell(self, events: list[Event]) -> None:
        """Say that speech began once it has lasted long enough to be some."""
        assert self._start is not None  # noqa: S101  # The caller has looked.
        voiced = (self._quiet if self._quiet is not None else self._now) - self._start
        if voiced >= self._speech and not self._certain:
            self._certain = True
            if not self._told:
                self._told = True
                events.append(Began(self._first_sample()))

    def _limit(self, events: list[Event]) -> None:
        """Hand over what has grown long: softly at a pause that lasts, hard at the limit."""
        assert self._start is not None  # noqa: S101  # The caller has looked.
        length = self._now - self._start
        if self._quiet is not None and self._certain:
            pause = self._now - self._quiet
            if (length >= self._soft and pause >= self._soft_silence) or length >= self._longest:
                self._piece(events, self._quiet * CHUNK + self._pad, self._now * CHUNK)
                self._grow(None)
                return
        if length >= self._longest:
            self._cut(events)

    def _cut(self, events: list[Event]) -> None:
        """Cut what has grown to the limit without an end in sight."""
        assert self._start is not None  # noqa: S101  # The caller has looked.
        late = self._now - int(self._longest * _LATE)
        pauses = [(first, after) for first, after in self._pauses if first >= late]
        if pauses:
            first, after = max(pauses, key=lambda pause: (pause[1] - pause[0], pause[0]))
            middle = (first + after) * CHUNK // 2
            self._piece(events, min(first * CHUNK + self._pad, middle), after * CHUNK)
            self._said = middle
        else:
            window = max(1, int(self._longest * _LATEST))
            after = self._now - window + _least(self._levels[-window:])
            self._piece(events, after * CHUNK, after * CHUNK)
        self._grow(after)

    def _grow(self, start: int | None) -> None:
        """Go on with a piece that begins at chunk `start`, or None."""
        if start is None:
            self._pauses, self._levels, self._start, self._certain = [], [], None, False
            return
        assert self._start is not None  # noqa: S101  # What is cut had begun.
        self._levels = self._levels[start - self._start :]
        self._pauses = [pause for pause in self._pauses if pause[0] >= start]
        self._start, self._certain = start, True

    def _piece(self, events: list[Event], end: int, silent_to: int) -> None:
        """Hand over what has grown to `end`; nobody speaks from there to `silent_to`."""
        hear_to = max(end, min(end + self._margin, silent_to))
        events.append(Piece(self._first_sample(), end, self.needed_from, hear_to))
        self._said = end

    def _end(self, events: list[Event], end: int) -> None:
        if self._start is not None and self._certain:
            self._piece(events, min(end, self._voice_end()), self._now * CHUNK)
        if self._told:
            events.append(Ended(max(self._said, 0)))
        self._grow(None)
        self._told, self._quiet = False, None

    def _voice_end(self) -> int:
        return self._now * CHUNK if self._quiet is None else self._quiet * CHUNK + self._pad

    def _first_sample(self) -> int:
        assert self._start is not None  # noqa: S101  # Every caller has looked.
        return max(self._said, self._start * CHUNK - self._pad)


def levels(samples: Values) -> Values:
    """How loud each whole or begun chunk of `samples` is: the root of its mean square, float32."""
    missing = -len(samples) % CHUNK
    filled = np.pad(samples, (0, missing)) if missing else samples
    return np.asarray(np.sqrt(np.square(filled.reshape(-1, CHUNK)).mean(axis=1)), np.float32)


def _chunks(seconds: float) -> int:
    """Chunks that last `seconds`, rounded to the nearest."""
    return max(1, round(seconds * _RATE / CHUNK))


def _least(values: Sequence[float]) -> int:
    """Where `values`, smoothed over three, are least."""
    smooth = np.convolve(np.asarray(values, np.float64), np.ones(3), mode="same")
    return int(np.argmin(smooth[1:-1])) + 1 if len(values) > 2 else 0


def _within(event: Event, total: int) -> Event:
    match event:
        case Piece(start, end, hear_from, hear_to):
            return Piece(min(start, total), min(end, total), min(hear_from, total), min(hear_to, total))
        case Ended(at):
            return Ended(min(at, total))
        case Began(at):
            return Began(min(at, total))
