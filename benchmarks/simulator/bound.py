"""More rows than any rule can answer in time, from arrivals known in advance.

What is relaxed: engines are one fluid of `count` engines' pace that may be divided and interrupted at will, and batches
need not be formed. What is kept: a row that is answered takes engine time between its arrival and its deadline, and at
least its part of the cheapest batch that could hold it: of its own shape (or of any length of text, where lengths can
be padded), not longer than its work may last, and of no more rows than are there to share it.

The fluid is a matroid (time slots matched with work), so the best weighted sum is greedy by weight: with the cheap
works alone first, then with dearer ones added, the most engine time that can be put to use counts with each weight.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Final

from benchmarks.simulator.engine import EngineModel
from benchmarks.simulator.loads import Request

_CLASSES: Final = 8


def most_rows_in_time(requests: Sequence[Request], engine: EngineModel) -> float:
    """Return a number of rows that no schedule exceeds."""
    cheapest = _cheapest_rows(requests, engine)
    served = [(cost, request) for cost, request in zip(cheapest, requests, strict=True) if cost is not None]
    if not served:
        return 0.0
    levels = _levels([cost for cost, _ in served])
    total = used = 0.0
    for level, dearest in enumerate(levels):
        jobs = [
            (request.arrived, request.deadline, request.rows * levels[bisect_right(levels, cost) - 1])
            for cost, request in served
            if bisect_right(levels, cost) - 1 <= level
        ]
        reached = _most_engine_time(jobs, engine.count)
        total += (reached - used) / dearest
        used = reached
    return total


def _levels(costs: list[float]) -> list[float]:
    """Return up to eight costs, ascending, onto the nearest of which from below every cost is rounded."""
    ordered = sorted(costs)
    return sorted({ordered[len(ordered) * place // _CLASSES] for place in range(_CLASSES)})


def _cheapest_rows(requests: Sequence[Request], engine: EngineModel) -> list[float | None]:
    """Return for each work the least engine time of one of its rows; None if it cannot be answered at all."""
    groups: dict[Hashable, list[Request]] = defaultdict(list)
    for request in requests:
        groups[_company(request)].append(request)
    longest = {name: max(request.deadline - request.arrived for request in group) for name, group in groups.items()}
    arrivals = {name: [request.arrived for request in group] for name, group in groups.items()}
    rows_before = {name: _running_sum([request.rows for request in group]) for name, group in groups.items()}
    costs: list[float | None] = []
    for request in requests:
        name, allowed = _company(request), request.deadline - request.arrived
        # Whoever shares its batch has arrived before its deadline, and has not expired at its arrival.
        low = bisect_left(arrivals[name], request.arrived - longest[name])
        high = bisect_right(arrivals[name], request.deadline)
        there = rows_before[name][high] - rows_before[name][low]
        unit = (request.tokens or request.rows) / request.rows
        rows = min(there, engine.max_rows)
        if engine.per_unit:
            rows = min(rows, int((allowed - engine.fixed) / (engine.per_unit * unit)))
        if engine.max_tokens is not None and request.tokens:
            rows = min(rows, max(request.rows, int(engine.max_tokens / unit)))
        if engine.seconds(unit * request.rows) > allowed:
            costs.append(None)
        else:
            rows = max(rows, request.rows)
            costs.append(engine.seconds(unit * rows) / rows)
    return costs


def _company(request: Request) -> Hashable:
    """Return what the works that could share a batch with this one have in common."""
    return "text" if request.tokens else ("shape", request.group)


def _running_sum(values: list[int]) -> list[int]:
    sums = [0]
    for value in values:
        sums.append(sums[-1] + value)
    return sums


def _most_engine_time(jobs: list[tuple[float, float, float]], engines: int) -> float:
    """Return the most time that the engines, one fluid, can give to jobs (arrival, deadline, time)."""
    ordered = sorted(jobs)
    waiting: list[tuple[float, float]] = []  # The earliest deadline first, which loses least.
    at = done = 0.0
    place = 0
    while place < len(ordered) or waiting:
        if not waiting:
            at = max(at, ordered[place][0])
        while place < len(ordered) and ordered[place][0] <= at:
            heapq.heappush(waiting, (ordered[place][1], ordered[place][2]))
            place += 1
        until = ordered[place][0] if place < len(ordered) else float("inf")
        deadline, needed = heapq.heappop(waiting)
        ends = min(at + needed / engines, deadline, until)
        if ends > at:
            done += (ends - at) * engines
            left = needed - (ends - at) * engines
            at = ends
            if left > 1e-12 and deadline > at:
                heapq.heappush(waiting, (deadline, left))
        elif deadline > at:
            heapq.heappush(waiting, (deadline, needed))
            at = until
    return done
