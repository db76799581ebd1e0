"""What the engines of one batcher have cost so far, and what follows: shares, refusals, when to try again. No clock."""

import math
from collections.abc import Hashable
from typing import Final

from engines import forecast, scheduler
from engines.costs import CostCurve
from engines.curve import TimeCurve

#: Where a row costs an engine less, the hand-over of a batch costs more than a better size of it could save.
_ROW_SECONDS_WORTH_CARE: Final = 0.0003
#: Shorter runs endanger no deadline, and learning of each would cost what it takes.
_SECONDS_WORTH_KNOWING: Final = 50e-6
_RETRY_AFTER_MIN: Final = 0.01
_RETRY_AFTER_MAX: Final = 10.0


class Pace:
    """Learns from every run. `rows_are_alike`: the cost of a row says something about the number of rows.

    `curve`: the seconds of a batch by its size; a run's size is its tokens, or its rows where the model has none.
    """

    __slots__ = ("_costs", "_frees", "_rows_are_alike", "curve")

    def __init__(self, *, rows_are_alike: bool) -> None:
        self._rows_are_alike = rows_are_alike
        self._costs = CostCurve()
        self._frees: dict[Hashable, float] = {}
        self.curve = TimeCurve()

    def begins(self, engine: Hashable, size: int, now: float) -> None:
        """Note that `engine` begins a run of `size`."""
        self._frees[engine] = now + self.curve.seconds(size)

    def ends(self, engine: Hashable) -> None:
        """Note that the run of `engine` is over."""
        self._frees.pop(engine, None)

    def learn(self, rows: int, size: int, seconds: float, cost: float) -> None:
        """Learn of a run that lasted `seconds` and took `cost` seconds of processor or device."""
        self._costs.add(rows, seconds, cost)
        if seconds > _SECONDS_WORTH_KNOWING:
            self.curve.add(size, seconds)

    @property
    def sizes_matter(self) -> bool:
        """Whether rows cost enough for the number of them in a batch to be worth a thought."""
        return self._costs.row_seconds >= _ROW_SECONDS_WORTH_CARE

    def share(self, rows: int, engines: int, max_rows: int) -> int:
        """Return how many rows the next batch should have at most, of the `rows` that wait or run."""
        share = scheduler.fair_share(rows, engines)
        return min(share, self._costs.rows_worth_running(max_rows)) if self._rows_are_alike else share

    def surely_in_time(self, size: int, seconds: float) -> bool:
        """Say at once that works of `size` in all are done in `seconds`, as nearly always; False: look closer."""
        curve = self.curve
        return not curve.known or (size * curve.unit_seconds + 2 * curve.longest_seconds) * forecast.SAFETY < seconds

    def misses_by(self, size: int, ahead: int, deadline: float, now: float) -> float:
        """Return by how many seconds a work of `size` behind works of size `ahead` would be late; 0: it is welcome.

        To be asked while every engine is busy: an idle one takes what there is.
        """
        if deadline == math.inf or not self.curve.known:
            return 0.0
        finished = forecast.finish(self.curve, size, ahead, list(self._frees.values()), now)
        return forecast.misses_by(finished, deadline, now)

    def retry_after(self, rows: int, engines: int) -> float:
        """Return the seconds after which `rows` rows will have run."""
        return bounded(rows * self._costs.row_seconds / max(1, engines))


def bounded(seconds: float) -> float:
    """Return a time after which to try again that is neither a busy loop nor for ever."""
    return min(max(seconds, _RETRY_AFTER_MIN), _RETRY_AFTER_MAX)
