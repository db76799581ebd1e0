import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from engines.base import Array, Engine, Tensors, TensorSpec
from engines.batcher import (
    Batcher,
    BatcherClosed,
    BatchLimits,
    BatchReport,
    DeadlineExpired,
    Deferred,
    Outcome,
    QueueFull,
    Work,
)
from engines.fake import FakeEngine, FakeOptions


def work(*firsts: float, width: int = 4, deadline: float = math.inf, tag: object = None) -> Work:
    """A row for each of `firsts`, all of its elements that number."""
    rows = np.repeat(np.array(firsts, np.float32)[:, None], width, axis=1)
    return Work({"x": rows}, len(firsts), deadline, tag)


@asynccontextmanager
async def running(
    engines: Engine | Sequence[Engine],
    max_rows: int = 16,
    max_queue_rows: int = 1000,
    on_batch: Callable[[BatchReport], None] | None = None,
) -> AsyncIterator[Batcher]:
    batcher = Batcher(
        engines if isinstance(engines, Sequence) else [engines], BatchLimits(max_rows, max_queue_rows), on_batch
    )
    await batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def wide_fake(**options: object) -> FakeEngine:
    """A fake whose rows may be of any width."""
    return FakeEngine(FakeOptions(inputs=(TensorSpec("x", "FP32", ("rows", "width")),), **options))  # type: ignore[arg-type] # forwarded as given


def firsts_of(engine: FakeEngine) -> list[list[float]]:
    return [batch["x"][:, 0].tolist() for batch in engine.batches]


def firsts(outcome: Outcome) -> list[float]:
    values: list[float] = outcome.outputs["y"][:, 0].tolist()
    return values


async def test_one_work_is_answered_with_its_timing() -> None:
    async with running(FakeEngine()) as batcher:
        before = time.monotonic()
        outcome = await batcher.submit(work(1, 2))
    assert firsts(outcome) == [2, 4]
    assert outcome.rows == 2
    assert (outcome.batch.rows, outcome.batch.members, outcome.batch.padding_ratio) == (2, 1, 0.0)
    assert before <= outcome.queued <= outcome.batch.started <= outcome.batch.ended <= time.monotonic()


async def test_works_of_one_turn_share_a_batch_and_get_their_own_rows() -> None:
    engine = FakeEngine()
    async with running(engine) as batcher:
        outcomes = await asyncio.gather(*(batcher.submit(work(n, n + 0.5)) for n in range(8)))
    assert [firsts(outcome) for outcome in outcomes] == [[2 * n, 2 * n + 1] for n in range(8)]
    assert len(engine.batches) == 1
    assert {outcome.batch.members for outcome in outcomes} == {8}


async def test_what_arrives_during_a_run_is_the_next_batch() -> None:
    gate = threading.Event()
    engine = FakeEngine(FakeOptions(gate=gate))
    async with running(engine) as batcher:
        first = asyncio.create_task(batcher.submit(work(0)))
        await until(lambda: batcher.running_rows == 1)
        rest = [asyncio.create_task(batcher.submit(work(n))) for n in range(1, 20)]
        await until(lambda: batcher.queued_rows == 19)
        gate.set()
        await asyncio.gather(first, *rest)
    assert [len(batch) for batch in firsts_of(engine)] == [1, 16, 3]


async def test_several_engines_pull_from_one_queue() -> None:
    gate = threading.Event()
    engines = [FakeEngine(FakeOptions(gate=gate)) for _ in range(2)]
    async with running(engines, max_rows=2) as batcher:
        tasks = [asyncio.create_task(batcher.submit(work(n))) for n in range(4)]
        await until(lambda: batcher.running_rows == 4)
        gate.set()
        await asyncio.gather(*tasks)
    assert [len(engine.batches) for engine in engines] == [1, 1]


async def test_slow_engines_share_what_waits() -> None:
    engines = [FakeEngine(FakeOptions(seconds_per_row=0.001)) for _ in range(2)]
    async with running(engines) as batcher:
        await batcher.submit(work(-1))
        outcomes = await asyncio.gather(*(batcher.submit(work(n)) for n in range(8)))
    assert [outcome.batch.rows for outcome in outcomes] == [4] * 8


async def test_shapes_are_never_mixed() -> None:
    engine = wide_fake()
    async with running(engine) as batcher:
        outcomes = await asyncio.gather(*(batcher.submit(work(n, width=2 + n % 2)) for n in range(6)))
    assert [outcome.outputs["y"].shape for outcome in outcomes] == [(1, 2), (1, 3)] * 3
    assert firsts_of(engine) == [[0, 2, 4], [1, 3, 5]]


