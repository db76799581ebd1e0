"""What batches of each size have cost, and the size that this makes worth running. Pure: it is told the times."""

from typing import Final

_WEIGHT: Final = 0.1
_RUNS_TO_JUDGE: Final = 8
_TOLERANCE: Final = 1.05
_ALWAYS_ALLOWED_ROWS: Final = 2
_TRY_AGAIN_EVERY: Final = 64


class CostCurve:
    """What a row has cost an engine, by the power of two that the rows of its run round up to.

    On CPUs the activations of a large batch may leave the cache, so that rows cost more in it than in a small one.
    """

    __slots__ = ("_by_size", "_runs", "row_seconds")

    def __init__(self) -> None:
        self._by_size: dict[int, tuple[int, float]] = {}
        self._runs = 0
        self.row_seconds = 0.0

    def add(self, rows: int, seconds: float, cost: float) -> None:
        """Learn of a run of `rows` rows that lasted `seconds` and took `cost` seconds of processor or device."""
        self._runs += 1
        self.row_seconds += (seconds / rows - self.row_seconds) * (_WEIGHT if self._runs > 1 else 1.0)
        cost /= rows
        size = 1 << (rows - 1).bit_length()
        runs, known = self._by_size.get(size, (0, cost))
        self._by_size[size] = (runs + 1, known + (cost - known) * _WEIGHT)

    def rows_worth_running(self, max_rows: int) -> int:
        """Return the largest batch whose rows cost hardly more than the cheapest rows do.

        Sizes not known well are tried first, the neighbours of the chosen one now and then: an engine's costs change
        with what else the machine does. A few rows are always allowed.
        """
        if self._runs % 2 and self._runs > _RUNS_TO_JUDGE:
            for size in _sizes(max_rows):
                if self._by_size.get(size, (0, 0.0))[0] < _RUNS_TO_JUDGE:
                    return size
        chosen = self._chosen(max_rows)
        turn = self._runs % _TRY_AGAIN_EVERY
        if turn == 0:
            return min(max_rows, 2 * chosen)
        if turn == _TRY_AGAIN_EVERY // 2:
            return min(max_rows, max(_ALWAYS_ALLOWED_ROWS, chosen // 2))
        return chosen

    def _chosen(self, max_rows: int) -> int:
        judged = {size: cost for size, (runs, cost) in self._by_size.items() if runs >= _RUNS_TO_JUDGE}
        if not judged:
            return max_rows
        bound = min(judged.values()) * _TOLERANCE
        fine = max(size for size, cost in judged.items() if cost <= bound)
        dearer = [size for size in judged if size > fine]
        # Sizes between the largest good one and the smallest bad one are not known to be bad.
        return min(max_rows, max(min(dearer) // 2, _ALWAYS_ALLOWED_ROWS)) if dearer else max_rows


def _sizes(max_rows: int) -> list[int]:
    """Return the powers of two between the rows always allowed and `max_rows`."""
    return [1 << power for power in range(_ALWAYS_ALLOWED_ROWS.bit_length() - 1, max_rows.bit_length())]
