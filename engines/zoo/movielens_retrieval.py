"""The retrieval half of `movielens`: from what somebody has seen to scores of all films."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from engines.base import Tensors
from engines.recommender import folders
from engines.recommender.tower import LENGTH
from engines.zoo import movielens
from engines.zoo.recipe import Fixture, Recipe, Step


def build(files: Mapping[str, bytes], step: Step) -> Mapping[str, bytes]:
    """Train on the ratings and write the retrieval model."""
    return folders.retrieval_files(movielens.trained(files, step))


def _inputs() -> Tensors:
    """Three histories: a long one, one of three films, and none."""
    history = np.random.default_rng(0).integers(0, 1682, (3, LENGTH))
    history[1, 3:] = history[2] = -1
    return {"history": history}


RECIPE: Final = Recipe(
    name="movielens_retrieval",
    revision=1,
    summary="finds candidates for movielens: from a history to scores of all films",
    licence=movielens.LICENCE,
    wheels=(movielens.WHEEL,),
    build=build,
    fixture=Fixture("movielens_retrieval.npz", _inputs, tolerance=1e-3),
    notice=movielens.NOTICE,
)
