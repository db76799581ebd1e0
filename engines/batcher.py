"""One queue in front of the engines of one model: the asyncio shell around `scheduler.plan`.

A work's way: `submit` admits it and puts it in the line -> `_pump` gives every idle engine what the plan takes ->
the engine's worker runs it -> `_finished` refills the engine, then answers the members or splits a failed batch.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from engines import scheduler
from engines.alarm import Alarm
from engines.base import Engine, EngineError
from engines.chunks import join, split
from engines.intake import Intake
from engines.pace import Pace, bounded
from engines.waiting import Ticket, WaitingLine, fail_all, padding_ratio, scatter, sort_out
from engines.work import (
    BatcherClosed,
    BatcherError,
    BatcherStats,
    BatchLimits,
    BatchReport,
    BatchTiming,
    DeadlineExpired,
    DeadlineUnmeetable,
    Deferred,
    EnginesLost,
    ItemFailed,
    Outcome,
    QueueFull,
    Work,
)
from engines.worker import EngineWorker, Ran

__all__ = [
    "BatchLimits",
    "BatchReport",
    "BatchTiming",
    "Batcher",
    "BatcherClosed",
    "BatcherError",
    "BatcherStats",
    "DeadlineExpired",
    "DeadlineUnmeetable",
    "Deferred",
    "EnginesLost",
    "ItemFailed",
    "Outcome",
    "QueueFull",
    "Work",
]

logger = logging.getLogger(__name__)


class Batcher:
    """Collects works into batches for `engines`, which are all of the same model. Belongs to one event loop.

    Every submitted work is answered: with an Outcome or with a BatcherError. `on_batch` is called on the loop after
    each engine run.
    """

    def __init__(
        self, engines: Sequence[Engine], limits: BatchLimits, on_batch: Callable[[BatchReport], None] | None = None
    ) -> None:
        if not engines:
            raise ValueError("a batcher needs at least one engine")
        signature = engines[0].signature
        self._batchable = signature.batchable
        alike = all(isinstance(size, int) for spec in signature.inputs for size in spec.shape[1:])
        self._pace = Pace(rows_are_alike=alike)
        self._intake = Intake(signature)
        self._limits = limits if signature.batchable else replace(limits, max_rows=1, max_tokens=None)
        self._on_batch = on_batch
        rows = self._limits.max_rows
        self._workers = [EngineWorker(engine, f"engine-{index}", rows) for index, engine in enumerate(engines)]
        self._idle: deque[EngineWorker] = deque()
        self._line = WaitingLine()
        self._retries: deque[list[Ticket]] = deque()
        self._running: dict[EngineWorker, list[Ticket]] = {}
        self._refusal: BatcherClosed | None = BatcherClosed("the batcher has not been started")
        self._pumping = False
        self._alarm = Alarm(self._ring)
        self._drained: asyncio.Event | None = None
        self._batches = self._rows = self._failed = 0

    async def start(self) -> None:
        """Warm up every engine and begin to take works. Raises EngineError; then everything is closed again."""
        self._loop = asyncio.get_running_loop()
        started = await asyncio.gather(*(worker.start() for worker in self._workers), return_exceptions=True)
        failures = [result for result in started if isinstance(result, BaseException)]
        if failures:
            await self.close()
            raise failures[0]
        self._idle.extend(self._workers)
        self._refusal = None

    async def close(self, grace: float = 5.0) -> None:
        """Take no more works, fail those that wait, give running batches `grace` seconds. Idempotent."""
        self._refuse(BatcherClosed("the batcher is closed"))
        await asyncio.gather(*(worker.close(grace) for worker in self._workers))
        # What is left belongs to engines that have not returned.
        for tickets in self._running.values():
            fail_all(tickets, BatcherClosed("the batcher is closed"))
        self._running.clear()
        self._alarm.reset()
        self._note_drained()

    async def drain(self) -> None:
        """Wait until nothing is queued or running. New works are still taken."""
        if self._busy():
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()

    @property
    def prepares_inputs(self) -> bool:
        """Whether inputs had better come deferred: the engine computes on the core that would prepare it.

        Any other engine would stand idle meanwhile; what is for it is better prepared elsewhere.
        """
        return all(worker.computes_in_caller for worker in self._workers)

    @property
    def queued_rows(self) -> int:
        """Rows that wait for an engine."""
        return self._line.rows

    @property
    def running_rows(self) -> int:
        """Rows that an engine has, or that run again after their batch has failed."""
        batches = (*self._running.values(), *self._retries)
        return sum(ticket.rows for tickets in batches for ticket in tickets)

    def stats(self) -> BatcherStats:
        """Return what the batcher has done and what it holds."""
        counts = (self._batches, self._rows, self._failed)
        return BatcherStats(self._engines(), self.queued_rows, self.running_rows, *counts)

    async def submit(self, work: Work) -> Outcome:
        """Compute `work`. Raises BatcherError, ValueError when the inputs are not what the signature says, or whatever
        making deferred inputs raises.

        A cancelled caller's work never reaches an engine. A work larger than a batch is split and joined again.
        """
        arrived = time.monotonic()
        group, tokens = self._intake.describe(work)
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal))
        if work.deadline <= arrived:
            raise DeadlineExpired("the deadline had passed when the work arrived")
        if not scheduler.admit(self._line.rows, work.rows, self._limits):
            raise QueueFull(self._pace.retry_after(self._line.rows, self._engines()))
        if not self._idle:
            self._refuse_late(work, tokens or work.rows, arrived)
        rows = scheduler.chunk_rows(work.rows, tokens, self._limits)
        if rows < work.rows:
            return await self._submit_chunks(work, rows, group, arrived)
        if self._idle and self._idle[0].quick and not isinstance(work.inputs, Deferred) and not self._busy():
            ticket = Ticket(work, group, tokens, arrived, self._loop.create_future())
            ticket.waiting = False
            self._hand_over([ticket])
            return await ticket.future
        ticket = self._enqueue(work, group, tokens, arrived)
        try:
            return await ticket.future
        except asyncio.CancelledError:
            self._line.abandon(ticket)
            self._note_drained()
            raise

    def _refuse_late(self, work: Work, size: int, now: float) -> None:
        """Refuse what would be late although all engines work without a pause: nobody would wait for its answer."""
        if self._pace.surely_in_time(self._line.size + size, work.deadline - now):
            return
        ahead = self._line.ahead(scheduler.urgency(now, work.deadline))
        if late := self._pace.misses_by(size, ahead, work.deadline, now):
            raise DeadlineUnmeetable(bounded(late))

    def _enqueue(self, work: Work, group: Hashable, tokens: int, arrived: float) -> Ticket:
        ticket = Ticket(work, group, tokens, arrived, self._loop.create_future())
        self._line.join(ticket)
        if self._idle and not self._pumping:
            # Not at once: what else arrives in this turn of the loop shares the batch.
            self._pumping = True
            self._loop.call_soon(self._pump)
        if work.deadline != math.inf:
            self._alarm.note(work.deadline, arrived)
        return ticket

    async def _submit_chunks(self, work: Work, rows: int, group: Hashable, arrived: float) -> Outcome:
        chunks = split(work, rows)
        tickets = [self._enqueue(chunk, group, self._intake.describe(chunk)[1], arrived) for chunk in chunks]
        try:
            return join([await ticket.future for ticket in tickets], work.rows)
        finally:
            # After a failure or a cancellation, the other chunks have nobody to answer to.
            for ticket in tickets:
                ticket.future.cancel()
                if ticket.future.cancelled():
                    self._line.abandon(ticket)
                else:
                    ticket.future.exception()
            self._note_drained()

    def _pump(self) -> None:
        """Give every idle engine its next batch."""
        self._pumping = False
        while self._idle and (self._retries or self._line):
            tickets = self._next_batch()
            if tickets:
                self._hand_over(tickets)
        self._note_drained()

    def _next_batch(self) -> list[Ticket]:
        now = time.monotonic()
        if self._retries:
            tickets = [ticket for ticket in self._retries.popleft() if not ticket.future.done()]
            fail_all(
                [ticket for ticket in tickets if ticket.deadline <= now], DeadlineExpired("expired in a failed batch")
            )
            return [ticket for ticket in tickets if ticket.deadline > now]
        chosen = self._line.take(self._limits, now, self._share(), self._pace.curve)
        if chosen.expired:
            fail_all(chosen.expired, DeadlineExpired("the deadline passed while the work waited"))
        for ticket in chosen.late:
            ticket.fail(DeadlineUnmeetable(self._pace.retry_after(self._line.rows, self._engines())))
        return chosen.take

    def _share(self) -> int | None:
        """Return how many rows the next batch should have at most, where less than all it may have."""
        if not self._pace.sizes_matter:
            return None
        return self._pace.share(self._line.rows + self.running_rows, self._engines(), self._limits.max_rows)

    def _engines(self) -> int:
        return len(self._idle) + len(self._running)

    def _hand_over(self, tickets: list[Ticket]) -> None:
        worker = self._idle.popleft()
        self._running[worker] = tickets
        self._batches += 1
        batch_id, works = self._batches, [ticket.work for ticket in tickets]
        if worker.quick and not any(isinstance(work.inputs, Deferred) for work in works):
            ran = worker.run_here(works)
            self._answer(self._release(worker, tickets, ran), batch_id, ran)
            return

        def finished(ran: Ran) -> None:
            rest = self._release(worker, tickets, ran)
            self._pump()
            self._answer(rest, batch_id, ran)

        self._pace.begins(worker, sum([ticket.tokens or ticket.rows for ticket in tickets]), time.monotonic())
        worker.run(works, finished)

    def _release(self, worker: EngineWorker, tickets: list[Ticket], ran: Ran) -> list[Ticket]:
        """Make the engine free for the next batch, settle what failed; return the members that were computed."""
        self._running.pop(worker, None)
        self._pace.ends(worker)
        prepared = ran.prepared
        if prepared.spans or prepared.failures:
            tickets = sort_out(tickets, prepared.spans, prepared.failures)
        if ran.error is not None:
            self._failed += 1
            self._settle_failure(tickets, ran.error, final=ran.died)
        if not ran.died:
            self._idle.append(worker)
        elif not self._running and not self._idle:
            self._refuse(EnginesLost(f"every engine thread has died, the last one of {ran.error}"))
        return tickets

    def _answer(self, tickets: list[Ticket], batch_id: int, ran: Ran) -> None:
        """Give the members of a run their results and tell the observer of it."""
        if tickets:
            padding = padding_ratio(tickets)
            timing = BatchTiming(batch_id, ran.prepared.rows, len(tickets), padding, ran.started, ran.ended)
            if ran.error is None:
                self._rows += timing.rows
                size = sum([ticket.tokens or ticket.rows for ticket in tickets])
                self._pace.learn(timing.rows, size, ran.ended - ran.started + ran.prepared.seconds, ran.cost)
                scatter(tickets, timing, ran.outputs, split_rows=self._batchable)
            self._report(BatchReport(timing, tuple([ticket.work.tag for ticket in tickets]), ran.error))
        self._note_drained()

    def _settle_failure(self, tickets: list[Ticket], error: EngineError, *, final: bool) -> None:
        """Answer the member that the engine fails on alone; halve a larger batch to find it."""
        if final or len(tickets) == 1 or self._refusal is not None:
            logger.warning("a batch of %d works failed: %s", len(tickets), error)
            for ticket in tickets:
                failed = ItemFailed("the engine failed on this item")
                failed.__cause__ = error
                ticket.fail(failed)
            return
        middle = len(tickets) // 2
        self._retries.extend((tickets[:middle], tickets[middle:]))

    def _report(self, report: BatchReport) -> None:
        if self._on_batch is not None:
            try:
                self._on_batch(report)
            except Exception:
                logger.exception("the batch observer failed on batch %d", report.timing.batch_id)

    def _ring(self) -> None:
        """Answer every caller whose deadline has passed, also those whose batch hangs in an engine."""
        now = time.monotonic()
        taken = [ticket for tickets in (*self._running.values(), *self._retries) for ticket in tickets]
        taken = [ticket for ticket in taken if not ticket.future.done()]
        fail_all(self._line.expire(now), DeadlineExpired("the deadline passed while the work waited"))
        fail_all([ticket for ticket in taken if ticket.deadline <= now], DeadlineExpired("the engine took too long"))
        live = [ticket.deadline for ticket in (*taken, *self._line) if not ticket.future.done()]
        self._alarm.reset(min(live, default=math.inf), now)
        self._note_drained()

    def _refuse(self, reason: BatcherClosed) -> None:
        self._refusal = reason
        waiting = [*self._line.clear(), *(ticket for tickets in self._retries for ticket in tickets)]
        self._retries.clear()
        for ticket in waiting:
            ticket.fail(type(reason)(str(reason)))

    def _busy(self) -> bool:
        return bool(self._line.rows or self._running or self._retries)

    def _note_drained(self) -> None:
        if self._drained is not None and not self._busy():
            self._drained.set()
            self._drained = None
