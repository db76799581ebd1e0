"""Items by their numbers: histories as a network reads them, and the best of many scores. Pure numpy."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


def joined(stored: npt.NDArray[np.integer[Any]], fresh: Iterable[int]) -> Places:
    """A history, oldest first: what is stored, then what is fresh; of a repeated item only its last place."""
    found = dict.fromkeys(reversed([*stored.tolist(), *fresh]))
    return np.array(list(reversed(found)), np.int64)


def window(history: Places, length: int) -> Places:
    """The history as INT64 [1, length]: latest first, then -1."""
    found = np.full((1, length), -1, np.int64)
    latest = history[::-1][:length]
    found[0, : len(latest)] = latest
    return found


def best(scores: npt.NDArray[Any], count: int, without: Places | None = None) -> Places:
    """Places of the `count` best of scores [n], best first, equal ones in their order; NaN and `without` never."""
    values = scores.astype(np.float32).ravel()
    values[np.isnan(values)] = -np.inf
    if without is not None:
        values[without] = -np.inf
    if count < len(values):
        least = np.partition(values, -count)[-count]
        candidates = np.flatnonzero(values >= least)
    else:
        candidates = np.arange(len(values))
    order = candidates[np.argsort(-values[candidates], kind="stable")][:count]
    return order[values[order] > -np.inf]


def ordered(scores: npt.NDArray[Any]) -> Places:
    """All places of scores [n], best first, equal ones in their order, NaN last."""
    return np.argsort(-np.nan_to_num(scores.ravel(), nan=-np.inf), kind="stable")
