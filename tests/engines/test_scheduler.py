from collections import deque
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.scheduler import Plan, admit, chunk_rows, fair_share, plan
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
