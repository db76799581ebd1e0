"""How good a recommender is: each held-out item among the whole catalogue, less what its user had chosen before."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.recommender import pairs, tower
from engines.recommender.dataset import Choices, Floats, Ints
from engines.recommender.factors import ItemTable
from engines.recommender.network import Network
from engines.recommender.split import Split
from engines.recommender.tower import Layout, Retrieval

TOP: Final = 10
#: Users measured at most, the same at each run.
MAX_MEASURED: Final = 5_000
#: Of many users' rows at a time; features of a whole catalogue are wide.
_PER_CHUNK: Final = 400_000


@dataclass(frozen=True, slots=True)
class Metric:
    """What share of held-out items is among the first 10, how high it stands there, and among the candidates."""

    name: str
    recall: float
    ndcg: float
    retrieved: float


@dataclass(frozen=True, slots=True)
class Model:
    """All that scoring takes. `candidates`: how many items retrieval hands to the network."""

    table: ItemTable
    retrieval: Retrieval
    network: Network
    candidates: int


def measure(model: Model, split: Split) -> tuple[Metric, ...]:
    """Popularity, factors alone, retrieval alone, and the whole model, worst first."""
    chosen = np.arange(len(split.users))
    if len(chosen) > MAX_MEASURED:
        chosen = np.sort(np.random.default_rng(0).permutation(len(chosen))[:MAX_MEASURED])
    ranks: dict[str, list[Ints]] = {}
    for part in tower.chunks(len(chosen), len(model.table)):
        picked = chosen[part]
        for name, found in _ranks(model, split, picked).items():
            ranks.setdefault(name, []).append(found)
    return tuple(_metric(name, np.concatenate(found), model.candidates) for name, found in ranks.items())


def recall_and_ndcg(ranks: Ints, top: int = TOP) -> tuple[float, float]:
    """Of one relevant item each, at places `ranks` [n] counted from 0: recall@top, NDCG@top."""
    hit = ranks < top
    gains = np.where(hit, 1.0 / np.log2(ranks + 2.0), 0.0)
    return float(hit.mean()), float(gains.mean())


def rank_of(scores: Floats, targets: Ints) -> Ints:
    """The places of `targets` [n] by `scores` [n, items], counted from 0; of equals the lower item comes first."""
    own = scores[np.arange(len(targets)), targets][:, None]
    before = np.arange(scores.shape[1]) < targets[:, None]
    return np.asarray((scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1))


def _metric(name: str, ranks: Ints, candidates: int) -> Metric:
    recall, ndcg = recall_and_ndcg(ranks)
    return Metric(name, recall, ndcg, float((ranks < candidates).mean()))


def _ranks(model: Model, split: Split, picked: Ints) -> dict[str, Ints]:
    users, targets = split.users[picked], split.targets[picked]
    rows = tower.users_of(tower.full_windows(split.train, users), model.table)
    seen = _seen(split.train, users, len(model.table))
    layout, table = Layout.of(model.table), model.table
    taste = rows[:, layout.place("all taste")] @ table.taste.T
    retrieved = np.where(seen, -np.inf, model.retrieval.scores(rows, table))
    scores = {
        "popularity": np.where(seen, -np.inf, table.numbers[:, 0]),
        "user and item factors": np.where(seen, -np.inf, taste),
        "retrieval (factors, order of choices)": retrieved,
        "retrieval, then ranking network": _ranked(model, rows, retrieved),
    }
    return {name: rank_of(values, targets) for name, values in scores.items()}


def _ranked(model: Model, rows: Floats, retrieved: Floats) -> Floats:
    """[n, items]: what the network says of the retrieved, above the rest, which keep retrieval's order."""
    found = retrieved - 1e6
    count = min(model.candidates, retrieved.shape[1])
    best = np.argsort(-retrieved, axis=1, kind="stable")[:, :count]
    step = max(1, _PER_CHUNK // count)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        logits = model.network.logits(pairs.features(rows[part], model.table, best[part]))
        open_ = np.take_along_axis(retrieved[part], best[part], axis=1) > -np.inf
        np.put_along_axis(found[part], best[part], np.where(open_, logits, -np.inf), axis=1)
    return found


def _seen(choices: Choices, users: Ints, items: int) -> npt.NDArray[np.bool_]:
    found = np.zeros((len(users), items), bool)
    for row, user in enumerate(users):
        found[row, choices.of(int(user))] = True
    return found
