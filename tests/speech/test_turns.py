"""What a live stream's recogniser does next, with a clock of numbers."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.speech.segments import Piece
from services.speech.turns import Cadence, Open, Turns

SECOND = 16_000


def piece(start, end, heard=None):
    """Seconds; `heard`: up to where it is heard."""
    return Piece(*(int(value * SECOND) for value in (start, end, max(start - 0.2, 0.0), heard or end)))


def growing(start, now, quiet=0.0):
    end = now - quiet
    return Open(piece(start, end, min(now, end + 0.2)), int(quiet * SECOND))


def turns(**cadence):
    return Turns(Cadence(**cadence))


def test_nothing_is_to_be_done_in_silence():
    assert turns().next(None, 5.0) is None


def test_the_first_guess_comes_soon_and_later_ones_at_their_pace():
    agenda = turns(first=0.4, refresh=0.8)
    assert agenda.next(growing(1.0, 1.3), 1.3) is None
    job = agenda.next(growing(1.0, 1.4), 1.4)
    assert (job.final, job.whole, job.piece.hear_to) == (False, False, int(1.4 * SECOND))
    assert agenda.next(growing(1.0, 1.6), 1.6) is None, "one at a time"
    result = agenda.done("hello", 0.9, 1.6)
    assert (result.text, result.final) == ("hello", False)
    assert agenda.wake_at() == pytest.approx(2.2)
    assert agenda.next(growing(1.0, 2.1), 2.1) is None
    assert agenda.next(growing(1.0, 2.2), 2.2) is not None


@pytest.mark.parametrize(("took", "pause"), [(0.1, 0.8), (0.4, 1.0), (2.0, 1.4)])
def test_the_pace_of_guesses_follows_what_they_cost(took, pause):
    agenda = turns(refresh=0.8, slowest=1.4, easing=2.5)
    agenda.next(growing(0.0, 1.0), 1.0)
    agenda.done("hello", 0.9, 1.0 + took)
    assert agenda.wake_at() == pytest.approx(1.0 + pause)


def test_a_guess_without_words_is_tried_again_soon_and_not_told():
    agenda = turns(retry=0.25)
    agenda.next(growing(0.0, 0.5), 0.5)
    assert agenda.done("", 0.0, 0.6) is None
    assert agenda.next(growing(0.0, 0.75), 0.75) is not None


def test_nothing_new_is_no_reason_for_a_guess():
    agenda = turns()
    agenda.next(growing(0.0, 1.0), 1.0)
    agenda.done("hello", 0.9, 1.1)
    assert agenda.next(growing(0.0, 1.0), 9.0) is None


def test_who_pauses_is_heard_at_once_and_the_final_is_known_at_the_endpoint():
    agenda = turns(pause=0.2)
    agenda.next(growing(0.0, 1.0), 1.0)
    agenda.done("hello", 0.9, 1.1)
    assert agenda.next(growing(0.0, 1.3, quiet=0.1), 1.3) is None, "perhaps the pause is none"
    job = agenda.next(growing(0.0, 1.4, quiet=0.2), 1.4)
    assert (job.whole, job.piece.hear_to) == (True, int(1.4 * SECOND))
    guess = agenda.done("hello world", 0.8, 1.6)
    assert (guess.text, guess.final) == ("hello world", False)
    assert agenda.next(growing(0.0, 1.7, quiet=0.5), 1.7) is None, "it is known already"
    final = agenda.over(piece(0.0, 1.2, 1.4))
    assert (final.text, final.confidence, final.final, final.stability) == ("hello world", 0.8, True, 0.0)
    assert agenda.waiting == 0


def test_who_goes_on_after_a_pause_is_heard_anew():
    agenda = turns()
    agenda.next(growing(0.0, 1.4, quiet=0.2), 1.4)
    agenda.done("hello", 0.9, 1.5)
    assert agenda.over(piece(0.0, 3.0, 3.2)) is None
    job = agenda.next(None, 3.6)
    assert job.final
    assert agenda.done("hello world", 0.9, 3.8).text == "hello world"


def test_a_whole_guess_that_runs_at_the_endpoint_becomes_the_final():
    agenda = turns()
    agenda.next(growing(0.0, 1.4, quiet=0.2), 1.4)
    assert agenda.over(piece(0.0, 1.2, 1.4)) is None
    assert agenda.running.final
    assert not agenda.obsolete(None)
    assert agenda.waiting == 1
    assert agenda.done("hello", 0.9, 2.0).final


def test_a_guess_gives_way_to_a_final():
    agenda = turns()
    agenda.next(growing(0.0, 1.0), 1.0)
    assert not agenda.obsolete(growing(0.0, 1.1))
    agenda.over(piece(0.0, 1.2, 1.4))
    assert agenda.obsolete(None)
    agenda.dropped()
    assert agenda.next(None, 1.8).final


def test_a_guess_gives_way_to_a_pause():
    agenda = turns()
    agenda.next(growing(0.0, 1.0), 1.0)
    assert agenda.obsolete(growing(0.0, 1.4, quiet=0.3))
    agenda.dropped()
    job = agenda.next(growing(0.0, 1.4, quiet=0.3), 1.4)
    assert job.whole
    assert not agenda.obsolete(growing(0.0, 1.6)), "what hears a pause is heard out"


def test_a_guess_that_fails_is_not_tried_again_at_once():
    agenda = turns(refresh=0.8)
    agenda.next(growing(0.0, 1.4, quiet=0.3), 1.4)
    agenda.failed(1.5)
    assert agenda.next(growing(0.0, 1.5, quiet=0.4), 1.5) is None
    assert agenda.next(growing(0.0, 2.4), 2.4) is not None


def test_without_guesses_only_pauses_are_heard_and_nothing_is_told():
    agenda = turns(guesses=False)
    assert agenda.next(growing(0.0, 5.0), 5.0) is None
    assert agenda.next(growing(0.0, 5.4, quiet=0.3), 5.4).whole
    assert agenda.done("hello", 0.9, 5.5) is None
    assert agenda.over(piece(0.0, 5.1, 5.3)).text == "hello"


def test_stability_is_the_share_of_words_that_stayed():
    agenda = turns()
    told = []
    for index, text in enumerate(["one", "one two", "one two three four", "won two three four"], start=1):
        agenda.next(growing(0.0, 10.0 * index), 10.0 * index)
        told.append(agenda.done(text, 0.5, 10.0 * index + 0.1).stability)
    assert told == [pytest.approx(value) for value in (1 / 3, 2 / 4, 3 / 6, 1 / 6)]
    agenda.over(piece(0.0, 40.0))
    agenda.next(None, 41.0)
    agenda.done("won", 0.5, 41.5)
    agenda.next(growing(42.0, 43.0), 43.0)
    assert agenda.done("won", 0.5, 43.1).stability == pytest.approx(1 / 3), "another piece, other words"


class Stage:
    """A stream played by hand: who speaks, pauses and stops, and a recogniser that runs now and then."""

    def __init__(self):
        self.agenda, self.now, self.start, self.quiet = turns(), 0.0, None, 0.0
        self.ended, self.finals = [], []

    def speak(self, seconds):
        self.start, self.quiet = (self.now - seconds if self.start is None else self.start), 0.0

    def pause(self, seconds):
        if self.start is not None:
            self.quiet = min(self.quiet + seconds, self.now - self.start - 0.01)

    def end(self, _seconds):
        if self.start is not None:
            self.ended.append(self.watch().piece)
            self.tell(self.agenda.over(self.ended[-1]))
            self.start = None

    def run(self, seconds):
        if self.agenda.obsolete(self.watch()):
            self.agenda.dropped()
        job = self.agenda.running or self.agenda.next(self.watch(), self.now)
        if job is not None and seconds > 0.3:
            self.tell(self.agenda.done("words", 0.5, self.now))

    def watch(self):
        return None if self.start is None else growing(self.start, self.now, self.quiet)

    def tell(self, result):
        if result is not None and result.final:
            self.finals.append(result.piece)


@settings(max_examples=100, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from(["speak", "pause", "end", "run"]), st.floats(0.05, 1.5)), min_size=1, max_size=60
    )
)
def test_every_piece_gets_one_final_in_order_whatever_happens(plan):
    stage = Stage()
    for what, seconds in plan:
        stage.now += seconds
        getattr(stage, what)(seconds)
    while stage.agenda.waiting:
        stage.run(1.0)
    assert stage.finals == stage.ended
    assert all(one.start <= other.start for one, other in itertools.pairwise(stage.finals))
