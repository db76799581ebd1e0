"""Features of a user and a candidate item, which the ranking network reads; the same graph is in `graphs.py`.

As in DLRM (Naumov et al., 2019), vectors meet in dot products, and numbers stand beside them. Dot products and
cosines alone do not depend on how a decomposition turned its axes: so one network can learn from several of them.
"""

from typing import Final

import numpy as np

from engines.recommender.dataset import Floats, Ints
from engines.recommender.factors import ItemTable
from engines.recommender.tower import Layout

#: Keeps the cosine of a vector of zeros finite.
EPSILON: Final = 1e-6


def count(table: ItemTable) -> int:
    """How many features a pair has."""
    return 2 * len(Layout.of(table).blocks) + 2 * len(table.names) + 1


def features(users: Floats, table: ItemTable, candidates: Ints) -> Floats:
    """[n, m, features] for users' rows [n, width] and candidates [n, m]: per block its dot product and cosine, then
    the item's numbers, their difference from the history's means, and the history's length.
    """
    layout, (rows, columns) = Layout.of(table), candidates.shape
    blocks, numbers = len(layout.blocks), len(table.names)
    found = np.empty((rows, columns, count(table)))
    for index, (block, place) in enumerate(layout.blocks):
        vectors = table.space(block.against)
        user, items = users[:, place], vectors[candidates]
        dots = np.matmul(items, user[:, :, None])[:, :, 0]
        lengths = np.sqrt((vectors**2).sum(axis=1))[candidates] * np.sqrt((user**2).sum(axis=1))[:, None]
        found[:, :, index] = dots
        found[:, :, blocks + index] = dots / (lengths + EPSILON)
    of_items = table.numbers[candidates]
    found[:, :, 2 * blocks : 2 * blocks + numbers] = of_items
    found[:, :, 2 * blocks + numbers : -1] = of_items - users[:, None, layout.means]
    found[:, :, -1] = users[:, -1][:, None]
    return found
