"""What a live stream's recogniser does next: pure, the clock and the sound's positions are handed in.

A *final* is a piece of speech that is over; a *guess* hears speech that still goes on. Finals come first and in order,
and a guess that runs gives way to them. Whoever pauses is guessed at once, as if the piece were over: if the pause
turns out to be its end, the final is there already, or on its way.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from services.speech.segments import Piece

_RATE: Final = 16_000


@dataclass(frozen=True, slots=True)
class Cadence:
    """When to guess; in seconds. `guesses`: whether the caller wants any.

    `first`: of speech before the first guess. From the begin of a guess to the next pass `easing` times what it took,
    at least `refresh` and at most `slowest`; `retry` when it understood nothing. `pause`: of silence after which a
    piece is heard as if it were over.
    """

    guesses: bool = True
    first: float = 0.35
    refresh: float = 0.8
    slowest: float = 1.4
    easing: float = 2.5
    retry: float = 0.25
    pause: float = 0.2


@dataclass(frozen=True, slots=True)
class Open:
    """A piece that grows: as it would be if nobody spoke any more, and for how many samples nobody has by now."""

    piece: Piece
    quiet: int


@dataclass(frozen=True, slots=True)
class Job:
    """A piece to recognise. `final`: it is over; `whole`: nothing is spoken in it after what is heard of it."""

    piece: Piece
    final: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What was understood of a piece. `stability`: how unlikely a guess is to change, 0..1; of a final it is 0."""

    piece: Piece
    text: str
    confidence: float
    final: bool
    stability: float = 0.0


@dataclass(slots=True)
class Turns:
    """The agenda of one stream: what is over, what runs, what is known. Instants are seconds of one clock."""

    cadence: Cadence
    running: Job | None = None
    _finals: deque[Piece] = field(default_factory=deque)
    _known: Result | None = None  # of a whole guess
    _heard: int = 0  # up to where the latest guess heard
    _words: list[str] = field(default_factory=list)  # of the latest guess
    _begun: float = 0.0
    _due: float = 0.0  # no guess before this instant
    _barred: float = 0.0  # not even of a piece that seems to be over

    @property
    def waiting(self) -> int:
        """Pieces that are over and not recognised."""
        return len(self._finals) + (self.running is not None and self.running.final)

    def over(self, piece: Piece) -> Result | None:
        """A piece is over: the final if it is known already, else it has become the next thing to do."""
        known, self._known = self._known, None
        if known is not None and _covers(known.piece, piece):
            return self._final(known, piece)
        running = self.running
        if running is not None and running.whole and not running.final and _covers(running.piece, piece):
            self.running = Job(piece, final=True, whole=True)
        else:
            self._finals.append(piece)
        return None

    def obsolete(self, growing: Open | None) -> bool:
        """Whether the job that runs is better dropped: a guess that keeps a final, or a whole guess, waiting."""
        running = self.running
        if running is None or running.final:
            return False
        return bool(self._finals) or (not running.whole and self._whole_due(growing))

    def next(self, growing: Open | None, now: float) -> Job | None:
        """Begin what is to be done at the instant `now`, if anything is and nothing runs."""
        if self.running is not None:
            return None
        if self._finals:
            self.running = Job(self._finals.popleft(), final=True, whole=True)
        elif growing is not None and now >= self._barred and self._whole_due(growing):
            self.running = Job(growing.piece, final=False, whole=True)
        elif growing is not None and now >= self._due and self._guess_wanted(growing):
            self.running = Job(growing.piece, final=False, whole=False)
        if self.running is not None:
            self._begun = now
            self._heard = self.running.piece.hear_to
        return self.running

    def wake_at(self) -> float:
        """When to ask `next` again although nothing more was heard."""
        return self._due

    def done(self, text: str, confidence: float, now: float) -> Result | None:
        """The job that ran has understood this: what to tell the caller, if anything."""
        job, self.running = self.running, None
        assert job is not None  # noqa: S101  # Only what `next` began is ever done.
        result = Result(job.piece, text, confidence, job.final)
        if job.final:
            return self._final(result, job.piece)
        self._known = result if job.whole else None
        cadence = self.cadence
        pace = min(max(cadence.easing * (now - self._begun), cadence.refresh), cadence.slowest)
        self._due = self._begun + (pace if text else cadence.retry)
        if not cadence.guesses or not text:
            return None
        words = text.split()
        stability = (_agreed(words, self._words) + 1) / (len(words) + 2)
        self._words = words
        return replace(result, stability=stability)

    def dropped(self) -> None:
        """The guess that ran gave way."""
        self.running = None

    def failed(self, now: float) -> None:
        """The guess that ran could not be had; the next one waits a little."""
        self.running = None
        self._due = self._barred = now + self.cadence.refresh

    def _whole_due(self, growing: Open | None) -> bool:
        if growing is None or growing.quiet < self.cadence.pause * _RATE:
            return False
        return self._known is None or not _covers(self._known.piece, growing.piece)

    def _guess_wanted(self, growing: Open) -> bool:
        piece = growing.piece
        enough = piece.end - piece.start >= self.cadence.first * _RATE
        return self.cadence.guesses and enough and piece.hear_to > self._heard and growing.quiet == 0

    def _final(self, known: Result, piece: Piece) -> Result:
        self._known, self._words, self._due = None, [], 0.0
        return Result(piece, known.text, known.confidence, final=True)


def _covers(heard: Piece, piece: Piece) -> bool:
    """Whether who heard `heard` has heard all that is spoken in `piece`."""
    return heard.start == piece.start and heard.hear_to >= piece.end


def _agreed(words: list[str], before: list[str]) -> int:
    """How many of the first words are the same."""
    count = 0
    for one, other in zip(words, before, strict=False):
        if one != other:
            break
        count += 1
    return count
