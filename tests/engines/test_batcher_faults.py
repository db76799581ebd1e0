import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from engines.base import EngineError, Tensors
from engines.batcher import (
    Batcher,
    BatchLimits,
    BatchReport,
    DeadlineExpired,
    Deferred,
    EnginesLost,
    ItemFailed,
    Outcome,
    Work,
)
from engines.fake import FakeEngine, FakeOptions, Wrong

POISON = 13.0


def work(first: float, rows: int = 1, deadline: float = math.inf) -> Work:
    return Work({"x": np.full((rows, 4), first, np.float32)}, rows, deadline, tag=first)


class Started:
    """Makes batchers that the test need not close."""

    def __init__(self) -> None:
        self.batchers: list[Batcher] = []
        self.reports: list[BatchReport] = []

    async def __call__(self, *engines: FakeEngine, max_rows: int = 16) -> Batcher:
        batcher = Batcher(engines, BatchLimits(max_rows, 1000), self.reports.append)
        self.batchers.append(batcher)
        await batcher.start()
        return batcher


@pytest.fixture
async def started() -> AsyncIterator[Started]:
    made = Started()
    yield made
    for batcher in made.batchers:
        await batcher.close()


@pytest.mark.parametrize("bad", [{3}, {0}, {7}, {2, 5}, set(range(8))])
async def test_only_the_bad_items_of_a_failing_batch_err(started: Started, bad: set[int]) -> None:
    batcher = await started(FakeEngine(FakeOptions(fail_on=POISON)))
    results = await asyncio.gather(
        *(batcher.submit(work(POISON if n in bad else n)) for n in range(8)), return_exceptions=True
    )
    for number, result in enumerate(results):
        if number in bad:
            assert isinstance(result, ItemFailed)
            assert isinstance(result.__cause__, EngineError)
        else:
            assert isinstance(result, Outcome)
            assert result.outputs["y"][0, 0] == 2 * number
            assert result.batch.members < 8
    await batcher.drain()
    assert started.reports[0].error is not None
    assert batcher.running_rows == 0


async def test_inputs_that_cannot_be_made_fail_their_own_work_as_they_say(started: Started) -> None:
    batcher = await started(FakeEngine(FakeOptions(fail_on=POISON)))

    def inputs(number: int) -> Deferred:
        def make() -> Tensors:
            if number in (2, 5):
                raise LookupError(f"no input {number}")
            return {"x": np.full((1, 4), POISON if number == 6 else number, np.float32)}

        return Deferred(make, {"x": (1, 4)})

    works = [Work(inputs(number), 1, tag=number) for number in range(8)]
    results = await asyncio.gather(*map(batcher.submit, works), return_exceptions=True)
    assert [str(results[number]) for number in (2, 5)] == ["no input 2", "no input 5"]
    assert isinstance(results[6], ItemFailed)
    for number in (0, 1, 3, 4, 7):
        outcome = results[number]
        assert isinstance(outcome, Outcome)
        assert outcome.outputs["y"][0, 0] == 2 * number
    assert started.reports[0].tags == (0, 1, 3, 4, 6, 7)
    assert started.reports[0].timing.rows == 6


async def test_a_batch_without_any_inputs_is_no_batch(started: Started) -> None:
    batcher = await started(FakeEngine())

    def make() -> Tensors:
        raise LookupError

    with pytest.raises(LookupError):
        await batcher.submit(Work(Deferred(make, {"x": (1, 4)}), 1))
    assert started.reports == []
    assert (await batcher.submit(work(1))).outputs["y"][0, 0] == 2


async def test_a_bad_chunk_fails_its_whole_work_and_no_other(started: Started) -> None:
    batcher = await started(FakeEngine(FakeOptions(fail_on=POISON)), max_rows=2)
    rows = np.zeros((7, 4), np.float32)
    rows[4] = POISON
    results = await asyncio.gather(
        batcher.submit(Work({"x": rows}, 7)), batcher.submit(work(1)), return_exceptions=True
    )
    assert [type(result) for result in results] == [ItemFailed, Outcome]
    await batcher.drain()


