import math
from collections import deque
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.curve import TimeCurve
from engines.forecast import hopeless
from engines.scheduler import PATIENCE, Plan, admit, chunk_rows, fair_share, plan, urgency
from engines.tight import size_of
from engines.work import BatchLimits

NOW = 100.0


@dataclass
class Job:
    number: int
    group: int = 0
    rows: int = 1
    tokens: int = 1
    deadline: float = NOW + 1
    cancelled: bool = False


def limits(max_rows: int = 4, max_tokens: int | None = None) -> BatchLimits:
    return BatchLimits(max_rows, 100, max_tokens)


def numbers(jobs: list[Job]) -> list[int]:
    return [job.number for job in jobs]


def apply(waiting: deque[Job], chosen: Plan[Job]) -> None:
    """Do to the queue what the batcher does."""
    for _ in range(chosen.scanned):
        waiting.popleft()
    waiting.extendleft(reversed(chosen.passed))


def test_one_waiting_work_is_taken_at_once() -> None:
    assert numbers(plan([Job(0)], limits(), NOW).take) == [0]


def test_nothing_waits() -> None:
    assert plan([], limits(), NOW) == Plan([], [], [], [], 0)


def test_rows_fill_the_batch_in_order() -> None:
    chosen = plan([Job(n, rows=rows) for n, rows in enumerate([2, 1, 1, 1])], limits(4), NOW)
    assert numbers(chosen.take) == [0, 1, 2]
    assert chosen.scanned == 3


def test_a_work_that_does_not_fit_is_not_overtaken_by_its_group() -> None:
    chosen = plan([Job(0, rows=3), Job(1, rows=2), Job(2, rows=1)], limits(4), NOW)
    assert numbers(chosen.take) == [0]


def test_tokens_limit_the_batch() -> None:
    chosen = plan([Job(n, tokens=30) for n in range(5)], limits(16, max_tokens=100), NOW)
    assert numbers(chosen.take) == [0, 1, 2]


def test_other_shapes_do_not_close_the_batch_and_keep_their_places() -> None:
    waiting = deque([Job(0, group=1), Job(1, group=2), Job(2, group=1), Job(3, group=2), Job(4, group=1)])
    first = plan(waiting, limits(3), NOW)
    assert numbers(first.take) == [0, 2, 4]
    apply(waiting, first)
    assert numbers(plan(waiting, limits(3), NOW).take) == [1, 3]


def test_cancelled_and_expired_works_are_dropped_on_the_way() -> None:
    chosen = plan([Job(0, cancelled=True), Job(1, deadline=NOW), Job(2)], limits(), NOW)
    assert (numbers(chosen.take), numbers(chosen.expired), numbers(chosen.cancelled)) == ([2], [1], [0])


def test_a_full_queue_refuses_and_an_empty_one_takes_any_size() -> None:
    small = BatchLimits(4, 10)
    assert admit(8, 2, small)
    assert not admit(8, 3, small)
    assert admit(0, 11, small)


def test_a_share_bounds_the_batch_but_never_refuses_the_oldest() -> None:
    waiting = [Job(n) for n in range(8)]
    assert numbers(plan(waiting, limits(16), NOW, share=3).take) == [0, 1, 2]
    assert numbers(plan([Job(0, rows=5), Job(1)], limits(16), NOW, share=3).take) == [0]
    assert len(plan(waiting, limits(4), NOW, share=100).take) == 4


def test_engines_share_what_waits_and_runs() -> None:
    assert [fair_share(8, engines) for engines in (1, 2, 3, 8, 16)] == [8, 4, 3, 1, 1]
    assert fair_share(0, 2) == 1


def test_chunks_respect_rows_and_tokens() -> None:
    assert chunk_rows(10, 10, limits(4)) == 4
    assert chunk_rows(10, 1000, limits(4, max_tokens=250)) == 2
    assert chunk_rows(2, 1000, limits(4, max_tokens=250)) == 1
    assert chunk_rows(3, 0, limits(4, max_tokens=250)) == 3


