"""What the ranking network learns from: earlier choices of users, each against candidates that were not chosen.

Factors that had seen a choice would give it away. So users are dealt into folds, and the features of a fold's users
come from factors of the others. Candidates are of two strata, those that retrieval puts first and all the rest, and
each counts for as many items as it stands for, so that the softmax over the sample estimates that over the catalogue.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from engines.recommender import factors, pairs, tower
from engines.recommender.dataset import Choices, Dataset, Floats, Ints
from engines.recommender.network import Lists

FOLDS: Final = 4
_LISTS_PER_USER: Final = 16
_MAX_LISTS: Final = 16_000
_POOL: Final = 200
_FROM_POOL: Final = 30
_FROM_ALL: Final = 20
_SHORT_EVERY: Final = 8
_SHORT: Final = 8


def sample(dataset: Dataset, choices: Choices, told: Callable[[int, int], None], seed: int = 1) -> Lists:
    """Lists from the last choices of every user, or of a sample of them; `told(fold, folds)` after each fold."""
    random = np.random.default_rng(seed)
    dealt = random.permutation(choices.users)
    features: list[Floats] = []
    weights: list[Floats] = []
    budget = max(1, _MAX_LISTS // FOLDS)
    for fold in range(FOLDS):
        mine = np.sort(dealt[fold::FOLDS])
        others = np.sort(np.delete(dealt, np.arange(fold, len(dealt), FOLDS)))
        table = factors.fit(dataset, choices.of_users(others))
        users, places = _places(choices, mine, random, budget)
        made = _Sampler(choices, table, random).lists(users, places)
        features.append(made.features)
        weights.append(made.log_weights)
        told(fold + 1, FOLDS)
    return Lists(np.concatenate(features), np.concatenate(weights))


def _places(choices: Choices, users: Ints, random: np.random.Generator, budget: int) -> tuple[Ints, Ints]:
    """Of each user the places in `choices` of the last few."""
    counts = np.minimum(choices.counts[users], _LISTS_PER_USER)
    of = np.repeat(users, counts)
    back = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    places = choices.starts[of + 1] - back
    if len(places) > budget:
        kept = np.sort(random.permutation(len(places))[:budget])
        of, places = of[kept], places[kept]
    return of, places


class _Sampler:
    """Makes lists by the factors of one fold."""

    def __init__(self, choices: Choices, table: factors.ItemTable, random: np.random.Generator) -> None:
        self._choices, self._table, self._random = choices, table, random

    def lists(self, users: Ints, places: Ints) -> Lists:
        """One list for the choice at each of `places` [n] of `users` [n]."""
        histories = self._shortened(tower.windows(self._choices, users, places))
        rows = tower.users_of(histories, self._table)
        retrieval = tower.Retrieval.fitted(rows, self._table)
        features, weights = [], []
        for part in tower.chunks(len(users), len(self._table)):
            scores = retrieval.scores(rows[part], self._table)
            candidates, log_weights = self._candidates(scores, users[part], places[part])
            features.append(pairs.features(rows[part], self._table, candidates))
            weights.append(log_weights)
        return Lists(np.concatenate(features), np.concatenate(weights))

    def _shortened(self, histories: Ints) -> Ints:
        """Every eighth history cut to its last few choices or none: so the network meets newcomers too."""
        lengths = np.full(len(histories), tower.LENGTH)
        lengths[::_SHORT_EVERY] = self._random.integers(0, _SHORT + 1, len(lengths[::_SHORT_EVERY]))
        return np.where(np.arange(tower.LENGTH) < lengths[:, None], histories, -1)

    def _candidates(self, scores: Floats, users: Ints, places: Ints) -> tuple[Ints, Floats]:
        """[n, 1 + negatives] items, the chosen one first, and the logarithms of how many each stands for."""
        choices, (count, items) = self._choices, scores.shape
        open_ = np.ones((count, items), bool)
        for row, (user, place) in enumerate(zip(users, places, strict=True)):
            open_[row, choices.items[choices.starts[user] : place + 1]] = False
        pool = min(_POOL, items // 2)
        best = np.argpartition(np.where(open_, -scores, np.inf), pool - 1, axis=1)[:, :pool]
        picks = self._random.integers(0, pool, (count, _FROM_POOL))
        hard = np.take_along_axis(best, picks, axis=1)
        easy = self._random.integers(0, items, (count, _FROM_ALL))
        hard_open = np.take_along_axis(open_, hard, axis=1)
        np.put_along_axis(open_, best, False, axis=1)
        easy_open = np.take_along_axis(open_, easy, axis=1)
        with np.errstate(divide="ignore"):
            weights = np.concatenate([hard_open * (pool / _FROM_POOL), easy_open * (items / _FROM_ALL)], axis=1)
            logs = np.log(weights)
        chosen = choices.items[places][:, None]
        return np.concatenate([chosen, hard, easy], axis=1), np.concatenate([np.zeros((count, 1)), logs], axis=1)
