"""Four known rules, each at its kindest.

Each drops what has expired in the queue, which not all of the originals do, and starts with what its original is told
beforehand: the engine's curve (Symphony), the latency objective (Clipper).
"""

import math
from collections.abc import Hashable

from benchmarks.simulator.engine import EngineModel
from benchmarks.simulator.loads import Request
from benchmarks.simulator.run import Line

Taken = tuple[list[Request], list[Request], float | None]


class FirstCome:
    """Admits everything up to `max_waiting` works, in order of arrival; ours to refine."""

    def __init__(self, max_waiting: int = 4096) -> None:
        self._max_waiting = max_waiting

    def arrives(self, line: Line, request: Request, now: float) -> bool:  # noqa: ARG002 - the protocol names it.
        """Refuse only beyond the queue's length."""
        if len(line.waiting) >= self._max_waiting:
            return False
        line.waiting.append(request)
        return True

    def ran(self, batch: list[Request], seconds: float) -> None:
        """Learn nothing."""


class FixedDelay(FirstCome):
    """Triton's dynamic batcher: go when the batch is full, or the oldest has waited for `delay` seconds.

    The first other shape closes the batch.
    """

    def __init__(self, delay: float) -> None:
        super().__init__()
        self._delay = delay

    def takes(self, line: Line, now: float) -> Taken:
        """Wait for a full batch or for the delay."""
        if dropped := expired(line, now):
            return [], dropped, None
        batch, closed = head_run(line.waiting, line.engine, line.engine.max_rows)
        due = line.waiting[0].arrived + self._delay
        if not closed and now < due:
            return [], [], due
        return removed(line, batch), [], None


class GreedyBudget(FirstCome):
    """text-embeddings-inference: go whenever the engine asks, from the head, up to `budget` rows or its tokens.

    Texts of any length share a batch, padded to the longest, as on its padded backends.
    """

    def __init__(self, budget: int) -> None:
        super().__init__(512)
        self._budget = budget

    def takes(self, line: Line, now: float) -> Taken:
        """Take what the budget holds, from the head."""
        if dropped := expired(line, now):
            return [], dropped, None
        max_rows = min(self._budget, line.engine.max_rows)
        if not line.waiting[0].tokens:
            return removed(line, head_run(line.waiting, line.engine, max_rows)[0]), [], None
        count = rows = longest = 0
        for request in line.waiting:
            rows, longest = rows + request.rows, max(longest, request.tokens // request.rows)
            over = rows > max_rows or (line.engine.max_tokens is not None and rows * longest > line.engine.max_tokens)
            if count and (over or not request.tokens):
                break
            count += 1
        return removed(line, line.waiting[:count]), [], None


class AdditiveIncrease(FirstCome):
    """Clipper: grow the largest batch by `step` rows while batches meet the objective, cut it by a tenth when not.

    `objective`: seconds that a batch may take; the original is given the service's latency objective.
    """

    def __init__(self, step: float, objective: float) -> None:
        super().__init__()
        self._step, self._objective, self._rows = step, objective, 1.0

    def takes(self, line: Line, now: float) -> Taken:
        """Take up to the present limit."""
        if dropped := expired(line, now):
            return [], dropped, None
        return (
            removed(line, head_run(line.waiting, line.engine, min(int(self._rows), line.engine.max_rows))[0]),
            [],
            None,
        )

    def ran(self, batch: list[Request], seconds: float) -> None:
        """Move the limit: up only when it was reached."""
        if seconds > self._objective:
            self._rows = max(1.0, self._rows * 0.9)
        elif sum(request.rows for request in batch) >= int(self._rows):
            self._rows += self._step


class Deferred(FirstCome):
    """Symphony: gather the largest batch whose deadlines hold, and go when one more work would break them.

    Each shape has a queue of its own. A work whose deadline cannot hold any more is dropped; so is, as in Nexus, the
    head that keeps the batch below `fill` of the rows that wait for it. `margin`: how much longer than the curve says
    runs may take.
    """

    def __init__(self, margin: float, fill: float) -> None:
        super().__init__()
        self._margin, self._fill = margin, fill

    def takes(self, line: Line, now: float) -> Taken:
        """Wait while larger batches are possible; else take the one that is due first."""
        hopeless = [one for one in line.waiting if now + self._seconds(line, one.tokens or one.rows) > one.deadline]
        if hopeless:
            return [], removed(line, hopeless), None
        queues: dict[Hashable, list[Request]] = {}
        for one in line.waiting:
            queues.setdefault(one.group, []).append(one)
        due, batch = math.inf, []
        for queue in queues.values():
            candidate, latest, short = self._candidate(line, queue, now)
            if short:
                return [], removed(line, candidate[:1]), None
            if latest < due:
                due, batch = latest, candidate
        return (removed(line, batch), [], None) if now >= due else ([], [], due)

    def _candidate(self, line: Line, queue: list[Request], now: float) -> tuple[list[Request], float, bool]:
        """Return the batch of one shape, the latest instant for it to go, and whether its head keeps it too short."""
        batch, closed = head_run(queue, line.engine, line.engine.max_rows)
        fits, units, earliest = 0, 0, math.inf
        for one in batch:
            units, earliest = units + (one.tokens or one.rows), min(earliest, one.deadline)
            if fits and now + self._seconds(line, units) > earliest:
                break
            fits += 1
        if fits < self._fill * len(batch):
            return batch, now, True
        latest = earliest - self._seconds(line, units + (batch[-1].tokens or batch[-1].rows))
        return batch[:fits], min(latest, now) if closed or fits < len(batch) else latest, False

    def _seconds(self, line: Line, units: float) -> float:
        return line.engine.seconds(units) * (1 + self._margin)


def expired(line: Line, now: float) -> list[Request]:
    """Remove and return what has expired."""
    return removed(line, [request for request in line.waiting if request.deadline <= now])


def removed(line: Line, requests: list[Request]) -> list[Request]:
    """Take `requests` out of the line."""
    if requests:
        gone = {request.number for request in requests}
        line.waiting = [request for request in line.waiting if request.number not in gone]
    return requests


def head_run(queue: list[Request], engine: EngineModel, max_rows: int) -> tuple[list[Request], bool]:
    """Return the longest run of one shape from the head within the budget, and whether nothing could join it."""
    batch: list[Request] = []
    rows = tokens = 0
    for request in queue:
        rows, tokens = rows + request.rows, tokens + request.tokens
        over = rows > max_rows or (engine.max_tokens is not None and tokens > engine.max_tokens)
        if batch and (over or request.group != batch[0].group):
            return batch, True
        batch.append(request)
    return batch, rows >= max_rows
