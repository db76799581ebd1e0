"""How the parts of a transcript become one: the language that is chosen, and what stands between phrases."""

import asyncio

import pytest

from services.speech.recognition import Phrase, _Vote, spaced
from services.speech.transcriber import Hypothesis


def heard(language, confidence=0.9, text="words"):
    return Hypothesis(text, (1,), confidence, 0.0, language)


async def chosen(vote):
    return await asyncio.wait_for(vote.decided(), 1.0)


async def test_long_and_sure_pieces_choose_the_language():
    vote = _Vote("")
    vote.cast(heard("nn", 0.3), 2.0)
    vote.cast(heard("en"), 8.0)
    assert vote.open
    vote.cast(heard("de", 0.4), 9.0)
    assert await chosen(vote) == "en"


async def test_pieces_that_agree_outvote_a_longer_one():
    vote = _Vote("")
    for language, seconds in (("de", 5.0), ("en", 6.0), ("de", 4.0)):
        vote.cast(heard(language), seconds)
    assert await chosen(vote) == "de"


async def test_a_short_recording_has_fewer_voters():
    vote = _Vote("")
    vote.cast(heard("fr"), 2.0)
    vote.end(1)
    assert await chosen(vote) == "fr"
    late = _Vote("")
    late.end(2)
    late.cast(heard("fr"), 2.0)
    assert late.open
    late.cast(heard("fr"), 2.0)
    assert await chosen(late) == "fr"


async def test_who_says_nothing_has_no_language():
    for pieces in (0, 1):
        vote = _Vote("")
        vote.end(pieces)
        for _ in range(pieces):
            vote.cast(heard("nn", text=""), 1.0)
        assert await chosen(vote) == ""


async def test_a_language_that_was_asked_for_is_not_voted_on():
    vote = _Vote("en")
    assert not vote.open
    vote.cast(heard("de"), 30.0)
    vote.end(1)
    assert await chosen(vote) == "en"


@pytest.mark.parametrize(("language", "joined"), [("en", "one two"), ("zh", "onetwo"), ("", "one two")])
def test_phrases_are_set_apart_as_their_language_does(language, joined):
    phrases = [Phrase(0, 1, "one", 0.9), Phrase(1, 2, "two", 0.9)]
    assert "".join(phrase.text for phrase in spaced(phrases, language)) == joined
