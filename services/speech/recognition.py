"""One recording of any length to words: decoded, listened to and recognised at once, a bounded part of it in memory.

Blocks of sound flow from the decoder's threads through the voice detector; each piece that falls out is recognised
beside at most `WINDOW - 1` others of the same call, and no block is taken while they are all at work. So an hour takes
no more memory than a minute, and leaves room for other calls.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from services.chassis import errors
from services.chassis.call import Call
from services.chassis.patience import patiently
from services.chassis.telemetry import span
from services.speech.audio import OpenRecording, Recording
from services.speech.layouts import SAMPLE_RATE, Samples
from services.speech.listening import Ears, Listener
from services.speech.segments import Event, Piece
from services.speech.transcriber import Hypothesis, Listening, Transcriber

#: Pieces of one call that are recognised side by side.
WINDOW: Final = 4
#: Pieces from whose languages the language of a recording is chosen.
VOTERS: Final = 3
#: A recording is refused when at its pace it would take this many times what it is allowed ...
_HOPELESS: Final = 1.5
#: ... and this share of that has passed: the first pieces say little about the rest.
_JUDGED_AFTER: Final = 0.2
#: Languages that are written without spaces between words.
UNSPACED: Final = frozenset({"zh", "ja", "yue", "th", "lo", "my", "km", "bo"})


class Unpacker:
    """Threads that decode recordings (the codecs release the GIL)."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="unpack")

    async def open(self, recording: Recording, max_seconds: float) -> OpenRecording:
        """`OpenRecording` in a thread. Raises AudioError."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, OpenRecording, recording, max_seconds)

    async def blocks(self, opened: OpenRecording, call: Call) -> AsyncIterator[Samples]:
        """The recording's blocks, each made in a thread. Raises AudioError."""
        loop, blocks = asyncio.get_running_loop(), opened.blocks()
        with span(call, "transform"):  # Of the first block: the others would say the same.
            block = await loop.run_in_executor(self._pool, next, blocks, None)
        while block is not None:
            yield block
            block = await loop.run_in_executor(self._pool, next, blocks, None)

    def close(self) -> None:
        """Drop what waits; a block that is being made is made."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Phrase:
    """What was said from sample `start` to before sample `end`."""

    start: int
    end: int
    text: str
    confidence: float


@dataclass(slots=True)
class Transcript:
    """What a recording of `samples` samples says; the phrases' texts joined are all of it."""

    phrases: list[Phrase]
    language: str
    samples: int


class _Vote:
    """The language of a recording, by what its first pieces were taken for, long and sure ones counting more."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._weights: dict[str, float] = {}
        self._missing = VOTERS
        self._decided = asyncio.Event()
        if language:
            self._decided.set()

    @property
    def open(self) -> bool:
        """Whether the language is still to be chosen."""
        return not self._decided.is_set()

    def cast(self, hypothesis: Hypothesis, seconds: float) -> None:
        """One piece more has been heard."""
        weight = seconds * hypothesis.confidence if hypothesis.text else 0.0
        self._weights[hypothesis.language] = self._weights.get(hypothesis.language, 0.0) + weight
        self._missing -= 1
        self._count()

    def end(self, pieces: int) -> None:
        """There are no more pieces than these, perhaps fewer than were to vote."""
        self._missing -= max(0, VOTERS - pieces)
        self._count()

    def _count(self) -> None:
        if self.open and self._missing <= 0:
            best = max(self._weights, key=self._weights.__getitem__, default="")
            self.language = best if self._weights.get(best) else ""
            self._decided.set()

    async def decided(self) -> str:
        """The language, when it is chosen; "" = nobody spoke."""
        await self._decided.wait()
        return self.language


class Recognition:
    """Recognises one recording. `language` as `Transcriber.language` answers it, "" = detect it. Use once."""

    def __init__(self, ears: Ears, transcriber: Transcriber, language: str = "") -> None:
        self._listener = Listener(ears)
        self._call = ears.call
        self._transcriber = transcriber
        only = next(iter(transcriber.languages)) if len(transcriber.languages) == 1 else ""
        self._vote = _Vote(language or only)
        self._room = asyncio.Semaphore(WINDOW)
        self._phrases: list[Phrase] = []
        self._pieces = 0
        self._answered = 0
        self._begun = time.monotonic()

    async def run(self, blocks: AsyncIterator[Samples], seconds: float) -> Transcript:
        """Recognise all of it; `seconds`: how long it says it is, 0 = unknown. Raises AudioError and ServiceError."""
        listener, deadline = self._listener, self._call.deadline
        try:
            async with asyncio.TaskGroup() as group:
                async for block in blocks:
                    await self._take(await listener.hear(block, deadline), group)
                    self._refuse_hopeless(seconds)
                await self._take(await listener.finish(deadline), group)
                self._vote.end(self._pieces)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        phrases = sorted(self._phrases, key=lambda phrase: phrase.start)
        return Transcript(spaced(phrases, self._vote.language), self._vote.language, listener.tape.end)

    async def _take(self, events: list[Event], group: asyncio.TaskGroup) -> None:
        """Begin to recognise the pieces among `events`, waiting for room."""
        for event in events:
            if isinstance(event, Piece):
                sound = self._listener.tape.cut(event.hear_from, event.hear_to)
                await self._room.acquire()
                group.create_task(self._recognise(event, sound, votes=self._pieces < VOTERS))
                self._pieces += 1

    async def _recognise(self, piece: Piece, sound: Samples, *, votes: bool) -> None:
        try:
            hypothesis = None
            if votes and self._vote.open:
                hypothesis = await self._hear(sound, "")
                self._vote.cast(hypothesis, (piece.end - piece.start) / SAMPLE_RATE)
            language = await self._vote.decided()
            if hypothesis is None or (hypothesis.text and hypothesis.language != language):
                hypothesis = await self._hear(sound, language)
            if hypothesis.text:
                self._phrases.append(Phrase(piece.start, piece.end, hypothesis.text, hypothesis.confidence))
        finally:
            self._room.release()

    async def _hear(self, sound: Samples, language: str) -> Hypothesis:
        """Recognise one piece; when the queue is full, wait unless the call has got nowhere yet."""
        listening = Listening(self._call.deadline, language, full_window=self._transcriber.full_window)
        hypothesis = await patiently(
            lambda: self._transcriber.transcribe(sound, self._call, listening), lambda: self._answered > 0
        )
        self._answered += 1
        return hypothesis

    def _refuse_hopeless(self, seconds: float) -> None:
        """Give up early on a recording that cannot be done in time: its caller is told, others have the cores."""
        now, heard = time.monotonic(), self._listener.tape.end / SAMPLE_RATE
        spent, allowed = now - self._begun, self._call.deadline - self._begun
        if not seconds or heard >= seconds or spent < allowed * _JUDGED_AFTER:
            return
        needed = spent * seconds / heard
        if needed > allowed * _HOPELESS:
            name = self._transcriber.model.name
            message = (
                f"this recording of {seconds:.0f} s would take model {name} about {needed:.0f} s, and the call's"
                f" deadline leaves {allowed:.0f} s: allow more time, send parts of it, or stream it"
            )
            raise errors.deadline_unmeetable(name, needed, message)


def spaced(phrases: Sequence[Phrase], language: str) -> list[Phrase]:
    """The phrases with what parts their texts put before them, so that joined they read as one."""
    return [replace(phrase, text=after(index, language) + phrase.text) for index, phrase in enumerate(phrases)]


def after(index: int, language: str) -> str:
    """What stands before the text of phrase number `index` of a transcript."""
    return " " if index and language not in UNSPACED else ""
