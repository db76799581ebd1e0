"""double: y = 2x. The smallest model there is, for checks and for measuring everything but the engine."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from engines.base import Tensors
from engines.zoo.graph import Graph
from engines.zoo.recipe import Fixture, Recipe, Step


def build(_files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
    """The model's folder; it needs nothing fetched."""
    graph = Graph("double")
    graph.node("Mul", ["x", graph.constant("two", np.array(2.0, np.float32))], "y")
    network = graph.to_bytes({"x": ["batch", 16]}, {"y": ["batch", 16]})
    return {"1/model.onnx": network}


def _inputs() -> Tensors:
    return {"x": np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)}


RECIPE: Final = Recipe(
    name="double",
    revision=2,
    summary="y = 2x, for checks and measurements",
    licence="Apache-2.0",
    wheels=(),
    build=build,
    fixture=Fixture("double.npz", _inputs, tolerance=0.0),
)
