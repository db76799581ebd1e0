"""From a history to the vectors that stand for its user; in numpy here, as an ONNX graph in `graphs.py`.

A user is a row of `Layout.width` numbers: for each block, the sum of a space's vectors over the history, where a choice
weighs half as much as one `half_life` choices later; then the means of the items' numbers, and how long the history is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp

from engines.recommender.dataset import Choices, Floats, Ints
from engines.recommender.factors import ItemTable, rounded

#: How many choices of a history are looked at, the latest ones.
LENGTH: Final = 100
#: Means and genres of a history are taken with this half-life.
PROFILE_HALF_LIFE: Final = 15.0
_PER_CHUNK: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Block:
    """A sum of the vectors `space` over a history, and the space of a candidate's vector that it meets."""

    name: str
    space: str
    half_life: float
    against: str


BLOCKS: Final = (
    Block("all taste", "taste", np.inf, "taste"),
    Block("long taste", "taste", 30.0, "taste"),
    Block("short taste", "taste", 3.0, "taste"),
    Block("next after the last", "earlier", 1.0, "later"),
    Block("next after the last few", "earlier", 4.0, "later"),
    Block("next after many", "earlier", 15.0, "later"),
    Block("same neighbours", "later", 4.0, "earlier"),
    Block("genres", "genres", PROFILE_HALF_LIFE, "genres"),
)
#: The blocks whose dot products retrieval adds up, with the weight of each in standard deviations.
RETRIEVAL: Final = (("long taste", 1.0), ("next after the last few", 2.0))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in a user's row: the slice of each block, then of `means`; the last number is the length."""

    blocks: tuple[tuple[Block, slice], ...]
    means: slice

    @classmethod
    def of(cls, table: ItemTable) -> "Layout":
        """The layout for an item table; blocks without columns are left out."""
        found, place = [], 0
        for block in BLOCKS:
            width = table.space(block.space).shape[1]
            if width:
                found.append((block, slice(place, place + width)))
                place += width
        return cls(tuple(found), slice(place, place + len(table.names)))

    @property
    def width(self) -> int:
        """Numbers in a user's row."""
        return int(self.means.stop) + 1

    def place(self, name: str) -> slice:
        """Where a block lies."""
        return next(place for block, place in self.blocks if block.name == name)


def windows(choices: Choices, users: Ints, ends: Ints) -> Ints:
    """Histories [n, LENGTH]: items of `users` before the places `ends` [n] in `choices`, latest first, then -1."""
    places = ends[:, None] - 1 - np.arange(LENGTH)
    inside = places >= choices.starts[users][:, None]
    return np.where(inside, choices.items[np.maximum(places, 0)], -1) if len(choices) else np.full(places.shape, -1)


def full_windows(choices: Choices, users: Ints) -> Ints:
    """Histories of all that these users chose."""
    return windows(choices, users, choices.starts[users + 1])


def users_of(histories: Ints, table: ItemTable) -> Floats:
    """The users' rows [n, width] for histories [n, LENGTH]."""
    layout = Layout.of(table)
    found = np.zeros((len(histories), layout.width))
    weights: dict[float, sp.csr_matrix] = {}
    for block, place in layout.blocks:
        if block.half_life not in weights:
            weights[block.half_life] = _weights(histories, block.half_life, len(table))
        found[:, place] = weights[block.half_life] @ table.space(block.space)
    profile = _weights(histories, PROFILE_HALF_LIFE, len(table))
    total = np.asarray(profile.sum(axis=1)).reshape(-1, 1)
    found[:, layout.means] = (profile @ table.numbers) / np.maximum(total, 1e-9)
    found[:, -1] = np.log1p((histories >= 0).sum(axis=1))
    return found


def decay(half_life: float) -> Floats:
    """The weight of each place of a history [LENGTH], latest first."""
    return np.asarray(rounded(0.5 ** (np.arange(LENGTH) / half_life)))


def _weights(histories: Ints, half_life: float, items: int) -> sp.csr_matrix:
    rows, places = np.nonzero(histories >= 0)
    columns = histories[rows, places]
    return sp.csr_matrix((decay(half_life)[places], (rows, columns)), (len(histories), items))


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Scores every item for a user by dot products: `scale` holds one factor for each block of RETRIEVAL."""

    scale: tuple[float, ...]

    @classmethod
    def fitted(cls, users: Floats, table: ItemTable) -> "Retrieval":
        """Blocks scaled to one standard deviation over these users and all items, times their weight."""
        layout, scale = Layout.of(table), []
        for name, weight in RETRIEVAL:
            vectors = table.space(_against(name))
            spread = float(np.std(users[:1000, layout.place(name)] @ vectors.T))
            scale.append(float(np.float32(weight / max(spread, 1e-9))))
        return cls(tuple(scale))

    def items(self, table: ItemTable) -> Floats:
        """The items' vectors [items, width] that a query meets."""
        parts = [table.space(_against(name)) * scale for (name, _), scale in zip(RETRIEVAL, self.scale, strict=True)]
        return rounded(np.concatenate(parts, axis=1))

    def scores(self, users: Floats, table: ItemTable) -> Floats:
        """[n, items] for users' rows [n, width]."""
        layout = Layout.of(table)
        queries = np.concatenate([users[:, layout.place(name)] for name, _ in RETRIEVAL], axis=1)
        return np.asarray(queries @ self.items(table).T)


def _against(name: str) -> str:
    return next(block.against for block in BLOCKS if block.name == name)


def chunks(count: int, width: int) -> list[slice]:
    """Cut `count` rows of `width` numbers into pieces that fit into memory."""
    step = max(1, min(512, _PER_CHUNK // max(width, 1)))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
