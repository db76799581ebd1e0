"""The scenarios, and what every rule makes of them."""

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.simulator import loads, rivals
from benchmarks.simulator.engine import EngineModel
from benchmarks.simulator.loads import Kind, Request
from benchmarks.simulator.ours import Ours
from benchmarks.simulator.run import Rule

#: Batches of large ones pay much (a GPU), hardly (a convolutional network on a CPU), by tokens (text on a CPU).
GPU: Final = EngineModel(fixed=4e-3, per_unit=0.25e-3, max_rows=32)
TWO_GPUS: Final = EngineModel(fixed=4e-3, per_unit=0.25e-3, max_rows=32, count=2)
CPU: Final = EngineModel(fixed=1e-3, per_unit=4e-3, max_rows=8, count=2)
TEXT: Final = EngineModel(fixed=2e-3, per_unit=30e-6, max_rows=64, max_tokens=2048)

_MIXED: Final = (Kind(share=0.3, allowed=0.03), Kind(share=0.7, allowed=0.5))
_LISTS: Final = (Kind(share=0.7, allowed=0.06), Kind(share=0.3, allowed=0.06, rows=8))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load on one engine; `load`: in parts of the engine's capacity."""

    name: str
    engine: EngineModel
    load: float
    kinds: tuple[Kind, ...]
    bursty: bool = False
    seconds: float = 4.0

    def requests(self, seed: int = 1) -> list[Request]:
        """Draw the arrivals."""
        random_ = random.Random(f"{self.name} {seed}")
        shares = sum(kind.share for kind in self.kinds)
        rows = sum(kind.share * kind.rows for kind in self.kinds) / shares
        rate = self.load * capacity(self.engine, self.kinds) / rows
        draw: loads.Draw = loads.bursty if self.bursty else loads.poisson
        return loads.works(draw(rate, self.seconds, random_), self.kinds, random_)

    @property
    def allowed(self) -> float:
        """The median time that a work may take."""
        return statistics.median_low([kind.allowed for kind in self.kinds for _ in range(round(10 * kind.share))])


def capacity(engine: EngineModel, kinds: tuple[Kind, ...]) -> float:
    """Return the rows a second of full batches."""
    tokens = max(kind.tokens for kind in kinds)
    if tokens and engine.max_tokens:
        # The mean of the log-normal lengths, rounded up to a multiple of 16.
        return engine.count * engine.max_tokens / (tokens * 1.2 + 8) / engine.seconds(engine.max_tokens)
    return engine.count * engine.max_rows / engine.seconds(engine.max_rows)


SUITE: Final = (
    Scenario("gpu steady 0.7", GPU, 0.7, (Kind(allowed=0.05),)),
    Scenario("gpu steady 1.2", GPU, 1.2, (Kind(allowed=0.05),)),
    Scenario("gpu steady 2.0", GPU, 2.0, (Kind(allowed=0.05),)),
    Scenario("gpu bursty 0.6", GPU, 0.6, (Kind(allowed=0.05),), bursty=True),
    Scenario("gpu tight 0.7", GPU, 0.7, (Kind(allowed=0.016),)),
    Scenario("gpu tight 1.5", GPU, 1.5, (Kind(allowed=0.016),)),
    Scenario("gpu mixed 0.9", GPU, 0.9, _MIXED),
    Scenario("gpu mixed 2.0", GPU, 2.0, _MIXED),
    Scenario("gpu lists 1.3", GPU, 1.3, _LISTS),
    Scenario("two gpus bursty 0.8", TWO_GPUS, 0.8, (Kind(allowed=0.03),), bursty=True),
    Scenario("cpu steady 0.8", CPU, 0.8, (Kind(allowed=0.08),), seconds=8),
    Scenario("cpu bursty 1.5", CPU, 1.5, (Kind(allowed=0.08),), bursty=True, seconds=8),
    Scenario("text steady 0.8", TEXT, 0.8, (Kind(allowed=0.25, tokens=40),), seconds=8),
    Scenario("text bursty 1.5", TEXT, 1.5, (Kind(allowed=0.25, tokens=40),), bursty=True, seconds=8),
)

Make = Callable[[Scenario], Rule]


def fixed_delay(delay: float) -> Make:
    """Triton's rule; `delay` in seconds."""
    return lambda _: rivals.FixedDelay(delay)


def greedy_budget(rows: int) -> Make:
    """text-embeddings-inference's rule."""
    return lambda _: rivals.GreedyBudget(rows)


def adaptive(part: float) -> Make:
    """Clipper's rule; batches may last `part` of the time that the scenario's works are allowed."""
    return lambda scenario: rivals.AdditiveIncrease(1, part * scenario.allowed)


def deferred(margin: float, fill: float) -> Make:
    """Symphony's rule, with early drop."""
    return lambda _: rivals.Deferred(margin, fill)


#: rule -> the settings tried; the one with the best worst case stands for the rule over the whole suite.
RULES: Final[dict[str, dict[str, Make]]] = {
    "fixed delay": {f"{delay} ms": fixed_delay(delay / 1000) for delay in (0, 1, 5, 20)},
    "greedy budget": {f"{rows} rows": greedy_budget(rows) for rows in (4, 8, 16, 32, 64)},
    "adaptive": {f"{part:g} of the deadline": adaptive(part) for part in (0.3, 0.5, 1.0)},
    "deferred": {
        f"margin {margin:g}, fill {fill:g}": deferred(margin, fill) for margin in (0.05, 0.1) for fill in (0.5, 0.8)
    },
    "headrace": {"nothing to set": lambda _: Ours()},
}
