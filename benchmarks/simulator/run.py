"""The events: works arrive, engines become free, rules wake up."""

import heapq
import random
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.simulator.engine import EngineModel
from benchmarks.simulator.loads import Request

_ARRIVES, _FREE, _WAKE = 1, 0, 2


@dataclass(slots=True)
class Line:
    """What a rule sees: works in the order it put them in, idle engines, and when the others will have been running."""

    engine: EngineModel
    waiting: list[Request] = field(default_factory=list)
    idle: int = 0
    running: dict[int, tuple[list[Request], float]] = field(default_factory=dict)


class Rule(Protocol):
    """When to go, what to take, what to refuse."""

    def arrives(self, line: Line, request: Request, now: float) -> bool:
        """Put the work into the line, or refuse it."""

    def takes(self, line: Line, now: float) -> tuple[list[Request], list[Request], float | None]:
        """Remove from the line and return (the next batch, what is given up); if both are empty, when to ask again."""

    def ran(self, batch: list[Request], seconds: float) -> None:
        """Hear of a batch that has run."""


@dataclass(slots=True)
class Result:
    """What became of the works of one run: rows, but for `batches`, engine runs, and `answered`, the works' numbers."""

    offered: int = 0
    in_time: int = 0
    late: int = 0
    refused: int = 0
    dropped: int = 0
    batches: int = 0
    answered: list[int] = field(default_factory=list)


def simulate(requests: Sequence[Request], engine: EngineModel, rule: Rule, seed: int = 0) -> Result:
    """Run all `requests` through `engine` under `rule` to the last. Same arguments, same result."""
    random_ = random.Random(seed)
    line, result = Line(engine, idle=engine.count), Result()
    events: list[tuple[float, int, int, Request | None]] = [
        (request.arrived, _ARRIVES, request.number, copy(request)) for request in requests
    ]
    heapq.heapify(events)
    started = 0
    asked = float("inf")
    while events:
        now, kind, number, request = heapq.heappop(events)
        if kind == _FREE:
            batch, began = line.running.pop(number)
            line.idle += 1
            rule.ran(batch, now - began)
            _settle(result, batch, now)
        elif request is not None:
            result.offered += request.rows
            if not rule.arrives(line, request, now):
                result.refused += request.rows
        elif number == started:
            asked = float("inf")
        while line.idle and line.waiting:
            take, dropped, again = rule.takes(line, now)
            result.dropped += sum(each.rows for each in dropped)
            if take:
                started += 1
                line.idle -= 1
                line.running[started] = (take, now)
                asked = float("inf")
                heapq.heappush(events, (now + engine.drawn(padded(take), random_), _FREE, started, None))
            elif not dropped:
                if again is not None and again < asked:
                    asked = again
                    heapq.heappush(events, (max(again, now), _WAKE, started, None))
                break
    return result


def padded(batch: Sequence[Request]) -> int:
    """Return the tokens of a batch, each row as long as the longest; without tokens, its rows."""
    rows = sum([each.rows for each in batch])
    return rows * max([each.tokens // each.rows for each in batch]) or rows


def _settle(result: Result, batch: list[Request], now: float) -> None:
    result.batches += 1
    for request in batch:
        result.answered.append(request.number)
        if now <= request.deadline:
            result.in_time += request.rows
        else:
            result.late += request.rows
