"""The real Whisper tiny.en, through the batcher."""

import asyncio
import json
import shutil
import time

import numpy as np
import pytest

from services.chassis.errors import ServiceError
from services.speech.transcriber import Listening, Transcriber
from tests.mesh import zoo_models
from tests.speech.hosting import TEA, call, hosting, listening, noise, sound

NAMES = ("whisper_tiny_en_encoder", "whisper_tiny_en")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return zoo_models(tmp_path_factory.mktemp("whisper"), NAMES)


def transcriber(host):
    return Transcriber(host, host.resolve("whisper_tiny_en", "recognize"))


async def test_a_sentence_is_understood_in_either_window(models):
    async with hosting(models, *NAMES) as host:
        recogniser, rpc = transcriber(host), call()
        short = await recogniser.transcribe(sound(), rpc, listening())
        assert rpc.receipt.model == "whisper_tiny_en"
        full = await recogniser.transcribe(sound(), call(), listening(full_window=True, language="en-GB"))
        stats = {name: host.find(name, "")[0].stats for name in NAMES}
    for words in (short, full):
        assert words.text == TEA
        assert words.language == "en"
        assert 0.8 < words.confidence <= 1.0
        assert words.no_speech < 0.3
    assert len(full.tokens) == 17
    assert stats["whisper_tiny_en_encoder"].success.count == 2
    assert stats["whisper_tiny_en"].success.count >= 36  # The prompt, then each token in turn, for either window.


async def test_several_at_once_share_batches_and_change_nothing(models):
    """Stretches of different beginnings, so that their rows are at different places."""
    parts = [sound(), sound()[:40_000], np.concatenate([np.zeros(4000, np.float32), sound()[:50_000]])]
    async with hosting(models, *NAMES) as host:
        recogniser = transcriber(host)
        alone = [await recogniser.transcribe(part, call(), listening()) for part in parts]
        batcher = host.resolve("whisper_tiny_en", "recognize").batcher
        before = batcher.stats()
        together = await asyncio.gather(*(recogniser.transcribe(part, call(), listening()) for part in parts))
        after = batcher.stats()
    assert [words.tokens for words in together] == [words.tokens for words in alone]
    for one, other in zip(alone, together, strict=True):
        assert other.confidence == pytest.approx(one.confidence, abs=1e-3)
    assert after.batches - before.batches < after.rows - before.rows


async def test_no_words_where_there_are_none(models):
    async with hosting(models, *NAMES) as host:
        recogniser = transcriber(host)
        for samples in (np.zeros(48_000, np.float32), noise(3.0), np.zeros(0, np.float32)):
            words = await recogniser.transcribe(samples, call(), listening())
            assert words.text == "", words
            assert (words.tokens, words.confidence) == ((), 0.0)


async def test_what_was_said_before_may_be_told(models):
    async with hosting(models, *NAMES) as host:
        words = await transcriber(host).transcribe(sound(), call(), listening(prompt="We talked about drinks. " * 40))
    assert words.text.strip(".").lower() == TEA.strip(".").lower()


async def test_languages_that_the_model_does_not_know_are_refused(models):
    async with hosting(models, *NAMES) as host:
        recogniser = transcriber(host)
        assert recogniser.languages == {"en"}
        assert recogniser.language("") == ""
        assert recogniser.language("en-US") == "en"
        with pytest.raises(ServiceError, match="is 'de-DE'; model 'whisper_tiny_en' knows: en") as refused:
            recogniser.language("de-DE")
        assert refused.value.reason == "INVALID_FIELD" or refused.value.code.name == "INVALID_ARGUMENT"
        assert (await recogniser.detect_language(sound(), call(), listening()))[0] == "en"


async def test_a_deadline_ends_it_in_the_middle(models):
    async with hosting(models, *NAMES) as host:
        recogniser = transcriber(host)
        await recogniser.transcribe(sound(), call(), listening())
        with pytest.raises(ServiceError) as failed:
            await recogniser.transcribe(sound(), call(), Listening(time.monotonic() + 0.03, full_window=True))
        assert failed.value.reason == "DEADLINE_EXCEEDED"
        assert (await recogniser.transcribe(sound(), call(), listening())).text == TEA


async def test_what_is_damaged_or_missing_makes_the_model_unavailable(models, tmp_path):
    for name in NAMES:
        shutil.copytree(models / name, tmp_path / name)
    config = tmp_path / "whisper_tiny_en" / "config.json"
    config.write_text(json.dumps({"suppress_ids": []}))
    async with hosting(tmp_path, *NAMES) as host:
        with pytest.raises(ServiceError, match=r"config\.json: lacks suppress_ids") as failed:
            transcriber(host)
        assert failed.value.reason == "MODEL_UNAVAILABLE"
    async with hosting(tmp_path, "whisper_tiny_en") as host:
        shutil.copy(models / "whisper_tiny_en" / "config.json", config)
        with pytest.raises(ServiceError, match="whisper_tiny_en_encoder"):
            transcriber(host)
