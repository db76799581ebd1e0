"""What arrives: seeded Poisson and Markov-modulated arrivals, recorded ones, and the works that they bring."""

import csv
import math
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: (rate, seconds, random) -> instants
Draw = Callable[[float, float, random.Random], Iterator[float]]


@dataclass(slots=True)
class Request:
    """A work on its way: the policy's view of it, and when it came. Seconds."""

    number: int
    arrived: float
    deadline: float
    rows: int = 1
    tokens: int = 0
    group: Hashable = None
    urgency: float = 0.0
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of work: its share of all, its rows, its deadline after arrival in seconds, its row's median tokens.

    With `tokens`, lengths are log-normal and grouped by the next multiple of 16.
    """

    share: float = 1.0
    rows: int = 1
    allowed: float = 0.1
    tokens: int = 0


def poisson(rate: float, seconds: float, random_: random.Random) -> Iterator[float]:
    """Instants of a Poisson process of `rate` a second."""
    at = random_.expovariate(rate)
    while at < seconds:
        yield at
        at += random_.expovariate(rate)


def bursty(rate: float, seconds: float, random_: random.Random) -> Iterator[float]:
    """Instants of a two-state Markov-modulated Poisson process of `rate` in the mean.

    A fifth of the time, in spells of 0.2 s in the mean, it runs at four times the rate, else at what is left.
    """
    burst, dwell = 4.0, 0.2
    quiet = rate * (1 - burst / 5) / 0.8
    at, loud = 0.0, False
    while at < seconds:
        ends = at + random_.expovariate(1 / dwell if loud else 1 / (4 * dwell))
        pace = rate * burst if loud else quiet
        if pace > 0:
            step = at + random_.expovariate(pace)
            while step < min(ends, seconds):
                yield step
                step += random_.expovariate(pace)
        at, loud = ends, not loud


def works(instants: Iterator[float] | Sequence[float], kinds: Sequence[Kind], random_: random.Random) -> list[Request]:
    """Give each instant a work of one of the kinds."""
    weights = [kind.share for kind in kinds]
    requests = []
    for number, at in enumerate(instants):
        kind = random_.choices(kinds, weights)[0]
        length = 0
        if kind.tokens:
            drawn = min(512.0, random_.lognormvariate(math.log(kind.tokens), 0.6))
            length = 16 * max(1, math.ceil(drawn / 16))
        requests.append(Request(number, at, at + kind.allowed, kind.rows, kind.rows * length, length))
    return requests


def recorded(path: Path) -> list[Request]:
    """Read a CSV file with the columns `arrived_s`, `allowed_s` and, if they matter, `rows` and `length`."""
    with path.open(newline="", encoding="utf-8") as lines:
        found = sorted(csv.DictReader(lines), key=lambda line: float(line["arrived_s"]))
    requests = []
    for number, line in enumerate(found):
        at, rows, length = float(line["arrived_s"]), int(line.get("rows") or 1), int(line.get("length") or 0)
        requests.append(Request(number, at, at + float(line["allowed_s"]), rows, rows * length, length))
    return requests
