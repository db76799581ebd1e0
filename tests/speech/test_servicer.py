"""Recognize and DetectSpeech with the real networks, on good recordings and bad ones."""

import asyncio

import grpc
import numpy as np
import pytest
import pytest_asyncio
import soxr
from google.rpc import error_details_pb2, status_pb2

import headrace
from headrace.speech.v1 import speech_pb2 as pb
from headrace.speech.v1 import speech_pb2_grpc
from tests.speech.serving import BEACH, INVOICE, RATE, clip, conversation, file, pcm, serving, silence, words

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(zoo_speech):
    async with serving(zoo_speech, {"services.speech.max_audio_seconds": 1200}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speech(served):
    async with grpc.aio.insecure_channel(served.address) as channel:
        yield speech_pb2_grpc.SpeechServiceStub(channel)


def recording(content, encoding=pb.AUDIO_ENCODING_UNSPECIFIED, rate=0, channels=0):
    return pb.Audio(content=content, encoding=encoding, sample_rate_hertz=rate, channel_count=channels)


async def refused(call):
    """Code and violated field of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    status = status_pb2.Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    bad = error_details_pb2.BadRequest()
    field = next((bad.field_violations[0].field for part in status.details if part.Unpack(bad)), "")
    return raised.value.code(), field, raised.value.details()


async def test_a_recording_is_transcribed_with_offsets(speech):
    call = speech.Recognize(pb.RecognizeRequest(audio=recording(file(conversation()))))
    answer = await call
    assert words(answer.transcript) == words(f"{INVOICE} {BEACH}")
    assert answer.transcript == "".join(segment.text for segment in answer.segments)
    first, second = answer.segments
    assert words(first.text) == words(INVOICE)
    assert first.start_offset.ToMilliseconds() == pytest.approx(500, abs=200)
    assert first.end_offset.ToMilliseconds() == pytest.approx(5000, abs=300)
    assert second.start_offset.ToMilliseconds() == pytest.approx(6670, abs=200)
    assert all(0.5 < segment.confidence <= 1.0 for segment in answer.segments)
    assert answer.audio_duration.ToMilliseconds() == pytest.approx(len(conversation()) / 16, abs=1)
    assert (answer.language_code, answer.model.name, answer.model.version) == ("en", "whisper_tiny_en", "1")
    receipt = dict(await call.initial_metadata())
    assert receipt["headrace-model"] == "whisper_tiny_en@1"
    assert float(receipt["headrace-engine-share-ms"]) > 0


async def test_where_speech_is(speech):
    call = speech.DetectSpeech(pb.DetectSpeechRequest(audio=recording(file(conversation()))))
    answer = await call
    covered = sum((s.end_offset.ToMilliseconds() - s.start_offset.ToMilliseconds()) / 1e3 for s in answer.segments)
    spoken = (len(clip("invoice")) + len(clip("beach"))) / RATE
    assert covered == pytest.approx(spoken, rel=0.15)
    assert all(segment.text == "" and segment.confidence == 0 for segment in answer.segments)
    assert not any(5_300 < segment.start_offset.ToMilliseconds() < 6_400 for segment in answer.segments)
    assert answer.model.name == "silero_vad"
    assert dict(await call.initial_metadata())["headrace-model"] == "silero_vad@1"


SAME = [
    pytest.param(lambda x: recording(file(x, "FLAC")), id="flac"),
    pytest.param(lambda x: recording(file(x, "OGG", subtype="OPUS")), id="opus"),
    pytest.param(lambda x: recording(file(x, "MP3")), id="mp3"),
    pytest.param(lambda x: recording(file(np.repeat(x[:, None], 7, axis=1))), id="7 channels"),
    pytest.param(lambda x: recording(file(soxr.resample(x, RATE, 44_100), rate=44_100)), id="44.1 kHz"),
    pytest.param(lambda x: recording(file(np.clip(6 * x, -1, 1), subtype="PCM_U8")), id="8 bits, clipped"),
    pytest.param(lambda x: recording(pcm(x), pb.AUDIO_ENCODING_LINEAR16, RATE), id="bare"),
    pytest.param(
        lambda x: recording(np.repeat(x, 2).astype("<f4").tobytes(), pb.AUDIO_ENCODING_FLOAT32, RATE, 2), id="stereo"
    ),
    pytest.param(lambda x: recording(file(x)[:-20_000]), id="truncated"),
]


@pytest.mark.parametrize("made", SAME)
async def test_the_container_makes_no_difference(speech, made):
    answer = await speech.Recognize(pb.RecognizeRequest(audio=made(clip("invoice"))))
    missing = set(words(INVOICE)) - set(words(answer.transcript))
    assert len(missing) <= 1, answer.transcript


@pytest.mark.parametrize(
    "sound", [np.zeros(RATE * 5, np.float32), silence(5.0), np.zeros(10, np.float32)], ids=["zeros", "room", "instant"]
)
async def test_who_says_nothing_gets_an_empty_transcript(speech, sound):
    answer = await speech.Recognize(pb.RecognizeRequest(audio=recording(file(sound))))
    assert (answer.transcript, list(answer.segments)) == ("", [])
    assert answer.audio_duration.ToMilliseconds() == pytest.approx(len(sound) / 16, abs=1)
    found = await speech.DetectSpeech(pb.DetectSpeechRequest(audio=recording(file(sound))))
    assert not found.segments


BAD = [
    pytest.param(recording(b""), "audio.content", "empty", id="empty"),
    pytest.param(recording(file(np.zeros(0, np.float32))), "audio.content", "0 samples", id="0 s"),
    pytest.param(recording(pcm(silence(1.0))), "audio.content", "audio.encoding", id="bare, not said"),
    pytest.param(recording(b"\0" * 100, 9, RATE), "audio.encoding", "LINEAR16", id="unknown encoding"),
    pytest.param(
        recording(file(silence(1.0)), pb.AUDIO_ENCODING_LINEAR16, RATE), "audio.encoding", "WAV", id="mislabelled"
    ),
    pytest.param(recording(b"\0" * 100, pb.AUDIO_ENCODING_LINEAR16), "audio.sample_rate_hertz", "8000", id="no rate"),
    pytest.param(recording(b"\0" * 100, 1, 96_000), "audio.sample_rate_hertz", "48000", id="rate"),
    pytest.param(recording(b"\0" * 100, 1, RATE, 9), "audio.channel_count", "8", id="channels"),
    pytest.param(recording(b"\0" * 101, 1, RATE), "audio.content", "101 bytes", id="odd"),
    pytest.param(recording(b"\xff" * 400, 2, RATE), "audio.content", "no numbers", id="nan"),
    pytest.param(recording(file(silence(1.0))[:30]), "audio.content", "WAV", id="half a header"),
    pytest.param(recording(file(np.zeros(RATE * 1300, np.int16), "FLAC")), "audio.content", "1200 s", id="too long"),
]


@pytest.mark.parametrize(("audio", "field", "word"), BAD)
async def test_bad_recordings_are_told_what_is_wrong(speech, audio, field, word):
    for call in (
        speech.Recognize(pb.RecognizeRequest(audio=audio)),
        speech.DetectSpeech(pb.DetectSpeechRequest(audio=audio)),
    ):
        code, violated, message = await refused(call)
        assert (code, violated) == (grpc.StatusCode.INVALID_ARGUMENT, field)
        assert word in message


async def test_models_and_languages_that_are_not_there(speech):
    audio = recording(file(clip("beach")))
    code, _, message = await refused(speech.Recognize(pb.RecognizeRequest(model="whisper_tiny", audio=audio)))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "did you mean whisper_tiny_en" in message
    code, field, message = await refused(speech.Recognize(pb.RecognizeRequest(model="silero_vad", audio=audio)))
    assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, "model")
    code, field, message = await refused(speech.Recognize(pb.RecognizeRequest(language_code="de-DE", audio=audio)))
    assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, "language_code")
    assert "knows: en" in message
    answer = await speech.Recognize(pb.RecognizeRequest(language_code="en-GB", audio=audio))
    assert answer.language_code == "en-GB"
    assert words(answer.transcript) == words(BEACH)


async def test_a_long_recording_is_done_in_pieces_and_in_order(speech):
    sentence = {"invoice": INVOICE, "beach": BEACH}
    names = ["invoice", "beach", "beach", "invoice", "beach", "invoice"]
    sound = np.concatenate([part for name in names for part in (clip(name), silence(1.0))])
    answer = await speech.Recognize(pb.RecognizeRequest(audio=recording(file(sound))))
    assert words(answer.transcript) == words(" ".join(sentence[name] for name in names))
    starts = [segment.start_offset.ToMilliseconds() for segment in answer.segments]
    assert starts == sorted(starts)
    assert len(starts) == len(names)


async def test_who_never_pauses_is_cut(speech):
    """One sentence after the other without a breath, for more than a recogniser hears at once."""
    sound = np.concatenate([clip("invoice")[2_000:-4_000], clip("beach")[2_000:-3_000]] * 5)
    assert len(sound) > 40 * RATE
    answer = await speech.Recognize(pb.RecognizeRequest(audio=recording(file(sound))))
    lengths = [s.end_offset.ToMilliseconds() - s.start_offset.ToMilliseconds() for s in answer.segments]
    assert max(lengths) <= 30_000
    assert sum(lengths) == pytest.approx(len(sound) / 16, rel=0.03)
    assert all({"invoice", "beach"} <= set(words(segment.text)) for segment in answer.segments)


async def test_a_call_that_cannot_end_in_time_is_refused_before_its_time(speech):
    sound = np.concatenate([clip("invoice"), silence(0.7)] * 150)
    request = pb.RecognizeRequest(audio=recording(file(sound, "FLAC")))
    began = asyncio.get_running_loop().time()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await speech.Recognize(request, timeout=5.0)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "allow more time" in raised.value.details()
    assert asyncio.get_running_loop().time() - began < 4.5


async def test_a_bad_recording_does_not_disturb_its_neighbours(speech):
    good = pb.RecognizeRequest(audio=recording(file(clip("beach"))))
    bad = pb.RecognizeRequest(audio=recording(file(clip("beach"), "FLAC")[:60]))
    answers = await asyncio.gather(*(speech.Recognize(r) for r in (good, bad, good)), return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["RecognizeResponse", "AioRpcError", "RecognizeResponse"]
    assert {words(answer.transcript)[-1] for answer in (answers[0], answers[2])} == {"in"}


async def test_a_cancelled_call_stops_costing(speech, served):
    sound = np.concatenate([clip("invoice"), silence(0.7)] * 60)
    call = speech.Recognize(pb.RecognizeRequest(audio=recording(file(sound))))
    await asyncio.sleep(1.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(1.0)
    batchers = [model.batcher for model in served.host.index()]
    before = [batcher.stats().batches for batcher in batchers]
    await asyncio.sleep(0.5)
    assert [batcher.stats().batches for batcher in batchers] == before


async def test_the_python_client_recognises_and_detects(served, tmp_path):
    path = tmp_path / "beach.wav"
    path.write_bytes(file(clip("beach")))

    def blocking():
        with headrace.Client(served.address) as client:
            raw = headrace.RawAudio(pcm(clip("beach")), RATE)
            return client.speech.recognize(path), client.speech.recognize(raw), client.speech.detect_speech(path)

    whole, raw, found = await asyncio.to_thread(blocking)
    assert words(whole.text) == words(raw.text) == words(BEACH)
    assert (whole.language, str(whole.model), whole.receipt.model) == ("en", "whisper_tiny_en@1", whole.model)
    assert whole.duration == pytest.approx(len(clip("beach")) / RATE, abs=1e-3)
    assert found.segments[-1].end <= found.duration
    async with headrace.AsyncClient(served.address) as client:
        with path.open("rb") as opened:
            assert (await client.speech.recognize(opened)).text == whole.text
        assert (await client.speech.detect_speech(path)).segments == found.segments
        with pytest.raises(headrace.InvalidArgument, match="language_code"):
            await client.speech.recognize(path, language_code="xx")
        with pytest.raises(TypeError, match="no audio source"):
            await client.speech.recognize(7)
