"""Which works to run when a full batch would make the most urgent of them late. Pure."""

import math
from collections.abc import Sequence
from typing import Final, Protocol

from engines.curve import TimeCurve
from engines.work import BatchLimits

_STARTS: Final = 12
_PRICE: Final = 0.5
#: A batch is to end in time although it takes this much longer than predicted: what just misses is computed in vain.
PROMPTNESS: Final = 1.05


class Sized(Protocol):
    """A work of `size` on the curve."""

    rows: int
    tokens: int
    deadline: float


def size_of(work: Sized) -> int:
    """Return what the curve measures a work by: tokens; where the model has none, rows."""
    return work.tokens or work.rows


def choose(works: Sequence[Sized], limits: BatchLimits, max_rows: int, curve: TimeCurve, now: float) -> tuple[int, int]:
    """Return (start, stop) of the run of `works`, the most urgent first, from which most rows will be answered in time.

    Each candidate starts at one of the first works and is as long as its own deadlines allow: a short batch for the
    most urgent, or a fuller one that gives them up. What is left is projected as full batches, one after the other; the
    engine's time has the price of the rows that it could answer at its best.
    """
    best, best_score = (0, 1), -math.inf
    row_seconds = curve.unit_seconds * sum(map(size_of, works)) / sum([work.rows for work in works])
    for start in range(min(len(works), _STARTS)):
        stop, size, rows = _longest(works, start, limits, max_rows, curve, now)
        if start > 0 and works[start - 1].deadline == math.inf:
            break  # What has no deadline is never passed over.
        rest = [*works[:start], *works[stop:]]
        later, ends = _projected(rest, max_rows, curve, now + curve.seconds(size))
        score = rows + later - _PRICE * (ends - now) / row_seconds
        if score > best_score:
            best, best_score = (start, stop), score
        if start > 0 and rows >= max_rows:
            break
    return best


def _longest(
    works: Sequence[Sized], start: int, limits: BatchLimits, max_rows: int, curve: TimeCurve, now: float
) -> tuple[int, int, int]:
    """Return (stop, size, rows) of the longest batch from `start` that meets its own deadlines; one work at least."""
    first = works[start]
    size, rows, tokens, earliest = size_of(first), first.rows, first.tokens, first.deadline
    stop = start + 1
    for work in works[start + 1 :]:
        rows, tokens = rows + work.rows, tokens + work.tokens
        if rows > max_rows or (limits.max_tokens is not None and tokens > limits.max_tokens):
            rows -= work.rows
            break
        earliest = min(earliest, work.deadline)
        if now + PROMPTNESS * curve.seconds(size + size_of(work)) > earliest:
            rows -= work.rows
            break
        size += size_of(work)
        stop += 1
    return stop, size, rows


def _projected(works: Sequence[Sized], max_rows: int, curve: TimeCurve, at: float) -> tuple[int, float]:
    """Return how many rows full batches of what is left answer in time, and when the last of them ends."""
    answered = 0
    while works:
        size = rows = count = 0
        for work in works:
            if rows + work.rows > max_rows and count:
                break
            rows, size, count = rows + work.rows, size + size_of(work), count + 1
        ends = at + PROMPTNESS * curve.seconds(size)
        kept = [work for work in works[:count] if work.deadline >= ends]
        if kept:
            # Those that would be late do not run, so that the others end sooner.
            at += curve.seconds(sum(map(size_of, kept)))
            answered += sum([work.rows for work in kept])
        works = works[count:]
    return answered, at