jobs = st.lists(
    st.builds(
        Job,
        number=st.just(0),
        group=st.integers(0, 3),
        rows=st.integers(1, 6),
        tokens=st.integers(1, 60),
        deadline=st.sampled_from([NOW - 1, NOW, NOW + 1, float("inf")]),
        cancelled=st.sampled_from([False, False, False, True]),
    ),
    max_size=40,
)
budgets = st.builds(
    BatchLimits, st.integers(6, 16), st.just(100), st.one_of(st.none(), st.integers(60, 200))
)  # Larger works are cut into chunks before they wait.


@given(jobs, budgets)
@settings(max_examples=200, deadline=None)
def test_every_work_is_dealt_with_once_within_the_budget_and_in_order(waiting: list[Job], budget: BatchLimits) -> None:
    for number, job in enumerate(waiting):
        job.number = number
    queue = deque(waiting)
    seen: list[int] = []
    while queue:
        oldest = next((job for job in queue if not job.cancelled and job.deadline > NOW), None)
        chosen = plan(queue, budget, NOW)
        assert chosen.scanned == sum(map(len, (chosen.take, chosen.expired, chosen.cancelled, chosen.passed)))
        # No starvation: whatever the groups, the oldest live work is in the very next batch.
        assert chosen.take[:1] == ([] if oldest is None else [oldest])
        assert len({job.group for job in chosen.take}) <= 1
        assert sum(job.rows for job in chosen.take) <= budget.max_rows
        assert budget.max_tokens is None or sum(job.tokens for job in chosen.take) <= budget.max_tokens
        assert all(job.deadline <= NOW for job in chosen.expired)
        assert all(job.cancelled for job in chosen.cancelled)
        seen += numbers([*chosen.take, *chosen.expired, *chosen.cancelled])
        apply(queue, chosen)
        assert numbers(list(queue)) == sorted(numbers(list(queue)))
    assert sorted(seen) == list(range(len(waiting)))


@given(jobs, budgets)
@settings(max_examples=100, deadline=None)
def test_a_group_is_served_in_order_of_arrival(waiting: list[Job], budget: BatchLimits) -> None:
    for number, job in enumerate(waiting):
        job.number = number
    queue = deque(waiting)
    served: dict[int, list[int]] = {}
    while queue:
        chosen = plan(queue, budget, NOW)
        for job in chosen.take:
            served.setdefault(job.group, []).append(job.number)
        apply(queue, chosen)
    assert all(order == sorted(order) for order in served.values())


@given(jobs, budgets)
@settings(max_examples=100, deadline=None)
def test_no_engine_idles_beside_work_that_would_fit(waiting: list[Job], budget: BatchLimits) -> None:
    for number, job in enumerate(waiting):
        job.number = number
    chosen = plan(waiting, budget, NOW)
    if not chosen.take:
        return
    rows, tokens = sum(job.rows for job in chosen.take), sum(job.tokens for job in chosen.take)
    left = [job for job in waiting if job not in chosen.take and not job.cancelled and job.deadline > NOW]
    nearest = next((job for job in left if job.group == chosen.take[0].group), None)
    if nearest is not None:
        over_tokens = budget.max_tokens is not None and tokens + nearest.tokens > budget.max_tokens
        assert rows + nearest.rows > budget.max_rows or over_tokens


def curve(fixed: float = 0.004, per_row: float = 0.001) -> TimeCurve:
    """A known curve of batches of 1 to 64 tokens."""
    known = TimeCurve()
    for _ in range(8):
        for size in (1, 2, 4, 8, 16, 32, 64):
            known.add(size, fixed + per_row * size)
    return known


def due(*after_ms: float) -> list[Job]:
    """Works that are due so many milliseconds from now."""
    return [Job(n, deadline=NOW + ms / 1000) for n, ms in enumerate(after_ms)]


def test_the_order_is_by_deadline_where_one_is_near_and_by_arrival_elsewhere() -> None:
    assert urgency(10.0, 10.2) < urgency(9.5, math.inf) < urgency(9.6, 900.0) < urgency(10.5, 11.4) == 11.4
    assert urgency(10.0, math.inf) == 10.0 + PATIENCE


def test_a_batch_with_time_is_filled_as_ever() -> None:
    waiting = due(*[100] * 6)
    assert numbers(plan(waiting, limits(4), NOW, curve=curve()).take) == [0, 1, 2, 3]


