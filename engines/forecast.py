"""When a work would be answered, as its engine's curve says. Pure."""

from collections.abc import Sequence
from typing import Final

from engines.curve import TimeCurve

#: At the door: a run may take this much longer than predicted and the work is still in time. It makes no difference
#: on an idle engine, where nothing is refused.
SAFETY: Final = 1.15
#: In the line: the prediction has to be wrong by this much before a work is given up that could have been answered.
_LENIENCE: Final = 0.9


def finish(curve: TimeCurve, size: int, ahead: int, frees: Sequence[float], now: float) -> float:
    """Return when a work of `size` behind works of size `ahead` would be answered.

    `frees`: the predicted instant at which each engine is free. All in monotonic seconds. The works ahead go in batches
    of the size that has proved cheapest, and so does a work larger than that; the last of it with what fills no batch.
    """
    batch = max(curve.best_size, 1.0)
    if size > batch:
        ahead, size = ahead + size - int(batch), int(batch)
    full, rest = divmod(ahead, batch)
    free = max(now, min(frees, default=now))
    return free + full * curve.seconds(batch) / max(1, len(frees)) + curve.seconds(max(size, min(batch, rest + size)))


def misses_by(finished: float, deadline: float, now: float) -> float:
    """Return by how many seconds a work predicted for `finished` misses `deadline`, safety included; 0: not at all."""
    return max(0.0, now + (finished - now) * SAFETY - deadline)


def hopeless(curve: TimeCurve, size: int, deadline: float, now: float) -> bool:
    """Say whether a work of `size` misses its deadline even if an engine takes it, alone, at once."""
    return now + curve.seconds(size) * _LENIENCE > deadline
