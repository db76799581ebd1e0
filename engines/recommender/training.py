"""From a data set to a measured recommender."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from threadpoolctl import threadpool_limits

from engines.recommender import factors, metrics, network, sampling, tower
from engines.recommender.dataset import Choices, Dataset, Floats, check_size
from engines.recommender.metrics import Metric, Model
from engines.recommender.split import leave_last_out

#: Items that retrieval hands to the ranking network.
CANDIDATES: Final = 500
#: Told of steps: what is done, and how many of how many parts of it are.
Step = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """A recommender with what it knows. `known`: the choices that its factors and its users' histories come from.
    `trend` [items]: how much each is chosen of late, 0..1. `lists`: what the network was trained on; `loss`: its last.
    """

    dataset: Dataset
    known: Choices
    model: Model
    trend: Floats
    metrics: tuple[Metric, ...]
    measured_users: int
    lists: int
    loss: float
    seconds: float


def train(dataset: Dataset, step: Step, *, keep_held_out: bool = False) -> Trained:
    """Hold out each user's last choice, train on the rest, measure; then take up the held-out choices too.

    The network stays as measured, only factors, numbers and histories come from all choices; with `keep_held_out`
    even those do not, and the served model is the measured one. Raises DatasetError when there is too little data.
    """
    check_size(dataset)
    # On one thread sums are added up in one order, whatever the machine, and other processes keep their cores.
    with threadpool_limits(1):
        return _train(dataset, step, keep_held_out)


def _train(dataset: Dataset, step: Step, keep_held_out: bool) -> Trained:
    started = time.perf_counter()
    split = leave_last_out(dataset.choices)
    lists = sampling.sample(dataset, split.train, lambda done, of: step("learning factors, fold by fold", done, of))
    losses: list[float] = []

    def told(epoch: int, epochs: int, loss: float) -> None:
        losses.append(loss)
        step("training the ranking network", epoch, epochs)

    ranker = network.train(lists, told)
    step("measuring", 0, 0)
    candidates = min(CANDIDATES, len(dataset.catalogue))
    model = _model(dataset, split.train, ranker, candidates)
    measured = metrics.measure(model, split)
    known = split.train if keep_held_out else dataset.choices
    if not keep_held_out:
        model = _model(dataset, known, ranker, candidates)
    return Trained(
        dataset,
        known,
        model,
        factors.trending(dataset, known),
        measured,
        min(len(split.users), metrics.MAX_MEASURED),
        len(lists),
        losses[-1],
        time.perf_counter() - started,
    )


def _model(dataset: Dataset, choices: Choices, ranker: network.Network, candidates: int) -> Model:
    table = factors.fit(dataset, choices)
    users = tower.users_of(tower.full_windows(choices, factors.all_users(choices)), table)
    return Model(table, tower.Retrieval.fitted(users, table), ranker, candidates)
