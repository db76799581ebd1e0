"""How long a batch of a given size takes an engine, learned from the batches that ran. Pure: it is told the times."""

from bisect import bisect_left
from typing import Final

_WEIGHT: Final = 0.1
_RUNS_TO_KNOW: Final = 16
_REFIT_EVERY: Final = 8
_RUNS_TO_TRUST: Final = 4
_LARGEST_JUMP: Final = 2.0


class TimeCurve:
    """Predicts the seconds of a batch from its size: its tokens, or whatever else grows with its rows.

    Sizes are kept in buckets, each a power of two wide, with the moving mean of what its runs held and lasted. The fit
    through those means is monotone (pool adjacent violators) and affine from one to the next; beyond the last it goes
    on in proportion, below the first it falls along the first slope. `known`: enough has run to refuse work by it.
    `unit_seconds`: of the cheapest unit of size in any batch seen, and `best_size` that batch's size.
    `longest_seconds`: of the largest.
    """

    __slots__ = ("_buckets", "_seconds", "_sizes", "best_size", "known", "longest_seconds", "runs", "unit_seconds")

    def __init__(self) -> None:
        self._buckets: dict[int, tuple[int, float, float]] = {}
        self._sizes: list[float] = []
        self._seconds: list[float] = []
        self.runs = 0
        self.known = False
        self.best_size = 0.0
        self.unit_seconds = 0.0
        self.longest_seconds = 0.0

    def add(self, size: int, seconds: float) -> None:
        """Learn of a batch of `size` that lasted `seconds`."""
        bucket = size.bit_length()
        runs, mean_size, mean_seconds = self._buckets.get(bucket, (0, 0.0, 0.0))
        runs += 1
        weight = max(_WEIGHT, 1 / runs)
        if runs > _RUNS_TO_TRUST:
            # A machine's hiccup is no news of the engine; what is news comes again.
            seconds = min(seconds, _LARGEST_JUMP * mean_seconds)
        mean_size += (size - mean_size) * weight
        mean_seconds += (seconds - mean_seconds) * weight
        self._buckets[bucket] = (runs, mean_size, mean_seconds)
        self.runs += 1
        if self.runs >= _RUNS_TO_KNOW and self.runs % _REFIT_EVERY == 0:
            self._fit()

    def seconds(self, size: float) -> float:
        """Return the predicted seconds of a batch of `size`; 0 while nothing is known."""
        sizes, seconds = self._sizes, self._seconds
        if not sizes:
            return 0.0
        place = bisect_left(sizes, size)
        if place == len(sizes):
            return seconds[-1] * size / sizes[-1]
        if place == 0:
            slope = seconds[0] / sizes[0]
            if len(sizes) > 1:
                slope = min(slope, (seconds[1] - seconds[0]) / (sizes[1] - sizes[0]))
            return seconds[0] - slope * (sizes[0] - size)
        low, high = sizes[place - 1], sizes[place]
        share = (size - low) / (high - low)
        return seconds[place - 1] + share * (seconds[place] - seconds[place - 1])

    def _fit(self) -> None:
        """Pool neighbouring buckets until a larger size never takes less time."""
        pools: list[tuple[float, float, float]] = []
        for bucket in sorted(self._buckets):
            runs, size, seconds = self._buckets[bucket]
            pool = (min(runs, 1 / _WEIGHT), size, seconds)
            while pools and pools[-1][2] >= pool[2]:
                pool = _pooled(pools.pop(), pool)
            pools.append(pool)
        self._sizes = [size for _, size, _ in pools]
        self._seconds = [seconds for _, _, seconds in pools]
        self.unit_seconds, self.best_size = min((seconds / size, size) for _, size, seconds in pools)
        self.longest_seconds = self._seconds[-1]
        self.known = True


def _pooled(one: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return (weight, size, seconds) of both together."""
    weight = one[0] + other[0]
    size = (one[0] * one[1] + other[0] * other[1]) / weight
    return weight, size, (one[0] * one[2] + other[0] * other[2]) / weight
