"""How much of the traffic the gateway samples by itself: pure policy, fed with one count of requests at a time."""

from dataclasses import dataclass

_SLACK = 0.8
"""Aim below the bound by this much, since a request rate wanders."""
_DOWN = 0.75
"""Lower the ratio when the target is below this share of it."""
_UP = 2.0
"""Raise the ratio when the target is above this multiple of it ..."""
_PATIENCE = 20.0
"""... for this many seconds, and then by this multiple at most: a pause in the traffic is no reason to forget."""


@dataclass(slots=True)
class SampleRatio:
    """The ratio to sample at, so that at most `per_second` traces begin each second.

    Quick down, slow up: every change is a configuration push, and too many traces cost more than too few.
    """

    per_second: float
    ratio: float = 1.0
    _calm: float = 0.0

    def __post_init__(self) -> None:
        """A bound of nothing samples nothing from the start."""
        if self.per_second <= 0:
            self.ratio = 0.0

    def observe(self, requests: int, seconds: float) -> bool:
        """Take `requests` seen within the last `seconds`; return whether `ratio` has changed."""
        if self.per_second <= 0 or seconds <= 0:
            return False
        rate = requests / seconds
        target = 1.0 if rate <= self.per_second else _SLACK * self.per_second / rate
        if target < self.ratio * _DOWN:
            self.ratio, self._calm = target, 0.0
            return True
        if target < self.ratio * _UP and not (target == 1.0 > self.ratio):
            self._calm = 0.0
            return False
        self._calm += seconds
        if self.ratio == 1.0 or self._calm < _PATIENCE:
            return False
        self.ratio, self._calm = min(target, self.ratio * _UP), 0.0
        return True
