"""The batching policy: what an idle engine takes. Pure: no clock, no threads, no event loop.

Work-conserving: an idle engine takes what waits, at once. Works wait in order of urgency, which is that of arrival
except where a deadline is near. The first live work is in the next batch; works of its group (the same shapes) join it
in order while the budget lasts, past works of other groups, which keep their places. Cancelled and expired works are
dropped on the way.

Once the engine's curve is known, a work that would be late even if it ran alone at once is given up, and a batch that
would make one of its members late is shortened or shifted (`engines.tight`). A work without a deadline is never passed
over so by its group, and nothing that arrives `PATIENCE` seconds after it comes before it; one with a deadline may be
passed over until it can no longer be met.
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from engines.curve import TimeCurve
from engines.forecast import hopeless
from engines.tight import PROMPTNESS, choose, size_of
from engines.work import BatchLimits

#: Seconds after its arrival at which a work is as urgent as one whose deadline is then.
PATIENCE: Final = 1.0

_LOOK_AHEAD_BATCHES: Final = 4


class Waiting(Protocol):
    """A work as the policy sees it. `group`: works of one group can share a batch. `tokens`: of all its rows."""

    group: Hashable
    rows: int
    tokens: int
    deadline: float
    cancelled: bool


WaitingT = TypeVar("WaitingT", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Plan(Generic[WaitingT]):
    """What to do with the first `scanned` works of the queue: each is in exactly one of the five lists, in order.

    `take` is the next batch; `expired` is to be told so, `late` that it would be; `cancelled` is to be forgotten;
    `passed` goes on waiting.
    """

    take: list[WaitingT]
    expired: list[WaitingT]
    cancelled: list[WaitingT]
    passed: list[WaitingT]
    scanned: int
    late: list[WaitingT] = field(default_factory=list)


def urgency(arrived: float, deadline: float) -> float:
    """Return the instant by which works are put in order: the deadline, or the end of patience if that is sooner."""
    return min(deadline, arrived + PATIENCE)


def plan(
    waiting: Collection[WaitingT],
    limits: BatchLimits,
    now: float,
    share: int | None = None,
    curve: TimeCurve | None = None,
) -> Plan[WaitingT]:
    """Choose the next batch from `waiting`, which is in order of urgency; `now` is on the clock of the deadlines.

    `share`: rows after which the engine leaves the rest, to its neighbours or to its own next batch. `curve`: what is
    known of the engine's times.
    """
    max_rows = limits.max_rows if share is None else min(share, limits.max_rows)
    if curve is None or not curve.known:
        return _in_order(waiting, limits, max_rows, now)
    chosen = _in_order(waiting, limits, max_rows, now, curve)
    take = chosen.take
    if not take:
        # An engine that would idle tries what looks hopeless: a curve that is wrong would otherwise stay so.
        if chosen.late:
            chosen.take.append(chosen.late.pop())
        return chosen
    ends = now + PROMPTNESS * curve.seconds(sum([work.tokens or work.rows for work in take]))
    if len(take) == 1 or min([work.deadline for work in take]) >= ends:
        return chosen
    return _in_time(waiting, limits, max_rows, now, curve)


def _in_order(
    waiting: Collection[WaitingT], limits: BatchLimits, max_rows: int, now: float, curve: TimeCurve | None = None
) -> Plan[WaitingT]:
    """Fill a batch from the front."""
    take: list[WaitingT] = []
    expired: list[WaitingT] = []
    late: list[WaitingT] = []
    cancelled: list[WaitingT] = []
    passed: list[WaitingT] = []
    rows = tokens = scanned = 0
    max_tokens = limits.max_tokens
    soon = now if curve is None else now + curve.longest_seconds
    group: Hashable = None
    for work in waiting:
        if work.cancelled:
            cancelled.append(work)
        elif work.deadline <= now:
            expired.append(work)
        elif work.deadline < soon and curve is not None and hopeless(curve, size_of(work), work.deadline, now):
            late.append(work)
        elif not take:
            take.append(work)
            group, rows, tokens = work.group, work.rows, work.tokens
        elif work.group != group:
            passed.append(work)
        elif rows + work.rows > max_rows or (max_tokens is not None and tokens + work.tokens > max_tokens):
            break
        else:
            take.append(work)
            rows += work.rows
            tokens += work.tokens
        scanned += 1
        if rows >= max_rows:
            break
    return Plan(take, expired, cancelled, passed, scanned, late)


def _in_time(
    waiting: Collection[WaitingT], limits: BatchLimits, max_rows: int, now: float, curve: TimeCurve
) -> Plan[WaitingT]:
    """Look past the first batch for the run of works that loses least to its deadlines."""
    wide = BatchLimits(_LOOK_AHEAD_BATCHES * limits.max_rows, limits.max_queue_rows)
    seen = _in_order(waiting, wide, wide.max_rows, now, curve)
    works = seen.take
    start, stop = choose(works, limits, max_rows, curve, now)
    taken = set(map(id, works[start:stop]))
    dealt_with = taken.union(*(map(id, dropped) for dropped in (seen.expired, seen.late, seen.cancelled)))
    passed = [work for work, _ in zip(waiting, range(seen.scanned), strict=False) if id(work) not in dealt_with]
    return Plan(works[start:stop], seen.expired, seen.cancelled, passed, seen.scanned, seen.late)


def fair_share(rows: int, engines: int) -> int:
    """Return how many rows one of `engines` engines should take when `rows` wait or run: no neighbour stays idle."""
    return max(1, -(-rows // max(1, engines)))


def admit(queued_rows: int, rows: int, limits: BatchLimits) -> bool:
    """Say whether a work of `rows` rows may join a queue of `queued_rows`.

    An empty queue takes a work of any size: one larger than the whole queue would otherwise be told to retry for ever.
    """
    return queued_rows + rows <= limits.max_queue_rows or queued_rows == 0


def chunk_rows(rows: int, tokens: int, limits: BatchLimits) -> int:
    """Return how many rows of a work of `rows` rows and `tokens` tokens fit one batch: at least one."""
    if limits.max_tokens is None or tokens == 0:
        return min(rows, limits.max_rows)
    return max(1, min(rows, limits.max_rows, limits.max_tokens * rows // tokens))
