"""One queue in front of the engines of one model: the asyncio shell around `scheduler.plan`.

A work's way: `submit` admits it and puts it in the line -> `_pump` gives every idle engine what the plan takes ->
the engine's worker thread runs it -> `_finished` refills the engine, then answers the members or splits a failed batch.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from engines import scheduler
from engines.base import Engine, EngineError
from engines.chunks import join, split
from engines.waiting import Ticket, WaitingLine
from engines.work import (
    BatcherClosed,
    BatcherError,
    BatchLimits,
    BatchReport,
    BatchTiming,
    DeadlineExpired,
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
    "EnginesLost",
    "ItemFailed",
    "Outcome",
    "QueueFull",
    "Work",
]

logger = logging.getLogger(__name__)

#: Seconds by which an expired work may be answered late; a timer for each work would cost more than the work.
_ALARM_GRAIN = 0.005
_RETRY_AFTER_MIN, _RETRY_AFTER_MAX = 0.01, 10.0


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """Counts since the start, and what is there now."""

    engines: int
    queued_rows: int
    running_rows: int
    batches: int
    rows: int
    failed_batches: int


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
        self._inputs = [(spec.name, spec.dtype) for spec in signature.inputs]
        self._limits = limits if signature.batchable else replace(limits, max_rows=1, max_tokens=None)
        self._on_batch = on_batch
        self._workers = [EngineWorker(engine, f"engine-{index}") for index, engine in enumerate(engines)]
        self._idle: deque[EngineWorker] = deque()
        self._line = WaitingLine()
        self._retries: deque[list[Ticket]] = deque()
        self._running: dict[EngineWorker, list[Ticket]] = {}
        self._refusal: BatcherClosed | None = BatcherClosed("the batcher has not been started")
        self._pumping = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._drained: asyncio.Event | None = None
        self._batches = self._rows = self._failed = 0
        self._row_seconds = 0.0

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
            _fail_all(tickets, BatcherClosed("the batcher is closed"))
        self._running.clear()
        self._set_alarm()
        self._note_drained()

    async def drain(self) -> None:
        """Wait until nothing is queued or running. New works are still taken."""
        if self._busy():
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()

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
        return BatcherStats(len(self._idle) + len(self._running), self.queued_rows, self.running_rows, *counts)

    async def submit(self, work: Work) -> Outcome:
        """Compute `work`. Raises BatcherError, or ValueError when the inputs are not what the signature says.

        A cancelled caller's work never reaches an engine. A work larger than a batch is split and joined again.
        """
        arrived = time.monotonic()
        group, tokens = self._describe(work)
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal))
        if work.deadline <= arrived:
            raise DeadlineExpired("the deadline had passed when the work arrived")
        if not scheduler.admit(self._line.rows, work.rows, self._limits):
            raise QueueFull(self._retry_after())
        rows = scheduler.chunk_rows(work.rows, tokens, self._limits)
        if rows < work.rows:
            return await self._submit_chunks(work, rows, group, arrived)
        ticket = self._enqueue(work, group, tokens, arrived)
        try:
            return await ticket.future
        except asyncio.CancelledError:
            self._line.abandon(ticket)
            self._note_drained()
            raise

    def _describe(self, work: Work) -> tuple[Hashable, int]:
        """Return the work's group (the shapes of its rows) and its tokens."""
        inputs, rows = work.inputs, work.rows
        if len(inputs) != len(self._inputs) or rows < 1 or (rows != 1 and not self._batchable):
            raise ValueError(
                f"the model takes {[name for name, _ in self._inputs]} of at least one row, got {rows} rows"
            )
        group = []
        for name, dtype in self._inputs:
            tensor = inputs.get(name)
            if tensor is None or tensor.dtype != dtype:
                raise ValueError(f"input '{name}' must be there with dtype {dtype}")
            shape = tensor.shape
            if self._batchable and (not shape or shape[0] != rows):
                raise ValueError(f"input '{name}' has shape {list(shape)} in a work of {rows} rows")
            group.append(shape[1:])
        first = group[0] if group else ()
        return tuple(group), rows * first[0] if first else rows

    def _enqueue(self, work: Work, group: Hashable, tokens: int, arrived: float) -> Ticket:
        ticket = Ticket(work, group, tokens, arrived, self._loop.create_future())
        self._line.join(ticket)
        if self._idle and not self._pumping:
            # Not at once: what else arrives in this turn of the loop shares the batch.
            self._pumping = True
            self._loop.call_soon(self._pump)
        if work.deadline < self._alarm_at - _ALARM_GRAIN:
            self._set_alarm(work.deadline, arrived)
        return ticket

    async def _submit_chunks(self, work: Work, rows: int, group: Hashable, arrived: float) -> Outcome:
        chunks = split(work, rows)
        tickets = [self._enqueue(chunk, group, self._describe(chunk)[1], arrived) for chunk in chunks]
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
            _fail_all(
                [ticket for ticket in tickets if ticket.deadline <= now], DeadlineExpired("expired in a failed batch")
            )
            return [ticket for ticket in tickets if ticket.deadline > now]
        chosen = self._line.take(self._limits, now)
        if chosen.expired:
            _fail_all(chosen.expired, DeadlineExpired("the deadline passed while the work waited"))
        return chosen.take

    def _hand_over(self, tickets: list[Ticket]) -> None:
        worker = self._idle.popleft()
        self._running[worker] = tickets
        self._batches += 1
        batch_id, rows = self._batches, sum([ticket.rows for ticket in tickets])

        def finished(ran: Ran) -> None:
            self._finished(worker, tickets, BatchTiming(batch_id, rows, len(tickets), 0.0, ran.started, ran.ended), ran)

        worker.run([ticket.work.inputs for ticket in tickets], rows, finished)

    def _finished(self, worker: EngineWorker, tickets: list[Ticket], timing: BatchTiming, ran: Ran) -> None:
        self._running.pop(worker, None)
        if ran.error is not None:
            self._failed += 1
            self._settle_failure(tickets, ran.error, final=ran.died)
        if not ran.died:
            self._idle.append(worker)
            self._pump()
        elif not self._running and not self._idle:
            self._refuse(EnginesLost(f"every engine thread has died, the last one of {ran.error}"))
        if ran.error is None:
            self._rows += timing.rows
            self._learn(timing)
            _scatter(tickets, timing, ran, split_rows=self._batchable)
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

    def _learn(self, timing: BatchTiming) -> None:
        seconds = (timing.ended - timing.started) / timing.rows
        self._row_seconds += (seconds - self._row_seconds) * (0.1 if self._row_seconds else 1.0)

    def _retry_after(self) -> float:
        engines = max(1, len(self._idle) + len(self._running))
        return min(max(self._line.rows * self._row_seconds / engines, _RETRY_AFTER_MIN), _RETRY_AFTER_MAX)

    def _set_alarm(self, deadline: float = math.inf, now: float = 0.0) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._alarm_at = deadline
        if deadline < math.inf:
            self._alarm = self._loop.call_later(max(0.0, deadline - now), self._ring)

    def _ring(self) -> None:
        """Answer every caller whose deadline has passed, also those whose batch hangs in an engine."""
        now = time.monotonic()
        taken = [ticket for tickets in (*self._running.values(), *self._retries) for ticket in tickets]
        taken = [ticket for ticket in taken if not ticket.future.done()]
        _fail_all(self._line.expire(now), DeadlineExpired("the deadline passed while the work waited"))
        _fail_all([ticket for ticket in taken if ticket.deadline <= now], DeadlineExpired("the engine took too long"))
        live = [ticket.deadline for ticket in (*taken, *self._line) if not ticket.future.done()]
        self._set_alarm(min(live, default=math.inf), now)
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


def _scatter(tickets: list[Ticket], timing: BatchTiming, ran: Ran, *, split_rows: bool) -> None:
    """Give each member its rows of the outputs."""
    if len(tickets) == 1 or not split_rows:
        ticket = tickets[0]
        if not ticket.future.done():
            ticket.future.set_result(Outcome(ran.outputs, ticket.arrived, timing, ticket.rows))
        return
    outputs = list(ran.outputs.items())
    start = 0
    for ticket in tickets:
        end = start + ticket.rows
        if not ticket.future.done():
            rows = {name: tensor[start:end] for name, tensor in outputs}
            ticket.future.set_result(Outcome(rows, ticket.arrived, timing, ticket.rows))
        start = end


def _fail_all(tickets: Sequence[Ticket], error: BatcherError) -> None:
    for ticket in tickets:
        ticket.fail(type(error)(str(error)))
