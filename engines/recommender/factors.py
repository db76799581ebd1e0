"""Vectors and numbers of items, from choices alone: two truncated singular value decompositions and some counting.

*Taste* factors come from who chose what (PureSVD: Cremonesi, Koren and Turrin, RecSys 2010): a user is the sum of the
vectors of what he chose, an item is liked by how far its vector points the same way. *Order* factors come from what was
chosen soon after what: an item has one vector as the earlier and one as the later of two choices.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

from engines.recommender.dataset import Choices, Dataset, Floats, Ints

TASTE_RANK: Final = 32
ORDER_RANK: Final = 48
#: Two choices this far apart, or less, count as one after the other, by 1 / distance; the reverse order counts too.
_REACH: Final = 8
_REVERSE: Final = 0.3
_SHRINKAGE: Final = 10.0
_ITERATIONS: Final = 6
#: The share of the time that counts as late, for what is trending.
_LATE: Final = 0.25


@dataclass(frozen=True, slots=True)
class ItemTable:
    """What is known of each item: `taste`, `earlier`, `later` [items, rank], `genres` [items, kinds], `numbers`
    [items, len(names)] such as its popularity. All float64 that float32 can hold.
    """

    taste: Floats
    earlier: Floats
    later: Floats
    genres: Floats
    numbers: Floats
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.taste)

    def space(self, name: str) -> Floats:
        """The vectors called taste, earlier, later or genres."""
        found: Floats = getattr(self, name)
        return found


def rounded(values: Floats) -> Floats:
    """The nearest values that float32 can hold."""
    return values.astype(np.float32).astype(np.float64)


def fit(dataset: Dataset, choices: Choices) -> ItemTable:
    """Learn the item table from `choices`, which are some of the data set's."""
    items = len(dataset.catalogue)
    popularity = np.bincount(choices.items, minlength=items).astype(np.float64)
    earlier, later = _order_factors(choices, items)
    numbers, names = _numbers(dataset, choices, popularity)
    return ItemTable(
        rounded(_taste_factors(choices, popularity)),
        rounded(earlier),
        rounded(later),
        rounded(dataset.catalogue.genres),
        rounded(numbers),
        names,
    )


def trending(dataset: Dataset, choices: Choices) -> Floats:
    """How much each item is chosen of late, 1 being the most: counts that halve in weight with 1/8 of the time."""
    times = choices.times if dataset.has_times else np.zeros(len(choices))
    span = max(float(np.ptp(times)), 1.0)
    weights = 0.5 ** ((times.max() - times) / (span / 8))
    counts = np.bincount(choices.items, weights, len(dataset.catalogue))
    return rounded(counts / max(float(counts.max()), 1e-9))


def _taste_factors(choices: Choices, popularity: Floats) -> Floats:
    """[items, rank]. Columns are damped by popularity, lest it takes every factor."""
    rows = np.repeat(np.arange(choices.users), choices.counts)
    shape = (choices.users, len(popularity))
    chosen = sp.csr_matrix((np.ones(len(rows)), (rows, choices.items)), shape)
    damped = chosen @ sp.diags((popularity + 5.0) ** -0.2)
    return _svd(damped.tocsr(), TASTE_RANK)[1]


def _order_factors(choices: Choices, items: int) -> tuple[Floats, Floats]:
    """Two of [items, rank]: of an item as the earlier and as the later choice."""
    user = np.repeat(np.arange(choices.users), choices.counts)
    pairs = sp.csr_matrix((items, items))
    for distance in range(1, _REACH + 1):
        same = user[distance:] == user[:-distance]
        before, after = choices.items[:-distance][same], choices.items[distance:][same]
        pairs = pairs + sp.csr_matrix((np.full(len(before), 1.0 / distance), (before, after)), (items, items))
    pairs = pairs + _REVERSE * pairs.T
    rows, columns = (np.asarray(pairs.sum(axis)).ravel() for axis in (1, 0))
    scaled = sp.diags((rows + _SHRINKAGE) ** -0.5) @ pairs @ sp.diags((columns + _SHRINKAGE) ** -0.5)
    return _svd(scaled.tocsr(), ORDER_RANK, share_values=True)


def _svd(matrix: sp.csr_matrix, rank: int, *, share_values: bool = False) -> tuple[Floats, Floats]:
    """Left and right singular vectors as columns, each times the root of its value when `share_values`."""
    rank = min(rank, *matrix.shape)
    left, values, right = randomized_svd(matrix, rank, n_iter=_ITERATIONS, random_state=0)
    scale = np.sqrt(values) if share_values else np.ones(rank)
    return left * scale, right.T * scale


def _numbers(dataset: Dataset, choices: Choices, popularity: Floats) -> tuple[Floats, tuple[str, ...]]:
    """The numbers of each item [items, names], and what they are called."""
    items = len(popularity)
    found = {"log popularity": np.log1p(popularity)}
    if dataset.has_times:
        times = choices.times
        late = np.bincount(choices.items[times >= np.quantile(times, 1 - _LATE)], minlength=items)
        found["late log popularity less log popularity"] = np.log1p(late) - found["log popularity"]
        first = np.full(items, times.max())
        np.minimum.at(first, choices.items, times)
        found["first chosen"] = (first - times.min()) / max(float(np.ptp(times)), 1.0)
    if dataset.has_ratings:
        mean = choices.ratings.mean()
        found["mean rating"] = (np.bincount(choices.items, choices.ratings, items) + 5 * mean) / (popularity + 5)
    years = dataset.catalogue.years
    if np.isfinite(years).any():
        middle = np.nanmedian(years)
        found["year"] = (np.where(np.isfinite(years), years, middle) - middle) / 10
    return np.stack(list(found.values()), axis=1), tuple(found)


def all_users(choices: Choices) -> Ints:
    """The numbers of all users."""
    return np.arange(choices.users)
