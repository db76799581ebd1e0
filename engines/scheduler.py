"""The batching policy: what an idle engine takes. Pure: no clock, no threads, no event loop.

Work-conserving: an idle engine takes what waits, at once. The oldest live work is always in the next batch, so nothing
starves; works of its group (the same shapes) join it in order of arrival while the budget lasts, past works of other
groups, which keep their places. Cancelled and expired works are dropped on the way.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from engines.work import BatchLimits


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
    """What to do with the first `scanned` works of the queue: each is in exactly one of the four lists, in order.

    `take` is the next batch; `expired` is to be told so; `cancelled` is to be forgotten; `passed` goes on waiting.
    """

    take: list[WaitingT]
    expired: list[WaitingT]
    cancelled: list[WaitingT]
    passed: list[WaitingT]
    scanned: int


def plan(waiting: Iterable[WaitingT], limits: BatchLimits, now: float, share: int | None = None) -> Plan[WaitingT]:
    """Choose the next batch from `waiting`, which is in order of arrival; `now` is on the clock of the deadlines.

    `share`: rows after which the engine leaves the rest, to its neighbours or to its own next batch.
    """
    take: list[WaitingT] = []
    expired: list[WaitingT] = []
    cancelled: list[WaitingT] = []
    passed: list[WaitingT] = []
    rows = tokens = scanned = 0
    max_rows = limits.max_rows if share is None else min(share, limits.max_rows)
    max_tokens = limits.max_tokens
    group: Hashable = None
    for work in waiting:
        if work.cancelled:
            cancelled.append(work)
        elif work.deadline <= now:
            expired.append(work)
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
    return Plan(take, expired, cancelled, passed, scanned)


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
