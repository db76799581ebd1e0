"""Segmentation of speech by hypothesis, and its cases by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.speech.segments import CHUNK, Began, Ended, Piece, Rules, Segmenter, levels

RATE = 16_000
SECOND = RATE / CHUNK

RULES = [
    Rules(),
    Rules(min_silence=0.6, margin=0.2, max_piece=3.0),
    Rules(min_silence=0.6, pad=0.05, max_piece=2.0, soft_piece=0.7, soft_silence=0.2),
    Rules(min_speech=0.03, min_silence=0.3, max_piece=1.0),
]

#: Runs of one probability, so that long speech and long silence are as likely as chatter.
runs = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.99]), st.integers(1, 60)), max_size=20)


def chunks(listed):
    return np.array([value for value, count in listed for _ in range(count)], np.float32)


def run(rules, probabilities, loudness=None, total=None):
    segmenter = Segmenter(rules)
    loudness = np.ones_like(probabilities) if loudness is None else loudness
    events = segmenter.heard(probabilities, loudness)
    return events + segmenter.finish(len(probabilities) * CHUNK if total is None else total)


def speech(*pattern):
    """Probabilities of (speaks, seconds) pairs."""
    return chunks([(0.9 if speaks else 0.01, round(seconds * SECOND)) for speaks, seconds in pattern])


@pytest.mark.parametrize("rules", RULES)
@given(listed=runs)
@example(listed=[(0.99, 60)] * 20)
@example(listed=[(0.99, 20), (0.2, 2)] * 10)
@settings(max_examples=150, deadline=None)
def test_pieces_are_in_order_apart_short_enough_and_lose_nothing(rules, listed):
    probabilities = chunks(listed)
    events = run(rules, probabilities)
    pieces = [event for event in events if isinstance(event, Piece)]
    assert all(0 <= piece.start < piece.end <= len(probabilities) * CHUNK for piece in pieces)
    assert all(one.end <= other.start for one, other in itertools.pairwise(pieces))
    assert all(piece.hear_to - piece.hear_from <= rules.max_piece * RATE for piece in pieces)
    assert all(piece.hear_from <= piece.start and piece.end <= piece.hear_to for piece in pieces)
    pad = int(rules.pad * RATE)
    assert all(one.end <= other.hear_from for one, other in itertools.pairwise(pieces))
    assert all(one.hear_to <= other.start + pad for one, other in itertools.pairwise(pieces))
    inside = np.zeros(len(probabilities) * CHUNK, bool)
    for piece in pieces:
        inside[piece.start : piece.end] = True
    covered = inside.reshape(-1, CHUNK).all(axis=1)
    lost = (probabilities >= rules.onset) & ~covered
    assert longest_run(lost, probabilities, rules) * CHUNK < rules.min_speech * RATE + CHUNK


@pytest.mark.parametrize("rules", RULES)
@given(listed=runs)
@settings(max_examples=80, deadline=None)
def test_events_take_turns(rules, listed):
    events = run(rules, chunks(listed))
    open_ = False
    for event, after in itertools.pairwise([*events, None]):
        if isinstance(event, Began):
            assert not open_
            assert isinstance(after, Piece)
            assert after.start == event.at
            open_ = True
        elif isinstance(event, Ended):
            assert open_
            open_ = False
        else:
            assert open_
    assert not open_


@pytest.mark.parametrize("rules", RULES)
@given(listed=runs, cuts=st.lists(st.integers(0, 1200), max_size=6))
@settings(max_examples=60, deadline=None)
def test_arrival_in_parts_changes_nothing(rules, listed, cuts):
    probabilities = chunks(listed)
    loudness = np.linspace(1.0, 2.0, len(probabilities), dtype=np.float32)
    bounds = [0, *sorted(min(cut, len(probabilities)) for cut in cuts), len(probabilities)]
    segmenter, events = Segmenter(rules), []
    for first, after in itertools.pairwise(bounds):
        events += segmenter.heard(probabilities[first:after], loudness[first:after])
    events += segmenter.finish(len(probabilities) * CHUNK)
    assert events == run(rules, probabilities, loudness)


def longest_run(lost, probabilities, rules):
    """Chunks between the first and the last of a row of lost ones, which a pause of `min_silence` separates."""
    rows, row, quiet = [0], [], 0
    for index, (gone, probability) in enumerate(zip(lost, probabilities, strict=True)):
        quiet = 0 if probability >= rules.onset else quiet + 1
        if gone and quiet == 0:
            row = [*row, index] if row and index - row[-1] < 3 else [index]
            rows.append(row[-1] - row[0] + 1)
    return max(rows)


def test_padding_and_hysteresis_are_sileros():
    padding = int(0.03 * RATE)
    events = run(Rules(), speech((False, 1.0), (True, 2.0), (False, 1.0)))
    start, end = 31 * CHUNK - padding, 93 * CHUNK + padding
    assert events == [Began(start), Piece(start, end, start, end), Ended(end)]
    # Under the onset but not under the offset is still speech.
    weak = np.concatenate([speech((False, 1.0), (True, 1.0)), np.full(20, 0.4, np.float32), speech((True, 0.5))])
    assert len([event for event in run(Rules(), weak) if isinstance(event, Piece)]) == 1


def test_a_click_is_no_speech():
    assert run(Rules(), speech((False, 1.0), (True, 0.1), (False, 1.0))) == []


def test_silence_and_nothing_are_no_speech():
    assert run(Rules(), speech((False, 5.0))) == []
    assert run(Rules(), np.zeros(0, np.float32)) == []


def test_a_long_speech_is_cut_at_the_longest_of_its_late_pauses():
    rules = Rules(min_silence=0.6, max_piece=10.0)
    pattern = [(True, 2.0), (False, 0.5), (True, 4.0), (False, 0.2), (True, 1.0), (False, 0.4), (True, 6.0)]
    first, second = (event for event in run(rules, speech(*pattern)) if isinstance(event, Piece))
    assert first.end / RATE == pytest.approx(7.7, abs=0.1)
    assert second.start / RATE == pytest.approx(8.1, abs=0.1)


def test_who_never_pauses_is_cut_where_it_is_least_loud():
    rules = Rules(max_piece=10.0)
    probabilities = speech((True, 15.0))
    loudness = np.ones_like(probabilities)
    loudness[280:283] = 0.1
    first, second = (event for event in run(rules, probabilities, loudness) if isinstance(event, Piece))
    assert first.end == second.start == 281 * CHUNK


def test_a_piece_that_has_grown_ends_at_a_shorter_pause():
    rules = Rules(min_silence=0.6, soft_piece=5.0, soft_silence=0.2)
    pattern = [(True, 2.0), (False, 0.3), (True, 4.0), (False, 0.3), (True, 2.0), (False, 1.0)]
    events = run(rules, speech(*pattern))
    assert [type(event) for event in events] == [Began, Piece, Piece, Ended]
    assert events[1].end / RATE == pytest.approx(6.3, abs=0.1)


def test_a_piece_is_heard_with_the_silence_around_it():
    (piece,) = (
        e
        for e in run(Rules(margin=0.2, min_silence=0.6), speech((False, 1.0), (True, 1.0), (False, 1.0)))
        if isinstance(e, Piece)
    )
    assert (piece.start - piece.hear_from, piece.hear_to - piece.end) == (3200, 3200)


def test_offsets_never_pass_the_end_of_the_sound():
    probabilities = speech((False, 0.5), (True, 1.0))
    total = len(probabilities) * CHUNK - 300
    assert [event.end for event in run(Rules(), probabilities, total=total) if isinstance(event, Piece)] == [total]


def test_the_growing_piece_can_be_watched():
    segmenter = Segmenter(Rules(min_silence=0.6, margin=0.2))
    assert segmenter.growing is None
    for part in (speech((False, 1.0), (True, 1.0)), speech((False, 0.3))):
        segmenter.heard(part, np.ones_like(part))
    assert segmenter.speaking
    assert segmenter.quiet == 9 * CHUNK
    start, end = 31 * CHUNK - 480, 62 * CHUNK + 480
    assert segmenter.growing == Piece(start, end, start - 3200, end + 3200)
    segmenter.heard(*[speech((False, 0.5))] * 2)
    assert segmenter.growing is None


def test_rules_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match="offset"):
        Rules(onset=0.3, offset=0.5)
    with pytest.raises(ValueError, match="silence"):
        Rules(min_silence=0.05, pad=0.1)
    with pytest.raises(ValueError, match="last a second"):
        Rules(max_piece=0.5)


def test_levels_measure_each_chunk():
    samples = np.concatenate([np.full(CHUNK, 0.5, np.float32), np.zeros(CHUNK, np.float32), np.ones(10, np.float32)])
    np.testing.assert_allclose(levels(samples), [0.5, 0.0, np.sqrt(10 / CHUNK)], rtol=1e-6)