def test_what_cannot_be_in_time_any_more_is_given_up() -> None:
    chosen = plan(due(3, 100, 100), limits(4), NOW, curve=curve())
    assert numbers(chosen.late) == [0]
    assert numbers(chosen.take) == [1, 2]


def test_an_engine_that_would_idle_tries_what_looks_hopeless() -> None:
    chosen = plan(due(3, 3.5), limits(4), NOW, curve=curve())
    assert numbers(chosen.take) == [1]
    assert numbers(chosen.late) == [0]


def test_a_batch_is_shortened_for_the_sake_of_its_most_urgent_work() -> None:
    # Eight take 12 ms: too long for the first four. Four now, and four in 8 ms more, lose nothing.
    chosen = plan(due(*[8.5] * 4, *[50] * 4), limits(8), NOW, curve=curve())
    assert numbers(chosen.take) == [0, 1, 2, 3]
    assert not chosen.late


def test_the_most_urgent_is_passed_over_where_it_would_cost_many_others() -> None:
    # One alone takes 5 ms, and the eight after it until 17 ms, when they are late.
    chosen = plan(due(6, *[13] * 8), limits(8), NOW, curve=curve())
    assert numbers(chosen.take) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert numbers(chosen.passed) == [0]


timed_jobs = st.lists(
    st.builds(
        Job,
        number=st.just(0),
        group=st.integers(0, 2),
        rows=st.integers(1, 6),
        tokens=st.integers(0, 60),
        deadline=st.one_of(st.floats(NOW - 0.01, NOW + 0.2), st.just(math.inf)),
        cancelled=st.sampled_from([False, False, False, True]),
    ),
    max_size=40,
)


@given(timed_jobs, budgets, st.floats(0.0001, 0.05), st.floats(1e-5, 0.01))
@settings(max_examples=200, deadline=None)
def test_by_a_curve_too_every_work_is_dealt_with_once_within_the_budget(
    waiting: list[Job], budget: BatchLimits, fixed: float, per_row: float
) -> None:
    waiting.sort(key=lambda job: urgency(NOW, job.deadline))
    for number, job in enumerate(waiting):
        job.number = number
    known, now = curve(fixed, per_row), NOW
    queue = deque(waiting)
    seen: list[int] = []
    while queue:
        before = list(queue)
        chosen = plan(queue, budget, now, curve=known)
        dealt_with = [*chosen.take, *chosen.expired, *chosen.cancelled, *chosen.late]
        assert chosen.scanned == len(dealt_with) + len(chosen.passed)
        assert dealt_with, "every plan gets on"
        assert sorted(numbers([*dealt_with, *chosen.passed])) == sorted(numbers(before[: chosen.scanned]))
        assert len({job.group for job in chosen.take}) <= 1
        assert sum(job.rows for job in chosen.take) <= budget.max_rows
        assert budget.max_tokens is None or sum(job.tokens for job in chosen.take) <= budget.max_tokens
        assert all(job.deadline > now and not job.cancelled for job in chosen.take)
        assert all(job.deadline <= now for job in chosen.expired)
        assert all(hopeless(known, size_of(job), job.deadline, now) for job in chosen.late)
        # No starvation: a work without a deadline is overtaken by more urgent ones of its group only.
        if chosen.take and chosen.take[0].deadline == math.inf:
            group = [job for job in before if job.group == chosen.take[0].group and not job.cancelled]
            assert chosen.take[0] is next(job for job in group if job.deadline == math.inf)
        seen += numbers(dealt_with)
        apply(queue, chosen)
        assert numbers(list(queue)) == sorted(numbers(list(queue)))
        now += known.seconds(sum(map(size_of, chosen.take)))
    assert sorted(seen) == list(range(len(waiting)))


@given(timed_jobs, budgets)
@settings(max_examples=100, deadline=None)
def test_an_engine_never_idles_beside_live_work(waiting: list[Job], budget: BatchLimits) -> None:
    live = [job for job in waiting if not job.cancelled and job.deadline > NOW]
    assert bool(plan(waiting, budget, NOW, curve=curve()).take) == bool(live)
