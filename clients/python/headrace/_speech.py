"""Typed calls of the speech service."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from headrace._audio import AudioSource, Encoding, RawAudio, read
from headrace._results import Model, Receipt
from headrace._transport import AsyncCaller, AsyncResponses, Caller, CallOptions, Responses, Rpc, StreamRpc
from headrace.speech.v1 import speech_pb2


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """A stretch of speech, `start` and `end` in seconds from the start of the audio, and what was said in it.

    `confidence` is in 0..1; 0 = not estimated. The texts of a transcript's segments joined are its text: where words
    are set apart by spaces, each but the first begins with one.
    """

    start: float
    end: float
    text: str = ""
    confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a recording of `duration` seconds says; `language` is BCP-47, "" when nobody speaks."""

    text: str
    segments: tuple[SpeechSegment, ...]
    duration: float
    language: str
    model: Model
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class SpeechActivity:
    """Where somebody speaks in a recording of `duration` seconds."""

    segments: tuple[SpeechSegment, ...]
    duration: float
    model: Model
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class StreamingResult:
    """One answer of a stream: a guess, a final segment (`is_final`), or an event at `event_offset` seconds.

    `stability`: how unlikely a guess is to be revised, in 0..1. Only finals belong to the transcript.
    """

    segment: SpeechSegment | None
    is_final: bool
    stability: float
    event: Literal["", "START", "END"]
    event_offset: float
    model: Model


@dataclass(frozen=True, slots=True)
class StreamingOptions:
    """What a stream carries and what it wants back; its samples have one channel.

    `model`: "" (the mesh's default), "name" or "name@version". `language_code`: BCP-47, "" = the model's own.
    `interim_results`: also guesses, which later answers may revise. `single_utterance`: end after the first utterance.
    """

    sample_rate: int = 16_000
    encoding: Encoding = "LINEAR16"
    model: str = ""
    language_code: str = ""
    interim_results: bool = False
    single_utterance: bool = False


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _segment(segment: speech_pb2.SpeechSegment) -> SpeechSegment:
    start, end = _seconds(segment.start_offset), _seconds(segment.end_offset)
    return SpeechSegment(start, end, segment.text, segment.confidence)


def _transcript(response: speech_pb2.RecognizeResponse, receipt: Receipt | None) -> Transcript:
    return Transcript(
        response.transcript,
        tuple(map(_segment, response.segments)),
        _seconds(response.audio_duration),
        response.language_code,
        Model(response.model.name, response.model.version),
        receipt,
    )


def _activity(response: speech_pb2.DetectSpeechResponse, receipt: Receipt | None) -> SpeechActivity:
    segments = tuple(map(_segment, response.segments))
    model = Model(response.model.name, response.model.version)
    return SpeechActivity(segments, _seconds(response.audio_duration), model, receipt)


def _result(response: speech_pb2.StreamingRecognizeResponse) -> StreamingResult:
    event: Literal["", "START", "END"] = ""
    if response.event:
        event = "START" if response.event == speech_pb2.SPEECH_EVENT_START else "END"
    return StreamingResult(
        _segment(response.segment) if response.HasField("segment") else None,
        response.is_final,
        response.stability,
        event,
        _seconds(response.event_offset),
        Model(response.model.name, response.model.version),
    )


_SERVICE = "/headrace.speech.v1.SpeechService/"
_RECOGNIZE = Rpc(_SERVICE + "Recognize", speech_pb2.RecognizeResponse, _transcript)
_DETECT = Rpc(_SERVICE + "DetectSpeech", speech_pb2.DetectSpeechResponse, _activity)
_STREAM = StreamRpc(_SERVICE + "StreamingRecognize", speech_pb2.StreamingRecognizeResponse, _result)


def _encoding(name: Encoding) -> speech_pb2.AudioEncoding.ValueType:
    return speech_pb2.AudioEncoding.Value(f"AUDIO_ENCODING_{name}")


def _audio(audio: bytes | RawAudio) -> speech_pb2.Audio:
    if isinstance(audio, bytes):
        return speech_pb2.Audio(content=audio)
    return speech_pb2.Audio(
        content=audio.content,
        encoding=_encoding(audio.encoding),
        sample_rate_hertz=audio.sample_rate,
        channel_count=audio.channels,
    )


