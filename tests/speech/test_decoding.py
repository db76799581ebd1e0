"""The policy of decoding on made-up logits: what is chosen, what is never chosen, and that it always ends."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.speech import decoding
from services.speech.decoding import Greedy, Rules, Said

VOCABULARY = 12
END = 11


def rules(most=50):
    first, later = np.zeros(VOCABULARY, np.float32), np.zeros(VOCABULARY, np.float32)
    later[3] = -np.inf
    first[[3, 4, END]] = -np.inf
    return Rules(first, later, END, most)


def wish(*tokens):
    """Logits that prefer these tokens, the first most."""
    logits = np.zeros(VOCABULARY, np.float32)
    for place, token in enumerate(tokens):
        logits[token] = 10.0 - place
    return logits


def follow(script, most=50):
    """Decode with a model that says token `script(tokens so far)`, and count its runs."""
    greedy, runs = Greedy(rules(most)), 0
    while not greedy.done:
        greedy.take(wish(*script(tuple(greedy.tokens))))
        runs += 1
    return greedy, runs


def test_the_likeliest_allowed_token_is_taken_and_the_end_ends():
    line = [5, 6, 7, END]
    greedy, runs = follow(lambda said: (3, line[len(said)]))
    assert greedy.tokens == [5, 6, 7]
    assert runs == 4
    said = greedy.said(0.25)
    assert (said.tokens, said.no_speech, said.looped) == ((5, 6, 7), 0.25, False)


def test_some_tokens_never_come_first():
    greedy, _ = follow(lambda said: (END, 4, 5) if not said else (4, END) if len(said) == 1 else (END,))
    assert greedy.tokens == [5, 4]


def test_the_chance_is_the_mean_log_probability_of_the_tokens_and_the_end():
    greedy, _ = follow(lambda said: (5,) if not said else (END,))
    others = VOCABULARY - 1 - 1  # one is wished for, one never allowed
    later = -np.log1p(others * np.exp(-10.0))
    first = -np.log1p((others - 2) * np.exp(-10.0))
    assert greedy.said(0.0).chance == pytest.approx((first + later) / 2, rel=1e-3)


def test_a_transcript_ends_at_its_limit():
    greedy, runs = follow(lambda said: (5 + len(said) % 3, 5 + (len(said) + 1) % 5), most=7)
    assert runs == len(greedy.tokens) == 7


def test_a_loop_is_left_where_it_began_and_decoding_goes_on():
    def script(said):
        """Says 5, then 6 7 6 7 ..., but ends well when it may not say 6 a second time."""
        if not said:
            return (5,)
        if said[-1] == 8:
            return (END,)
        return (6, 8) if said[-1] in (5, 7) else (7,)

    greedy, _ = follow(script)
    assert greedy.tokens == [5, 6, 7, 8]
    assert greedy.looped
    assert decoding.doubtful(greedy.said(0.0))


@pytest.mark.parametrize("phrase", [1, 2, 3, 7, 24])
def test_a_phrase_said_over_and_over_is_found(phrase):
    tokens = [99, 98, *(list(range(phrase)) * 12)]
    assert decoding.loop(tokens) == phrase
    assert decoding.loop(tokens[: 2 + 2 * phrase]) == 0


def test_a_word_may_be_said_often():
    assert decoding.loop([1, 2, *[3] * 8]) == 0
    assert decoding.loop([1, 2, *[3] * 10]) == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=3), min_size=1, max_size=40), st.data())
def test_decoding_ends_whatever_the_model_says(wishes, data):
    """The model's wishes depend on the place in an arbitrary way, and for ever on the last of them."""
    period = data.draw(st.integers(1, len(wishes)))
    greedy, runs = follow(lambda said: wishes[len(said) % period], most=60)
    assert runs <= 60 + 4 * 60
    assert len(greedy.tokens) <= 60
    assert decoding.loop(greedy.tokens) == 0
    assert 3 not in greedy.tokens
    assert END not in greedy.tokens
    assert len(greedy.chances) == len(greedy.tokens)


def test_sentences_said_twice_are_found_and_told_once():
    sentence = [1, 2, 3, 4, 5, 6]
    assert decoding.doubled([9, *sentence, *sentence]) == 6
    assert decoding.doubled([9, *sentence]) == 0
    assert decoding.doubled([1, 2, 1, 2]) == 0  # Two words may be said twice.
    assert list(decoding.collapsed([9, *sentence, *sentence, *sentence])) == [9, *sentence]


@pytest.mark.parametrize(
    ("chance", "no_speech", "kept"),
    [
        (-0.2, 0.0, True),
        (-0.1, 0.99, True),
        (-1.2, 0.7, False),
        (-0.9, 0.65, False),
        (-0.6, 0.65, True),
        (-0.4, 0.95, False),
        (-1.2, 0.1, True),
        (-2.0, 0.0, False),
    ],
)
def test_words_are_dropped_where_nobody_speaks(chance, no_speech, kept):
    said = Said((1, 2, 3), chance, no_speech, looped=False)
    assert decoding.settled(said).tokens == ((1, 2, 3) if kept else ())
    assert decoding.doubtful(said) is not kept


def test_in_a_short_window_a_sentence_said_twice_is_said_once():
    """The decoder ends, as it should have, when it may not begin again."""
    sentence = [1, 2, 4, 5, 6, 7]

    def script(said):
        return (sentence[len(said) % 6], END)

    def decode(plenty):
        greedy = Greedy(replace(rules(), plenty=plenty))
        while not greedy.done:
            greedy.take(wish(*script(tuple(greedy.tokens))))
        return greedy.said(0.0)

    assert decode(6) == Said(tuple(sentence), decode(6).chance, 0.0, looped=False)
    assert decode(7).looped  # The sound is too long for the sentence: perhaps it was said twice.
    assert decode(7).tokens == tuple(sentence)


def test_only_what_repeats_itself_thrice_is_cut():
    sentence = tuple(range(100, 130))
    said = Said(sentence * 2, -0.1, 0.0, looped=False)
    assert decoding.settled(said) == said
    assert decoding.doubtful(said)
    assert decoding.settled(Said(sentence * 4, -0.1, 0.0, looped=False)).tokens == sentence


def test_a_stretch_has_no_more_tokens_than_its_length_allows():
    assert decoding.most_tokens(0.0, 444) == 16
    assert decoding.most_tokens(2.0, 444) == 76
    assert decoding.most_tokens(30.0, 444) == 444
    assert decoding.most_tokens(30.0, 0) == 1


def test_a_probability_is_a_share_of_all():
    assert decoding.probability(np.array([0.0, 0.0, 0.0, 0.0], np.float32), 2) == pytest.approx(0.25)
    assert decoding.probability(np.array([1000.0, 0.0], np.float32), 0) == pytest.approx(1.0)
