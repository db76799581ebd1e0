"""StreamingRecognize: one task reads and listens, one recognises, and the answers leave in the order they arise.

Nothing in a stream grows with its length. When recognition falls behind, the reader stops reading, and flow control
slows the sender; when the caller does not read its answers, recognition waits.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Self

from headrace.speech.v1 import speech_pb2 as pb
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.items import reference
from services.chassis.patience import patiently
from services.speech.layouts import AudioError, Layout, SampleReader, Samples, container_magic
from services.speech.listening import Ears, Listener
from services.speech.mail import Mail
from services.speech.networks import Networks
from services.speech.recognition import after
from services.speech.segments import Began, Ended, Event, Piece, Rules
from services.speech.transcriber import Hypothesis, Listening, Transcriber
from services.speech.turns import Cadence, Job, Open, Result, Turns
from services.speech.wire import layout_of, offset, settle

#: Pieces that may wait for recognition before the reader waits for them.
MAX_WAITING: Final = 2
#: Answers that may wait for the caller before recognition waits for it.
_MAX_ANSWERS: Final = 32
#: A guess later than this is of no use to anybody.
_GUESS_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Desk:
    """What a session is opened with: the networks, the call it serves, its rules, and how long it may be idle."""

    networks: Networks
    call: Call
    rules: Rules
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a stream was opened for. `language`: as `Transcriber.language` answers it."""

    config: pb.StreamingConfig
    layout: Layout
    transcriber: Transcriber
    language: str