def _config(options: StreamingOptions) -> speech_pb2.StreamingRecognizeRequest:
    config = speech_pb2.StreamingConfig(
        model=options.model,
        encoding=_encoding(options.encoding),
        sample_rate_hertz=options.sample_rate,
        language_code=options.language_code,
        interim_results=options.interim_results,
        single_utterance=options.single_utterance,
    )
    return speech_pb2.StreamingRecognizeRequest(config=config)


def _sound(chunk: bytes) -> speech_pb2.StreamingRecognizeRequest:
    return speech_pb2.StreamingRecognizeRequest(audio=chunk)


class Speech:
    """Blocking calls of the speech service, reached as `client.speech`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def recognize(
        self,
        audio: AudioSource,
        *,
        model: str = "",
        language_code: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Transcript:
        """Transcribe one recording of any length.

        `model`: "" (the mesh's default), "name" or "name@version". `language_code`: BCP-47, "" = the model's own, or
        detected. `timeout`: seconds, the client's when None, which may be too few for a long recording. `metadata`:
        sent along, such as `{"traceparent": ...}`.

        Raises:
            HeadraceError: the call failed.
            OSError, TypeError: the recording cannot be read.
        """
        request = speech_pb2.RecognizeRequest(model=model, audio=_audio(read(audio)), language_code=language_code)
        return self._caller.unary(_RECOGNIZE, request, CallOptions(timeout, metadata))

    def detect_speech(
        self,
        audio: AudioSource,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> SpeechActivity:
        """Find where somebody speaks; parameters and errors are those of `recognize`."""
        request = speech_pb2.DetectSpeechRequest(model=model, audio=_audio(read(audio)))
        return self._caller.unary(_DETECT, request, CallOptions(timeout, metadata))

    def streaming_recognize(
        self,
        chunks: Iterable[bytes],
        options: StreamingOptions,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Responses[StreamingResult]:
        """Transcribe live audio while it is spoken; the end of `chunks` is the end of the audio.

        `chunks`: samples as `options` describe them, taken in another thread as fast as the mesh hears them;
        `WavChunks` makes them of a file. There is no timeout. Leave early with `cancel()`.

        Raises:
            HeadraceError: while the answers are iterated.
        """
        requests = _requests(_config(options), chunks)
        return self._caller.stream(_STREAM, requests, CallOptions(None, metadata))


class AsyncSpeech:
    """Calls of the speech service for asyncio, reached as `client.speech`; what they do is said in `Speech`."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def recognize(
        self,
        audio: AudioSource,
        *,
        model: str = "",
        language_code: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Transcript:
        """Transcribe one recording; see `Speech.recognize`."""
        content = await asyncio.to_thread(read, audio)
        request = speech_pb2.RecognizeRequest(model=model, audio=_audio(content), language_code=language_code)
        return await self._caller.unary(_RECOGNIZE, request, CallOptions(timeout, metadata))

    async def detect_speech(
        self,
        audio: AudioSource,
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> SpeechActivity:
        """Find where somebody speaks; see `Speech.recognize`."""
        content = await asyncio.to_thread(read, audio)
        request = speech_pb2.DetectSpeechRequest(model=model, audio=_audio(content))
        return await self._caller.unary(_DETECT, request, CallOptions(timeout, metadata))

    def streaming_recognize(
        self,
        chunks: AsyncIterable[bytes],
        options: StreamingOptions,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncResponses[StreamingResult]:
        """Transcribe live audio while it is spoken; see `Speech.streaming_recognize`."""
        requests = _async_requests(_config(options), chunks)
        return self._caller.stream(_STREAM, requests, CallOptions(None, metadata))


def _requests(
    config: speech_pb2.StreamingRecognizeRequest, chunks: Iterable[bytes]
) -> Iterator[speech_pb2.StreamingRecognizeRequest]:
    yield config
    for chunk in chunks:
        yield _sound(chunk)


async def _async_requests(
    config: speech_pb2.StreamingRecognizeRequest, chunks: AsyncIterable[bytes]
) -> AsyncIterator[speech_pb2.StreamingRecognizeRequest]:
    yield config
    async for chunk in chunks:
        yield _sound(chunk)
        # Let an answer in: grpc.aio calls a stream INTERNAL that the server ends while a message is being written.
        await asyncio.sleep(0)
