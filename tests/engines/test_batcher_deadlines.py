"""What the batcher does with deadlines once it knows its engine."""

import asyncio
import threading
import time

import numpy as np
import pytest

from engines.batcher import Batcher, BatchLimits, DeadlineExpired, DeadlineUnmeetable, Outcome, Work
from engines.fake import FakeEngine, FakeOptions

SECONDS = 0.01


def work(number: float, allowed: float = 60.0) -> Work:
    return Work({"x": np.full((1, 4), number, np.float32)}, 1, time.monotonic() + allowed)


async def until_running(batcher: Batcher) -> None:
    async with asyncio.timeout(5):
        while not batcher.running_rows:
            await asyncio.sleep(0.001)


async def taught(engine: FakeEngine, max_rows: int = 1) -> Batcher:
    """A batcher that has seen its engine take `SECONDS` for each row."""
    batcher = Batcher([engine], BatchLimits(max_rows, 1000))
    await batcher.start()
    for number in range(16):
        await batcher.submit(work(number))
    engine.batches.clear()
    return batcher


async def test_what_would_be_late_is_refused_at_the_door_with_the_time_to_retry() -> None:
    engine = FakeEngine(FakeOptions(seconds_per_batch=SECONDS))
    batcher = await taught(engine)
    first = asyncio.create_task(batcher.submit(work(100)))
    await until_running(batcher)
    waiting = [asyncio.create_task(batcher.submit(work(n))) for n in range(20)]
    await asyncio.sleep(0)
    begun = time.monotonic()
    # Deadlines beyond the patience come behind all that waits; this one comes first, and is still late.
    with pytest.raises(DeadlineUnmeetable) as refused:
        await batcher.submit(work(-1, allowed=SECONDS / 2))
    assert time.monotonic() - begun < SECONDS
    assert 0.01 <= refused.value.retry_after < 1
    results = await asyncio.gather(first, *waiting)
    assert all(isinstance(result, Outcome) for result in results)
    assert [-1.0] not in [batch["x"][:, 0].tolist() for batch in engine.batches]
    await batcher.close()


async def test_a_near_deadline_goes_before_works_with_time() -> None:
    engine = FakeEngine(FakeOptions(seconds_per_batch=SECONDS))
    batcher = await taught(engine)
    first = asyncio.create_task(batcher.submit(work(0)))
    await until_running(batcher)
    patient = [asyncio.create_task(batcher.submit(work(n))) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    urgent = asyncio.create_task(batcher.submit(work(9, allowed=0.5)))
    await asyncio.gather(first, urgent, *patient)
    assert [batch["x"][0, 0] for batch in engine.batches] == [0, 9, 1, 2, 3]
    await batcher.close()


async def test_an_idle_engine_refuses_nothing() -> None:
    engine = FakeEngine(FakeOptions(seconds_per_batch=SECONDS))
    batcher = await taught(engine)
    with pytest.raises(Exception, match="engine took too long"):
        await batcher.submit(work(5, allowed=SECONDS / 2))
    assert [batch["x"][0, 0] for batch in engine.batches] == [5]
    await batcher.close()


async def test_works_that_a_stall_made_hopeless_never_reach_the_engine() -> None:
    gate = threading.Event()
    gate.set()
    engine = FakeEngine(FakeOptions(seconds_per_batch=4 * SECONDS, gate=gate))
    batcher = await taught(engine)
    gate.clear()
    stuck = asyncio.create_task(batcher.submit(work(0)))
    await until_running(batcher)
    doomed = asyncio.create_task(batcher.submit(work(1, allowed=0.12)))
    patient = asyncio.create_task(batcher.submit(work(2)))
    await asyncio.sleep(0.06)  # With its own 40 ms, the stuck run ends when less than another is left.
    gate.set()
    results = await asyncio.gather(stuck, doomed, patient, return_exceptions=True)
    # On a machine that stalls itself, the deadline may pass first.
    assert isinstance(results[1], (DeadlineUnmeetable, DeadlineExpired))
    assert [batch["x"][0, 0] for batch in engine.batches] == [0, 2]
    await batcher.close()