class Session:
    """One stream from its configuration to its end. Open it, then consume `responses` once."""

    def __init__(self, mail: Mail, desk: Desk, terms: _Terms) -> None:
        self._mail, self._call, self._terms = mail, desk.call, terms
        detector = desk.networks.default_detector(terms.transcriber.model)
        self._listener = Listener(Ears(detector, desk.call, desk.rules))
        self._turns = Turns(Cadence(guesses=terms.config.interim_results))
        self._answers: asyncio.Queue[pb.StreamingRecognizeResponse | Exception | None] = asyncio.Queue(_MAX_ANSWERS)
        self._sounds: dict[Piece, Samples] = {}  # of pieces that are over
        self._job: asyncio.Task[Hypothesis] | None = None
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._heard_all = False
        self._language = terms.language
        self._told = 0  # finals that said something

    @classmethod
    async def open(cls, requests: AsyncIterator[pb.StreamingRecognizeRequest], desk: Desk) -> Self:
        """Read the configuration and find the networks. Raises ServiceError."""
        mail = Mail(requests, desk.idle_seconds)
        config = await mail.config()
        layout = layout_of(config.encoding, config.sample_rate_hertz, 1, "config.")
        transcriber = await desk.networks.transcriber(config.model, "streaming")
        return cls(mail, desk, _Terms(config, layout, transcriber, transcriber.language(config.language_code)))

    async def responses(self) -> AsyncGenerator[pb.StreamingRecognizeResponse, None]:
        """Events, guesses and finals; ends when the caller has said everything and heard it. Raises ServiceError."""
        tasks = [asyncio.create_task(self._guarded(part())) for part in (self._read, self._work)]
        try:
            while (answer := await self._answers.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            settle(self._call, self._terms.transcriber.model)

    async def _guarded(self, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except Exception as error:  # noqa: BLE001  # Handed to the consumer, which raises it.
            await self._answers.put(error)

    # Reading

    async def _read(self) -> None:
        layout = self._terms.layout
        reader, second = SampleReader(layout), layout.rate * layout.frame_bytes
        first = True
        while (data := await self._mail.audio()) is not None:
            if first and (name := container_magic(data[:12])):
                problem = f"is a {name} file; a stream carries bare samples: decode it, or send it to Recognize"
                raise errors.invalid_argument("audio", problem)
            first = first and not data
            for start in range(0, len(data), second):
                await self._listen(_sound(reader, data[start : start + second]))
                if self._heard_all:
                    return
        await self._listen(reader.finish())
        await self._act(await self._listener.finish(self._call.item_deadline()))
        self._end()

    async def _listen(self, samples: Samples) -> None:
        """Hear about a second at most, then wait while recognition is behind."""
        if len(samples):
            await self._act(await self._listener.hear(samples, self._call.item_deadline()))
        await self._caught_up(MAX_WAITING - 1)

    async def _caught_up(self, waiting: int) -> None:
        """Wait until no more pieces than this wait for recognition."""
        while self._turns.waiting > waiting:
            self._room.clear()
            await self._room.wait()

    def _end(self) -> None:
        """Nothing more will be heard."""
        self._heard_all = True
        self._changed.set()

    async def _act(self, events: list[Event]) -> None:
        """Tell the caller of events, and the recogniser of pieces; that speech ended is told before what was said."""
        known: list[Result] = []
        for event in events:
            if isinstance(event, Piece):
                self._sounds[event] = self._listener.tape.cut(event.hear_from, event.hear_to)
                if (result := self._turns.over(event)) is not None:
                    known.append(result)
                continue
            kind = pb.SPEECH_EVENT_START if isinstance(event, Began) else pb.SPEECH_EVENT_END
            await self._answers.put(self._answer(event=kind, event_offset=offset(event.at)))
            if isinstance(event, Ended) and self._terms.config.single_utterance:
                await self._settle(known)
                await self._caught_up(0)
                if self._told:
                    self._end()
                    return
        await self._settle(known)

    async def _settle(self, known: list[Result]) -> None:
        """Tell the finals that are known already, and let the recogniser look at what there is to do now."""
        while known:
            result = known.pop(0)
            self._sounds.pop(result.piece)
            await self._tell(result)
        if self._job is not None and self._turns.obsolete(self._growing()):
            self._job.cancel()
        self._changed.set()

    # Recognising

    async def _work(self) -> None:
        """Do what the turns say until all is heard and told."""
        try:
            while not self._done():
                self._changed.clear()
                job = self._turns.next(self._growing(), time.monotonic())
                if job is None:
                    await self._nap()
                else:
                    await self._recognise(job)
        finally:
            if self._job is not None:
                self._job.cancel()
        await self._answers.put(None)

    def _done(self) -> bool:
        return self._heard_all and not self._turns.waiting

    async def _nap(self) -> None:
        """Wait for news, or for the instant at which a guess is due."""
        left = self._turns.wake_at() - time.monotonic()
        due = left if left > 0.0 and self._growing() is not None else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(due):
                await self._changed.wait()

    async def _recognise(self, job: Job) -> None:
        """Run a job; one that was begun as a guess may be dropped, or be a final by the time it ends."""
        piece = job.piece
        sound = self._sounds[piece] if job.final else self._listener.tape.cut(piece.hear_from, piece.hear_to)
        self._job = asyncio.create_task(self._final(sound) if job.final else self._guess(sound, job))
        await asyncio.wait({self._job})
        running = self._turns.running
        assert running is not None  # noqa: S101  # It is this job until we say otherwise.
        if self._job.cancelled():
            self._turns.dropped()
            return
        try:
            hypothesis = self._job.result()
        except ServiceError:
            if job.final:
                raise
            if not running.final:
                self._turns.failed(time.monotonic())
                return
            hypothesis = await self._final(self._sounds[running.piece])
        self._language = hypothesis.language
        result = self._turns.done(hypothesis.text, hypothesis.confidence, time.monotonic())
        if running.final:
            self._sounds.pop(running.piece)
            self._room.set()
        if result is not None:
            await self._tell(result)

    async def _guess(self, sound: Samples, job: Job) -> Hypothesis:
        deadline = min(time.monotonic() + _GUESS_SECONDS, self._call.item_deadline())
        terms = self._terms
        full = job.whole and terms.transcriber.full_window
        listening = Listening(deadline, terms.language, full_window=full, once=not job.whole)
        return await terms.transcriber.transcribe(sound, self._call, listening)

    async def _final(self, sound: Samples) -> Hypothesis:
        """Recognise what is over; when the queue is full, wait: the sender is slowed, not refused."""
        deadline, terms = self._call.item_deadline(), self._terms
        listening = Listening(deadline, terms.language, full_window=terms.transcriber.full_window)
        return await patiently(
            lambda: terms.transcriber.transcribe(sound, self._call, listening), lambda: time.monotonic() < deadline
        )

    def _growing(self) -> Open | None:
        segmenter = self._listener.segmenter
        piece = segmenter.growing
        return None if piece is None else Open(piece, segmenter.quiet)

    # Telling

    async def _tell(self, result: Result) -> None:
        """Answer a guess or a final; a final without words is none."""
        if not result.text:
            return
        segment = pb.SpeechSegment(
            start_offset=offset(result.piece.start),
            end_offset=offset(result.piece.end),
            text=after(self._told, self._language) + result.text,
            confidence=result.confidence if result.final else 0.0,
        )
        answer = self._answer(segment=segment, is_final=result.final, stability=result.stability)
        self._told += result.final
        await self._answers.put(answer)

    def _answer(self, **fields: Any) -> pb.StreamingRecognizeResponse:
        return pb.StreamingRecognizeResponse(model=reference(self._terms.transcriber.model), **fields)


def _sound(reader: SampleReader, data: bytes) -> Samples:
    try:
        return reader.feed(data)
    except AudioError as error:
        raise errors.invalid_argument("audio", error.problem) from error
