"""StreamingRecognize with the real networks: what it tells, in which order, and what it refuses."""

import asyncio
import contextlib
import time

import grpc
import numpy as np
import pytest
import pytest_asyncio
import soxr
from google.rpc import error_details_pb2, status_pb2

import headrace
from headrace.speech.v1 import speech_pb2 as pb
from headrace.speech.v1 import speech_pb2_grpc
from services.speech.mail import Streams
from tests.speech.serving import (
    BEACH,
    INVOICE,
    RATE,
    audio,
    clip,
    config,
    conversation,
    file,
    pcm,
    serving,
    silence,
    words,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(zoo_speech):
    async with serving(zoo_speech, {"services.speech.max_streams": 4}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speech(served):
    async with grpc.aio.insecure_channel(served.address) as channel:
        yield speech_pb2_grpc.SpeechServiceStub(channel)


def chunks(sound, seconds=0.1, rate=RATE):
    """The messages of a sound."""
    data, size = pcm(sound), 2 * int(seconds * rate)
    return [audio(data[start : start + size]) for start in range(0, len(data), size)]


async def answers(call):
    return [answer async for answer in call]


async def paced(messages, seconds=0.1):
    """The configuration at once, then each message when a live source would have it."""
    began = time.monotonic()
    for index, message in enumerate(messages):
        await asyncio.sleep(max(0.0, began + index * seconds - time.monotonic()))
        yield message


def text(found):
    return "".join(answer.segment.text for answer in found if answer.is_final)


async def refused(call):
    """Code, violated field and words of a stream that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await answers(call)
    details = dict(raised.value.trailing_metadata()).get("grpc-status-details-bin", b"")
    bad = error_details_pb2.BadRequest()
    fields = [
        bad.field_violations[0].field for part in status_pb2.Status.FromString(details).details if part.Unpack(bad)
    ]
    return raised.value.code(), "".join(fields), raised.value.details()


async def test_live_speech_is_told_while_it_lasts(speech):
    sound = np.concatenate([silence(0.5), clip("invoice"), silence(1.2)])
    call = speech.StreamingRecognize(paced([config(interim_results=True), *chunks(sound)]))
    began = time.monotonic()
    found = [(time.monotonic() - began, answer) async for answer in call]
    kinds = [answer.event or ("final" if answer.is_final else "guess") for _, answer in found]
    assert kinds[0] == pb.SPEECH_EVENT_START
    assert kinds[-2:] == [pb.SPEECH_EVENT_END, "final"]
    assert kinds.count("guess") >= 3
    assert words(text(answer for _, answer in found)) == words(INVOICE)
    start, end = found[0][1].event_offset.ToMilliseconds(), found[-2][1].event_offset.ToMilliseconds()
    assert start == pytest.approx(500, abs=200)
    assert end == pytest.approx(500 + 4_500, abs=300)
    final = found[-1][1]
    assert (final.segment.start_offset.ToMilliseconds(), final.segment.end_offset.ToMilliseconds()) == (start, end)
    assert 0.5 < final.segment.confidence <= 1
    assert final.stability == 0
    guesses = [answer for _, answer in found if answer.HasField("segment") and not answer.is_final]
    assert all(0 < guess.stability < 1 and guess.segment.confidence == 0 for guess in guesses)
    assert all(answer.model.name == "whisper_tiny_en" for _, answer in found)
    # Generous where the machine may be busy: what is promised is measured in benchmarks/.
    times = [when for when, answer in found if answer.HasField("segment")]
    assert times[0] < 0.1 + 0.5 + 3.0
    assert max(np.diff(times), default=0) < 4.0
    assert dict(await call.trailing_metadata())["headrace-model"] == "whisper_tiny_en@1"


@pytest.mark.parametrize("seconds", [0.013, 0.1, 60.0])
async def test_a_stream_says_what_recognize_says(speech, seconds):
    whole = await speech.Recognize(pb.RecognizeRequest(audio=pb.Audio(content=file(conversation()))))
    found = await answers(speech.StreamingRecognize([config(), *chunks(conversation(), seconds)]))
    assert text(found) == whole.transcript
    finals = [answer.segment for answer in found if answer.is_final]
    assert [words(segment.text) for segment in finals] == [words(INVOICE), words(BEACH)]
    for final, segment in zip(finals, whole.segments, strict=True):
        assert (final.start_offset, final.end_offset) == (segment.start_offset, segment.end_offset)
    events = [answer.event for answer in found if answer.event]
    assert events == [pb.SPEECH_EVENT_START, pb.SPEECH_EVENT_END] * 2


async def test_bytes_may_split_samples_and_other_layouts_may_be_sent(speech):
    data = conversation().astype("<f4").tobytes()
    messages = [audio(data[start : start + 7_777]) for start in range(0, len(data), 7_777)]
    found = await answers(speech.StreamingRecognize([config(encoding=pb.AUDIO_ENCODING_FLOAT32), *messages]))
    assert words(text(found)) == words(f"{INVOICE} {BEACH}")


async def test_the_end_of_the_audio_ends_the_utterance(speech):
    cut = clip("beach")[: 2 * RATE]
    found = await answers(speech.StreamingRecognize([config(), *chunks(cut)]))
    assert words(text(found))[:3] == words(BEACH)[:3]
    end = next(answer.event_offset for answer in found if answer.event == pb.SPEECH_EVENT_END)
    assert end.ToMilliseconds() <= 2_000


@pytest.mark.parametrize("sound", [np.zeros(0, np.float32), np.zeros(RATE * 3, np.float32), silence(3.0)])
async def test_silence_is_answered_with_nothing(speech, sound):
    call = speech.StreamingRecognize([config(interim_results=True), *chunks(sound)])
    assert await answers(call) == []
    assert await call.code() is grpc.StatusCode.OK


async def test_one_utterance_is_enough_for_who_wants_one(speech):
    call = speech.StreamingRecognize([config(single_utterance=True), *chunks(conversation())])
    found = await answers(call)
    assert words(text(found)) == words(INVOICE)
    assert await call.code() is grpc.StatusCode.OK


BAD = [
    pytest.param([], "config", "ended before it", id="nothing"),
    pytest.param([audio(b"\0\0")], "config", "first message holds audio", id="audio first"),
    pytest.param([pb.StreamingRecognizeRequest()], "config", "holds nothing", id="empty first"),
    pytest.param([config(), config()], "config", "came again", id="config twice"),
    pytest.param([config(), audio(b"\0\0"), config()], "config", "came again", id="config later"),
    pytest.param([config(), pb.StreamingRecognizeRequest()], "request", "is empty", id="empty later"),
    pytest.param([config(encoding=0)], "config.encoding", "LINEAR16", id="container"),
    pytest.param([config(encoding=77)], "config.encoding", "77", id="unknown encoding"),
    pytest.param([config(sample_rate_hertz=0)], "config.sample_rate_hertz", "8000", id="no rate"),
    pytest.param([config(sample_rate_hertz=96_000)], "config.sample_rate_hertz", "48000", id="rate"),
    pytest.param([config(language_code="fr")], "language_code", "knows: en", id="language"),
    pytest.param([config(model="silero_vad")], "model", "does not recognize", id="no recogniser"),
    pytest.param([config(), audio(file(silence(0.1)))], "audio", "WAV", id="a file"),
    pytest.param(
        [config(encoding=pb.AUDIO_ENCODING_FLOAT32), audio(b"\xff" * 80)], "audio", "no numbers", id="not numbers"
    ),
]


@pytest.mark.parametrize(("messages", "field", "word"), BAD)
async def test_streams_that_break_the_protocol_are_told_so(speech, messages, field, word):
    code, violated, message = await refused(speech.StreamingRecognize(messages))
    assert (code, violated) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert word in message


async def test_an_unknown_model_is_not_found(speech):
    code, _, message = await refused(speech.StreamingRecognize([config(model="whisper_huge")]))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "whisper_huge" in message


async def test_a_stream_that_carries_nothing_is_closed(speech, served, monkeypatch):
    monkeypatch.setattr(served.servicer.streams, "idle_seconds", 0.3)
    for messages in ([], [config()]):
        call = speech.StreamingRecognize()
        for message in messages:
            await call.write(message)
        code, _, message = await refused(call)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "nothing came for 0.3 s" in message


async def test_a_sender_who_leaves_half_way_leaves_nothing_behind(speech, served):
    call = speech.StreamingRecognize()
    await call.write(config(interim_results=True))
    for message in chunks(clip("invoice"))[:30]:
        await call.write(message)
    await call.read()
    call.cancel()
    await settled(served)
    assert not [task for task in asyncio.all_tasks() if "Session" in repr(task)]


async def settled(served):
    """Wait until the service has let go of every stream."""
    for _ in range(100):
        if served.servicer.streams.open == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("a stream is still open")


async def test_too_many_streams_are_asked_to_come_back(speech, served):
    open_ = [speech.StreamingRecognize() for _ in range(4)]
    for call in open_:
        await call.write(config())
    while served.servicer.streams.open < 4:
        await asyncio.sleep(0.01)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await answers(speech.StreamingRecognize([config()]))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    details = status_pb2.Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"]).details
    assert any(part.Unpack(retry) for part in details)
    assert retry.retry_delay.seconds >= 1
    for call in open_:
        await call.done_writing()
        assert await answers(call) == []
    await settled(served)
    assert await answers(speech.StreamingRecognize([config()])) == []


async def test_a_stream_that_fails_does_not_disturb_others(speech):
    good = [config(interim_results=True), *chunks(conversation())]
    broken = [config(), *chunks(conversation())[:40], config()]
    left = speech.StreamingRecognize(paced([config(interim_results=True), *chunks(conversation())]))
    asyncio.get_running_loop().call_later(1.0, left.cancel)
    results = await asyncio.gather(
        answers(speech.StreamingRecognize(good)),
        answers(speech.StreamingRecognize(broken)),
        answers(left),
        return_exceptions=True,
    )
    assert words(text(results[0])) == words(f"{INVOICE} {BEACH}")
    assert results[1].code() is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(results[2], asyncio.CancelledError)


async def test_a_fast_sender_is_slowed_not_refused(speech):
    """Two minutes at once, 24 MB: more than waits anywhere, so the sender is held back while they are recognised."""
    names = ["invoice", "beach"] * 12
    sound = np.concatenate([part for name in names for part in (clip(name), silence(0.9))])
    data = soxr.resample(sound, RATE, 48_000).astype("<f4").tobytes()
    sent = []

    async def messages():
        yield config(encoding=pb.AUDIO_ENCODING_FLOAT32, sample_rate_hertz=48_000)
        for start in range(0, len(data), 100_000):
            sent.append(time.monotonic())
            yield audio(data[start : start + 100_000])

    began = time.monotonic()
    found = await answers(speech.StreamingRecognize(messages()))
    assert len([answer for answer in found if answer.is_final]) == len(names)
    assert sent[-1] - began > 0.4 * (time.monotonic() - began)


async def test_who_does_not_read_is_waited_for(speech, served):
    call = speech.StreamingRecognize(iter([config(interim_results=True), *chunks(conversation())]))
    await asyncio.sleep(1.0)
    assert words(text(await answers(call))) == words(f"{INVOICE} {BEACH}")
    await settled(served)


async def test_the_python_client_streams(served, tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(file(conversation(), subtype="PCM_16"))
    source = headrace.WavChunks(path, pace=None)

    def blocking():
        with headrace.Client(served.address) as client:
            options = headrace.StreamingOptions(source.sample_rate, interim_results=True)
            stream = client.speech.streaming_recognize(source, options)
            return list(stream), stream.receipt

    found, receipt = await asyncio.to_thread(blocking)
    assert words("".join(one.segment.text for one in found if one.is_final)) == words(f"{INVOICE} {BEACH}")
    assert [one.event for one in found if one.event] == ["START", "END"] * 2
    assert str(receipt.model) == "whisper_tiny_en@1"
    async with headrace.AsyncClient(served.address) as client:
        options = headrace.StreamingOptions(source.sample_rate, single_utterance=True)
        stream = client.speech.streaming_recognize(source, options)
        assert words("".join([one.segment.text async for one in stream if one.is_final])) == words(INVOICE)
        assert stream.receipt.model == receipt.model
        with pytest.raises(headrace.InvalidArgument, match=r"config\.sample_rate_hertz"):
            await anext(client.speech.streaming_recognize(headrace.WavChunks(path), headrace.StreamingOptions(1)))
        left = client.speech.streaming_recognize(headrace.WavChunks(path), headrace.StreamingOptions(RATE))
        await anext(left)
        left.cancel()
        with contextlib.suppress(headrace.Cancelled, asyncio.CancelledError):
            await anext(left)
    await settled(served)


async def test_chunks_of_a_file_come_at_the_pace_of_speech(tmp_path):
    path = tmp_path / "one.wav"
    path.write_bytes(file(silence(0.45), subtype="PCM_16", rate=8_000))
    source = headrace.WavChunks(path, chunk_seconds=0.2, pace=4.0)
    began, times, data = time.monotonic(), [], []
    async for chunk in source:
        times.append(time.monotonic() - began)
        data.append(chunk)
    assert b"".join(data) == b"".join(headrace.WavChunks(path, pace=None))
    assert [len(chunk) for chunk in data[:-1]] == [2 * 1_600] * (len(data) - 1)
    assert times[-1] >= 0.9 / 4.0 - 0.01
    path.write_bytes(file(np.zeros((100, 2), np.float32)))
    with pytest.raises(ValueError, match="channels: 2"):
        list(source)
    path.write_bytes(b"no file")
    with pytest.raises(ValueError, match="no WAV file"):
        source.sample_rate  # noqa: B018 - reading it is the test


async def test_a_process_that_drains_says_what_it_has_heard(zoo_speech):
    async with serving(zoo_speech) as leaving, grpc.aio.insecure_channel(leaving.address) as channel:
        call = speech_pb2_grpc.SpeechServiceStub(channel).StreamingRecognize()
        await call.write(config())
        for message in chunks(clip("beach")):
            await call.write(message)
        first = await call.read()
        assert first.event == pb.SPEECH_EVENT_START
        await asyncio.sleep(0.5)
        leaving.gate.close()
        found = [await call.read(), await call.read()]
        assert words(text(found)) == words(BEACH)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert leaving.servicer.streams.open == 0


async def test_a_place_is_given_back_whatever_happens():
    streams = Streams(1)
    with contextlib.suppress(RuntimeError), streams.one():
        assert streams.open == 1
        raise RuntimeError
    assert streams.open == 0