async def test_a_budget_of_tokens_limits_the_batch() -> None:
    engine = wide_fake()
    batcher = Batcher([engine], BatchLimits(16, 100, max_tokens=12))
    await batcher.start()
    await asyncio.gather(*(batcher.submit(work(n)) for n in range(4)), batcher.submit(work(9, width=50)))
    await batcher.close()
    assert firsts_of(engine) == [[0, 1, 2], [3], [9]]


async def test_a_full_queue_refuses_at_the_door_and_says_when_to_retry() -> None:
    gate = threading.Event()
    async with running(FakeEngine(FakeOptions(gate=gate)), max_rows=1, max_queue_rows=3) as batcher:
        running_one = asyncio.create_task(batcher.submit(work(0)))
        await until(lambda: batcher.running_rows == 1)
        waiting = [asyncio.create_task(batcher.submit(work(n))) for n in range(3)]
        await until(lambda: batcher.queued_rows == 3)
        with pytest.raises(QueueFull) as refused:
            await batcher.submit(work(9))
        assert 0.01 <= refused.value.retry_after <= 10
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        admitted = asyncio.create_task(batcher.submit(work(4)))
        await until(lambda: batcher.queued_rows == 3)
        gate.set()
        assert firsts(await admitted) == [8]
        await asyncio.gather(running_one, *waiting[1:])


async def test_a_work_larger_than_a_batch_is_split_and_joined() -> None:
    engine = FakeEngine()
    async with running(engine, max_rows=4, max_queue_rows=100) as batcher:
        outcome = await batcher.submit(work(*range(10)))
    assert firsts(outcome) == [2 * n for n in range(10)]
    assert outcome.rows == 10
    assert outcome.batch.rows == 4
    assert [len(batch) for batch in firsts_of(engine)] == [4, 4, 2]


async def test_a_large_work_is_admitted_whole_or_not_at_all() -> None:
    gate = threading.Event()
    engine = FakeEngine(FakeOptions(gate=gate))
    async with running(engine, max_rows=2, max_queue_rows=6) as batcher:
        first = asyncio.create_task(batcher.submit(work(0, 1)))
        await until(lambda: batcher.running_rows == 2)
        second = asyncio.create_task(batcher.submit(work(2, 3)))
        await until(lambda: batcher.queued_rows == 2)
        with pytest.raises(QueueFull):
            await batcher.submit(work(*range(5)))
        assert batcher.queued_rows == 2
        gate.set()
        await asyncio.gather(first, second)


async def test_cancelled_work_never_reaches_an_engine() -> None:
    gate = threading.Event()
    engine = FakeEngine(FakeOptions(gate=gate))
    async with running(engine, max_rows=4) as batcher:
        first = asyncio.create_task(batcher.submit(work(0)))
        await until(lambda: batcher.running_rows == 1)
        gone = [asyncio.create_task(batcher.submit(work(n))) for n in (1, 2)]
        large = asyncio.create_task(batcher.submit(work(*range(10, 20))))
        stays = asyncio.create_task(batcher.submit(work(3)))
        await until(lambda: batcher.queued_rows == 13)
        for task in (*gone, large):
            task.cancel()
        await asyncio.wait([*gone, large])
        assert batcher.queued_rows == 1
        gate.set()
        await asyncio.gather(first, stays)
    assert firsts_of(engine) == [[0], [3]]


async def test_the_line_does_not_grow_by_cancelled_works() -> None:
    gate = threading.Event()
    async with running(FakeEngine(FakeOptions(gate=gate)), max_queue_rows=10) as batcher:
        first = asyncio.create_task(batcher.submit(work(0)))
        await until(lambda: batcher.running_rows == 1)
        for _ in range(50):
            tasks = [asyncio.create_task(batcher.submit(work(n))) for n in range(10)]
            await until(lambda: batcher.queued_rows == 10)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert len(list(batcher._line)) < 100
        gate.set()
        await first


async def test_work_that_arrives_too_late_is_refused() -> None:
    engine = FakeEngine()
    async with running(engine) as batcher:
        with pytest.raises(DeadlineExpired):
            await batcher.submit(work(1, deadline=time.monotonic() - 1))
    assert not engine.batches


async def test_callers_of_a_stuck_engine_hear_of_their_deadline_in_time() -> None:
    gate = threading.Event()
    engine = FakeEngine(FakeOptions(gate=gate))
    async with running(engine) as batcher:
        start = time.monotonic()
        stuck = asyncio.create_task(batcher.submit(work(0, deadline=start + 0.05)))
        await until(lambda: batcher.running_rows == 1)
        late, later = (asyncio.create_task(batcher.submit(work(n, deadline=start + 0.03 * n))) for n in (1, 3))
        patient = asyncio.create_task(batcher.submit(work(4)))
        results = await asyncio.gather(stuck, late, later, return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineExpired] * 3
        assert 0.09 <= time.monotonic() - start < 1
        gate.set()
        assert firsts(await patient) == [8]
    assert firsts_of(engine) == [[0], [4]]


