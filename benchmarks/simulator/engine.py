"""An engine as its cost: what a batch takes."""

import random
from dataclasses import dataclass

from engines.work import BatchLimits


@dataclass(frozen=True, slots=True)
class EngineModel:
    """`count` equal engines: a batch takes `fixed` seconds and `per_unit` for each token, or row where there are none.

    `noise`: a batch takes up to so much longer, uniformly; never less, so that the bound holds.
    """

    fixed: float
    per_unit: float
    max_rows: int
    max_tokens: int | None = None
    count: int = 1
    noise: float = 0.1

    @property
    def limits(self) -> BatchLimits:
        """The limits of the batcher before it."""
        return BatchLimits(self.max_rows, 100_000, self.max_tokens)

    def seconds(self, units: float) -> float:
        """Return the least time of a batch of so many tokens, or rows."""
        return self.fixed + self.per_unit * units

    def drawn(self, units: float, random_: random.Random) -> float:
        """Return the time of one run."""
        return self.seconds(units) * (1 + self.noise * random_.random())