@pytest.mark.parametrize("wrong", ["rows", "missing", "dtype", "shape"])
async def test_outputs_that_break_the_signature_fail_the_items(started: Started, wrong: Wrong) -> None:
    batcher = await started(FakeEngine(FakeOptions(wrong=wrong)))
    results = await asyncio.gather(*(batcher.submit(work(n)) for n in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [ItemFailed] * 4
    assert batcher.stats().failed_batches == 7


async def test_an_exception_that_no_engine_should_raise_fails_the_item_only(started: Started) -> None:
    class Buggy(FakeEngine):
        def run(self, batch: object) -> dict[str, np.ndarray]:  # type: ignore[override, type-arg] # it is buggy
            raise ZeroDivisionError("bug")

    batcher = await started(Buggy())
    with pytest.raises(ItemFailed) as failed:
        await batcher.submit(work(1))
    assert "ZeroDivisionError: bug" in str(failed.value.__cause__)
    with pytest.raises(ItemFailed):
        await batcher.submit(work(1))


async def test_an_observer_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def observer(report: BatchReport) -> None:
        raise RuntimeError("observer bug")

    batcher = Batcher([FakeEngine()], BatchLimits(4, 10), observer)
    await batcher.start()
    for number in range(3):
        assert (await batcher.submit(work(number))).outputs["y"][0, 0] == 2 * number
    await batcher.close()
    assert "the batch observer failed" in caplog.text


async def test_a_dying_thread_fails_its_batch_and_the_others_go_on(started: Started) -> None:
    engines = [FakeEngine(FakeOptions(die_on=POISON)) for _ in range(2)]
    batcher = await started(*engines)
    with pytest.raises(ItemFailed) as failed:
        await batcher.submit(work(POISON))
    assert "told to die" in str(failed.value.__cause__)
    assert batcher.stats().engines == 1
    assert isinstance(await batcher.submit(work(1)), Outcome)
    assert sorted(engine.closed for engine in engines) == [False, True]


async def test_when_the_last_engine_dies_nobody_is_left_waiting(started: Started) -> None:
    batcher = await started(FakeEngine(FakeOptions(die_on=POISON)), max_rows=1)
    results = await asyncio.gather(
        batcher.submit(work(POISON)), batcher.submit(work(1)), batcher.submit(work(2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [ItemFailed, EnginesLost, EnginesLost]
    with pytest.raises(EnginesLost, match="told to die"):
        await batcher.submit(work(3))
    await batcher.drain()


async def test_a_warm_up_that_fails_is_raised_by_start() -> None:
    class Cold(FakeEngine):
        def warm_up(self) -> None:
            raise EngineError("no memory")

    engines = [FakeEngine(), Cold()]
    batcher = Batcher(engines, BatchLimits(4, 10))
    with pytest.raises(EngineError, match="no memory"):
        await batcher.start()
    assert all(engine.closed for engine in engines)


async def test_a_batcher_that_was_never_started_refuses_and_closes() -> None:
    engine = FakeEngine()
    batcher = Batcher([engine], BatchLimits(4, 10))
    with pytest.raises(Exception, match="not been started"):
        await batcher.submit(work(1))
    await batcher.close()
    assert engine.closed


async def test_the_deadline_also_holds_while_a_failed_batch_runs_again(started: Started) -> None:
    gate = threading.Event()
    batcher = await started(FakeEngine(FakeOptions(fail_on=POISON, gate=gate)))
    late = asyncio.create_task(batcher.submit(work(1, deadline=time.monotonic() + 0.05)))
    others = [asyncio.create_task(batcher.submit(work(first))) for first in (2, POISON)]
    with pytest.raises(DeadlineExpired):
        await late
    gate.set()
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [type(result) for result in results] == [Outcome, ItemFailed]
    await batcher.drain()


async def test_a_caller_may_go_while_its_batch_runs(started: Started) -> None:
    gate = threading.Event()
    batcher = await started(FakeEngine(FakeOptions(gate=gate)))
    tasks = [asyncio.create_task(batcher.submit(work(n))) for n in range(3)]
    while not batcher.running_rows:
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    gate.set()
    assert (await tasks[0]).outputs["y"][0, 0] == 0
    assert (await tasks[2]).outputs["y"][0, 0] == 4