async def test_drain_waits_for_all_that_is_queued_or_running() -> None:
    gate = threading.Event()
    async with running(FakeEngine(FakeOptions(gate=gate)), max_rows=1) as batcher:
        tasks = [asyncio.create_task(batcher.submit(work(n))) for n in range(3)]
        await until(lambda: batcher.queued_rows == 2)
        drain = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0)
        assert not drain.done()
        gate.set()
        await drain
        assert (batcher.queued_rows, batcher.running_rows) == (0, 0)
        await asyncio.gather(*tasks)
        await batcher.drain()


async def test_close_answers_the_waiting_and_finishes_the_running() -> None:
    gate = threading.Event()
    engine = FakeEngine(FakeOptions(gate=gate))
    batcher = Batcher([engine], BatchLimits(1, 10))
    await batcher.start()
    tasks = [asyncio.create_task(batcher.submit(work(n))) for n in range(3)]
    await until(lambda: batcher.queued_rows == 2)
    close = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await close
    assert [type(result) for result in results] == [Outcome, BatcherClosed, BatcherClosed]
    assert engine.closed
    with pytest.raises(BatcherClosed):
        await batcher.submit(work(1))
    await batcher.close()


async def test_close_leaves_an_engine_that_hangs() -> None:
    gate = threading.Event()
    batcher = Batcher([FakeEngine(FakeOptions(gate=gate))], BatchLimits(1, 10))
    await batcher.start()
    stuck = asyncio.create_task(batcher.submit(work(0)))
    await until(lambda: batcher.running_rows == 1)
    await batcher.close(grace=0.02)
    with pytest.raises(BatcherClosed):
        await stuck
    gate.set()


async def test_reports_carry_tags_and_timing() -> None:
    reports: list[BatchReport] = []
    async with running(FakeEngine(), on_batch=reports.append) as batcher:
        outcomes = await asyncio.gather(*(batcher.submit(work(n, tag=f"t{n}")) for n in range(3)))
        await batcher.drain()
    assert [(report.tags, report.error) for report in reports] == [(("t0", "t1", "t2"), None)]
    assert reports[0].timing == outcomes[0].batch


async def test_a_model_without_a_batch_axis_runs_one_by_one() -> None:
    engine = FakeEngine(FakeOptions(inputs=(TensorSpec("x", "FP32", (2, 3)),), batchable=False))
    async with running(engine) as batcher:
        inputs = [np.full((2, 3), n, np.float32) for n in range(3)]
        outcomes = await asyncio.gather(*(batcher.submit(Work({"x": x}, 1)) for x in inputs))
    for outcome, x in zip(outcomes, inputs, strict=True):
        np.testing.assert_array_equal(outcome.outputs["y"], 2 * x)
    assert len(engine.batches) == 3


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (Work({}, 1), "a work has inputs x of at least one row, got none"),
        (Work({"z": np.zeros((1, 4), np.float32)}, 1), "'x' must be there"),
        (Work({"x": np.zeros((1, 4), np.float64)}, 1), "dtype float32"),
        (Work({"x": np.zeros((2, 4), np.float32)}, 1), "work of 1 rows"),
        (Work({"x": np.zeros((0, 4), np.float32)}, 0), "at least one row"),
    ],
)
async def test_inputs_that_contradict_the_signature_are_refused(bad: Work, problem: str) -> None:
    async with running(FakeEngine()) as batcher:
        with pytest.raises(ValueError, match=problem):
            await batcher.submit(bad)


async def test_stats_count_batches_and_rows() -> None:
    async with running([FakeEngine(), FakeEngine()], max_rows=2) as batcher:
        await asyncio.gather(*(batcher.submit(work(n)) for n in range(6)))
        await batcher.drain()
        stats = batcher.stats()
    assert (stats.engines, stats.batches, stats.rows, stats.failed_batches) == (2, 3, 6, 0)


async def test_every_work_of_a_random_load_gets_its_own_answer() -> None:
    random = np.random.default_rng(7)
    engines = [wide_fake(), wide_fake()]
    async with running(engines, max_rows=8) as batcher:

        async def client(number: int) -> None:
            for step in range(20):
                sent = work(*random.integers(0, 1000, random.integers(1, 12)), width=int(random.integers(1, 4)))
                task = asyncio.create_task(batcher.submit(sent))
                if random.random() < 0.2:
                    await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                else:
                    np.testing.assert_array_equal((await task).outputs["y"], 2 * sent.inputs["x"], f"{number}/{step}")

        await asyncio.gather(*(client(number) for number in range(20)))
        await batcher.drain()
        assert (batcher.queued_rows, batcher.running_rows) == (0, 0)


