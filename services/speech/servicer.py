"""SpeechService: proto to sound and back."""

# The names and signatures of rpcs are the protocol's.
# ruff: noqa: N802

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

from headrace.speech.v1 import speech_pb2 as pb
from services.chassis.call import Call
from services.chassis.items import reference
from services.speech.layouts import AudioError
from services.speech.listening import Ears, Listener
from services.speech.mail import Streams
from services.speech.networks import Networks
from services.speech.recognition import Recognition, Unpacker
from services.speech.segments import Piece, Rules
from services.speech.streaming import Desk, Session
from services.speech.wire import offset, recording_of, refused, settle

SERVICE: Final = pb.DESCRIPTOR.services_by_name["SpeechService"]
#: How a recording is cut for a recogniser.
PIECES: Final = Rules(min_silence=0.6, margin=0.2, max_piece=30.0, soft_piece=12.0, soft_silence=0.3)
#: How speech is found for its own sake: Silero's published numbers.
STRETCHES: Final = Rules()


@dataclass(frozen=True, slots=True)
class SpeechServicer:
    """Answers `headrace.speech.v1.SpeechService`. `max_seconds`: of one recording. `streams`: the live ones."""

    networks: Networks
    unpacker: Unpacker
    streams: Streams
    max_seconds: float

    async def Recognize(self, request: pb.RecognizeRequest, call: Call) -> pb.RecognizeResponse:
        """The transcript of one recording."""
        recording = recording_of(request.audio)
        transcriber = await self.networks.transcriber(request.model)
        language = transcriber.language(request.language_code)
        ears = Ears(self.networks.default_detector(transcriber.model), call, PIECES)
        try:
            opened = await self.unpacker.open(recording, self.max_seconds)
            blocks = self.unpacker.blocks(opened, call)
            transcript = await Recognition(ears, transcriber, language).run(blocks, opened.seconds)
        except AudioError as error:
            raise refused(error) from error
        settle(call, transcriber.model)
        return pb.RecognizeResponse(
            transcript="".join(phrase.text for phrase in transcript.phrases),
            segments=[
                pb.SpeechSegment(
                    start_offset=offset(phrase.start),
                    end_offset=offset(phrase.end),
                    text=phrase.text,
                    confidence=phrase.confidence,
                )
                for phrase in transcript.phrases
            ],
            audio_duration=offset(transcript.samples),
            language_code=request.language_code or transcript.language,
            model=reference(transcriber.model),
        )

    async def DetectSpeech(self, request: pb.DetectSpeechRequest, call: Call) -> pb.DetectSpeechResponse:
        """The stretches of one recording in which somebody speaks."""
        recording = recording_of(request.audio)
        detector = self.networks.detector(request.model)
        listener = Listener(Ears(detector, call, STRETCHES))
        try:
            opened = await self.unpacker.open(recording, self.max_seconds)
            events = []
            async for block in self.unpacker.blocks(opened, call):
                events += await listener.hear(block, call.deadline)
            events += await listener.finish(call.deadline)
        except AudioError as error:
            raise refused(error) from error
        pieces = (event for event in events if isinstance(event, Piece))
        return pb.DetectSpeechResponse(
            segments=[pb.SpeechSegment(start_offset=offset(p.start), end_offset=offset(p.end)) for p in pieces],
            audio_duration=offset(listener.tape.end),
            model=reference(detector.model),
        )

    async def StreamingRecognize(
        self, requests: AsyncIterator[pb.StreamingRecognizeRequest], call: Call
    ) -> AsyncGenerator[pb.StreamingRecognizeResponse, None]:
        """The transcript of live audio while it is spoken."""
        with self.streams.one():
            session = await Session.open(requests, Desk(self.networks, call, PIECES, self.streams.idle_seconds))
            async with contextlib.aclosing(session.responses()) as responses:
                async for response in responses:
                    yield response
