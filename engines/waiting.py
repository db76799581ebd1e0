"""The works that wait for an engine, in order of urgency."""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from operator import attrgetter

from engines import scheduler
from engines.base import Array
from engines.curve import TimeCurve
from engines.scheduler import Plan
from engines.tight import size_of
from engines.work import BatcherError, BatchLimits, BatchTiming, Outcome, Span, Work

_SWEEP_ABOVE = 64
_URGENCY = attrgetter("urgency")


class Ticket:
    """A work on its way through the batcher, and the future that its caller awaits."""

    __slots__ = (
        "arrived",
        "cancelled",
        "deadline",
        "future",
        "group",
        "prepared",
        "rows",
        "tokens",
        "urgency",
        "waiting",
        "work",
    )

    def __init__(
        self, work: Work, group: Hashable, tokens: int, arrived: float, future: asyncio.Future[Outcome]
    ) -> None:
        self.work, self.group, self.tokens, self.arrived, self.future = work, group, tokens, arrived, future
        self.rows, self.deadline = work.rows, work.deadline
        self.urgency = scheduler.urgency(arrived, work.deadline)
        self.cancelled, self.waiting = False, True
        self.prepared: Span | None = None

    def fail(self, error: BaseException) -> None:
        """Answer the caller with `error`, unless it has an answer or has gone."""
        if not self.future.done():
            self.future.set_exception(error)


class WaitingLine:
    """Tickets in order of urgency. `rows` and `size` count the live ones only, so cancelled works hold no place."""

    __slots__ = ("_dead", "_tickets", "rows", "size")

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()
        self._dead = 0
        self.rows = self.size = 0

    def __bool__(self) -> bool:
        return bool(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    def join(self, ticket: Ticket) -> None:
        """Put the ticket behind all that are as urgent."""
        if not self._tickets or self._tickets[-1].urgency <= ticket.urgency:
            self._tickets.append(ticket)
        else:
            insort(self._tickets, ticket, key=_URGENCY)
        self.rows += ticket.rows
        self.size += ticket.tokens or ticket.rows

    def ahead(self, urgency: float) -> int:
        """Return the size of the live tickets that a work of `urgency` would come behind."""
        if not self._tickets or self._tickets[-1].urgency <= urgency:
            return self.size
        return sum([size_of(other) for other in self._tickets if other.urgency <= urgency and not other.cancelled])

    def take(
        self, limits: BatchLimits, now: float, share: int | None = None, curve: TimeCurve | None = None
    ) -> Plan[Ticket]:
        """Remove the next batch, and whatever is cancelled, expired or given up on the way to it."""
        tickets = self._tickets
        chosen = scheduler.plan(tickets, limits, now, share, curve)
        for _ in range(chosen.scanned):
            tickets.popleft()
        tickets.extendleft(reversed(chosen.passed))
        for leaving in (chosen.take, chosen.expired, chosen.late):
            for ticket in leaving:
                ticket.waiting = False
                self.rows -= ticket.rows
                self.size -= ticket.tokens or ticket.rows
        self._dead -= len(chosen.cancelled)
        return chosen

    def abandon(self, ticket: Ticket) -> None:
        """Note that the caller of a waiting ticket has gone: its rows make room at once, its place goes later."""
        if ticket.cancelled:
            return
        ticket.cancelled = True
        if ticket.waiting:
            self.rows -= ticket.rows
            self.size -= size_of(ticket)
            self._dead += 1
            # An engine that is stuck for long forms no batches: keep the line from growing by the dead.
            if self._dead > _SWEEP_ABOVE and self._dead > len(self._tickets) // 2:
                self._tickets = deque(ticket for ticket in self._tickets if not ticket.cancelled)
                self._dead = 0

    def expire(self, now: float) -> list[Ticket]:
        """Remove and return the live tickets whose deadline has passed."""
        expired = [ticket for ticket in self._tickets if ticket.deadline <= now and not ticket.cancelled]
        for ticket in expired:
            self.abandon(ticket)
        return expired

    def clear(self) -> list[Ticket]:
        """Remove and return all live tickets."""
        live = [ticket for ticket in self._tickets if not ticket.cancelled]
        for ticket in live:
            ticket.waiting = False
        self._tickets.clear()
        self.rows = self.size = self._dead = 0
        return live


def scatter(tickets: list[Ticket], timing: BatchTiming, outputs: dict[str, Array], *, split_rows: bool) -> None:
    """Give each member its rows of the outputs."""
    if len(tickets) == 1 or not split_rows:
        ticket = tickets[0]
        if not ticket.future.done():
            ticket.future.set_result(Outcome(outputs, ticket.arrived, timing, ticket.rows, ticket.prepared))
        return
    tensors = list(outputs.items())
    start = 0
    for ticket in tickets:
        end = start + ticket.rows
        if not ticket.future.done():
            rows = {name: tensor[start:end] for name, tensor in tensors}
            ticket.future.set_result(Outcome(rows, ticket.arrived, timing, ticket.rows, ticket.prepared))
        start = end


def padding_ratio(tickets: list[Ticket]) -> float:
    """The share of a batch's tokens that only fills rows up."""
    padded = sum([ticket.work.padding * ticket.tokens for ticket in tickets])
    return padded / sum([ticket.tokens for ticket in tickets]) if padded else 0.0


def sort_out(tickets: list[Ticket], spans: Mapping[int, Span], failures: Mapping[int, Exception]) -> list[Ticket]:
    """Note when each was prepared, answer those for which that failed, return the others."""
    for place, span in spans.items():
        tickets[place].prepared = span
    for place, error in failures.items():
        tickets[place].fail(error)
    return [ticket for place, ticket in enumerate(tickets) if place not in failures] if failures else tickets


def fail_all(tickets: Sequence[Ticket], error: BatcherError) -> None:
    """Answer each with an error like `error`; each its own, since a raised one collects its callers' frames."""
    for ticket in tickets:
        ticket.fail(type(error)(str(error)))