class Nimble(FakeEngine):
    """A fake that may be called from any thread, and says which one did."""

    any_thread = True

    def __init__(self, options: FakeOptions | None = None) -> None:
        super().__init__(options)
        self.delay = 0.0
        self.threads: list[str] = []

    def run(self, batch: Tensors) -> dict[str, Array]:
        self.threads.append(threading.current_thread().name)
        if self.delay:
            time.sleep(self.delay)
        return {"y": batch["x"] * np.float32(2)}


def deferred(number: float, seconds: float = 0.0, rows: int = 1) -> Work:
    """A work whose inputs take `seconds` to make, in a thread of its engine's."""

    def make() -> Tensors:
        assert threading.current_thread().name.startswith("engine-")
        time.sleep(seconds)
        return {"x": np.full((rows, 4), number, np.float32)}

    return Work(Deferred(make, {"x": (rows, 4)}), rows)


async def test_deferred_inputs_share_batches_with_tensors() -> None:
    engine = FakeEngine()
    async with running(engine) as batcher:
        works = (deferred(1), work(2), deferred(3, rows=2))
        outcomes = await asyncio.gather(*(batcher.submit(each) for each in works))
    assert [firsts(outcome) for outcome in outcomes] == [[2], [4], [6, 6]]
    assert firsts_of(engine) == [[1, 2, 3, 3]]
    assert [outcome.prepared is None for outcome in outcomes] == [False, True, False]


async def test_preparing_counts_neither_as_waiting_nor_as_computing() -> None:
    async with running(FakeEngine(FakeOptions(seconds_per_batch=0.01))) as batcher:
        outcome = await batcher.submit(deferred(1, seconds=0.1))
    assert outcome.prepared is not None
    started, ended = outcome.prepared
    assert outcome.queued <= started <= ended - 0.1 < outcome.batch.started
    assert outcome.waited == pytest.approx(outcome.batch.started - outcome.queued - (ended - started))
    assert outcome.batch.ended - outcome.batch.started < 0.1 < outcome.batch.ended - outcome.queued


async def test_several_engines_prepare_at_once() -> None:
    async with running([FakeEngine(), FakeEngine()], max_rows=1) as batcher:
        outcomes = await asyncio.gather(*(batcher.submit(deferred(number, seconds=0.1)) for number in range(2)))
    (first, second) = (outcome.prepared for outcome in outcomes)
    assert first is not None
    assert second is not None
    assert max(first[0], second[0]) < min(first[1], second[1])


async def test_deferred_inputs_are_no_more_than_a_batch() -> None:
    async with running(FakeEngine(), max_rows=2) as batcher:
        with pytest.raises(ValueError, match="at most the 2 rows"):
            await batcher.submit(deferred(1, rows=3))


async def test_a_quick_engine_leaves_deferred_inputs_to_its_thread() -> None:
    async with running(Nimble()) as batcher:
        outcomes = await asyncio.gather(*(batcher.submit(each) for each in (deferred(1), work(2), deferred(3))))
        assert [firsts(outcome) for outcome in outcomes] == [[2], [4], [6]]
        assert firsts(await batcher.submit(deferred(4))) == [8]
        assert batcher.running_rows == 0


async def test_a_quick_engine_runs_where_the_loop_is_until_it_proves_slow() -> None:
    engine = Nimble()
    async with running(engine, max_rows=2) as batcher:
        engine.threads.clear()
        outcomes = await asyncio.gather(*(batcher.submit(work(n)) for n in range(9)))
        assert [firsts(outcome) for outcome in outcomes] == [[2 * n] for n in range(9)]
        here = threading.current_thread().name
        assert set(engine.threads) in ({here}, {"engine-0"})  # A machine under load may not see that it is quick.
        engine.delay = 0.002
        for number in range(20):
            assert firsts(await batcher.submit(work(number))) == [2 * number]
        assert engine.threads[-1] == "engine-0"
        outcomes = await asyncio.gather(*(batcher.submit(work(n)) for n in range(9)))
        assert [firsts(outcome) for outcome in outcomes] == [[2 * n] for n in range(9)]


async def test_a_long_line_before_a_quick_engine_is_served_without_recursion() -> None:
    async with running(Nimble(), max_rows=1, max_queue_rows=5000) as batcher:
        outcomes = await asyncio.gather(*(batcher.submit(work(n)) for n in range(3000)))
    assert [firsts(outcome) for outcome in outcomes] == [[2 * n] for n in range(3000)]
