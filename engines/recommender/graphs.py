"""The recommender as two ONNX files: histories to users and scores of all items; pairs of user and item to scores.

    retrieval   history INT64 [rows, 100], latest first, -1 where it is over
                -> user FP32 [rows, width], scores FP32 [rows, items], similar FP32 [rows, items]
    ranking     user FP32 [rows, width], item INT64 [rows, 1]  ->  score FP32 [rows, 1], 0..1

`similar` compares every item with the latest of the history. Numbers of items are those of the catalogue's lines.
"""

from typing import Any, Final

import numpy as np

from engines.recommender import pairs, tower
from engines.recommender.dataset import Floats
from engines.recommender.factors import ItemTable
from engines.recommender.metrics import Model
from engines.recommender.network import CLIP, Network
from engines.recommender.tower import Layout
from engines.zoo.graph import Graph

#: Tensors of the files, by which services and Open Inference callers know them.
HISTORY: Final = "history"
USER: Final = "user"
SCORES: Final = "scores"
SIMILAR: Final = "similar"
ITEM: Final = "item"
SCORE: Final = "score"


class _Graph(Graph):
    """A graph whose constants may be Python's own numbers."""

    def floats(self, name: str, value: Any) -> str:
        return self.constant(name, np.asarray(value, np.float32, order="C"))

    def ints(self, name: str, value: Any) -> str:
        return self.constant(name, np.asarray(value, np.int64, order="C"))

    def columns(self, source: str, places: Any, output: str) -> str:
        """Pick columns of a matrix."""
        return self.node("Gather", [source, self.ints(f"{output}.places", places)], output, axis=1)


def retrieval(model: Model) -> bytes:
    """The retrieval file, see above: `tower.users_of` and `Retrieval.scores` in float32."""
    graph, table, layout = _Graph("retrieval"), model.table, Layout.of(model.table)
    items, width = len(table), layout.width
    known = graph.node("GreaterOrEqual", [HISTORY, graph.ints("zero", 0)], "known")
    below = graph.node("Less", [HISTORY, graph.ints("items", items)], "below")
    inside = graph.node("And", [known, below], "inside")
    # A row of zeros behind the last item stands for what is not there.
    places = graph.node("Where", [inside, HISTORY, "items"], "places")
    rows, spaces = _history_rows(table)
    vectors = graph.node("Gather", [graph.floats("vectors", rows), places], "history.vectors", axis=0)
    half_lives = list(dict.fromkeys([*(block.half_life for block, _ in layout.blocks), tower.PROFILE_HALF_LIFE]))
    weights = graph.floats("weights", np.stack([tower.decay(half_life) for half_life in half_lives]))
    sums = graph.node("MatMul", [weights, vectors], "sums")
    flat = graph.node("Flatten", [sums], "sums.flat", axis=1)
    stride = rows.shape[1]

    def at(half_life: float, space: str) -> list[int]:
        begin = half_lives.index(half_life) * stride
        return [begin + place for place in range(spaces[space].start, spaces[space].stop)]

    blocks = graph.columns(flat, np.concatenate([at(b.half_life, b.space) for b, _ in layout.blocks]), "blocks")
    totals = graph.columns(flat, at(tower.PROFILE_HALF_LIFE, "numbers"), "totals")
    weight = graph.columns(flat, at(tower.PROFILE_HALF_LIFE, "one"), "weight")
    means = graph.node(
        "Div", [totals, graph.node("Max", [weight, graph.floats("tiny", 1e-9)], "weight.positive")], "means"
    )
    count = graph.columns(flat, at(np.inf, "one"), "count")
    length = graph.node("Log", [graph.node("Add", [count, graph.floats("one", 1.0)], "count.more")], "length")
    graph.node("Concat", [blocks, means, length], USER, axis=1)
    queried = np.concatenate([np.arange(width)[layout.place(name)] for name, _ in tower.RETRIEVAL])
    query = graph.columns(USER, queried, "query")
    graph.node("MatMul", [query, graph.floats("queried", model.retrieval.items(table).T)], SCORES)
    _similar(graph, table)
    outputs: dict[str, list[int | str]] = {USER: ["rows", width], SCORES: ["rows", items], SIMILAR: ["rows", items]}
    return graph.to_bytes({HISTORY: ["rows", tower.LENGTH]}, outputs, frozenset([HISTORY]))


def ranking(model: Model) -> bytes:
    """The ranking file, see above: `pairs.features` and `Network.logits` in float32, then a sigmoid."""
    graph, table, layout = _Graph("ranking"), model.table, Layout.of(model.table)
    flat = graph.node("Reshape", [ITEM, graph.ints("flat", [-1])], "item.flat")
    rows, spaces = _item_rows(table)
    found = graph.node("Gather", [graph.floats("vectors", rows), flat], "item.row", axis=0)
    against = np.concatenate([np.arange(spaces[b.against].start, spaces[b.against].stop) for b, _ in layout.blocks])
    theirs = graph.columns(found, against, "item.blocks")
    own = graph.columns(USER, np.arange(layout.means.start), "user.blocks")
    members = np.zeros((layout.means.start, len(layout.blocks)))
    for index, (_, place) in enumerate(layout.blocks):
        members[place, index] = 1.0
    adding = graph.floats("members", members)

    def summed(a: str, b: str, name: str) -> str:
        return graph.node("MatMul", [graph.node("Mul", [a, b], f"{name}.products"), adding], name)

    dots = summed(own, theirs, "dots")
    lengths = [graph.node("Sqrt", [summed(x, x, f"{x}.squares")], f"{x}.length") for x in (own, theirs)]
    product = graph.node(
        "Add", [graph.node("Mul", lengths, "lengths"), graph.floats("epsilon", pairs.EPSILON)], "length"
    )
    cosines = graph.node("Div", [dots, product], "cosines")
    numbers = graph.columns(found, np.arange(spaces["numbers"].start, spaces["numbers"].stop), "item.numbers")
    means = graph.columns(USER, np.arange(layout.means.start, layout.means.stop), "user.means")
    apart = graph.node("Sub", [numbers, means], "apart")
    length = graph.columns(USER, [layout.width - 1], "user.length")
    features = graph.node("Concat", [dots, cosines, numbers, apart, length], "features", axis=1)
    _perceptron(graph, model.network, features)
    inputs: dict[str, list[int | str]] = {USER: ["rows", layout.width], ITEM: ["rows", 1]}
    return graph.to_bytes(inputs, {SCORE: ["rows", 1]}, frozenset([ITEM]))


def _perceptron(graph: _Graph, network: Network, features: str) -> None:
    centred = graph.node("Sub", [features, graph.floats("mean", network.mean)], "centred")
    scaled = graph.node("Div", [centred, graph.floats("deviation", network.deviation)], "scaled")
    x = graph.node("Clip", [scaled, graph.floats("low", -CLIP), graph.floats("high", CLIP)], "clipped")
    last = len(network.layers) - 1
    for index, (weight, bias) in enumerate(network.layers):
        parts = [graph.floats(f"layer{index}.weight", weight), graph.floats(f"layer{index}.bias", bias)]
        x = graph.node("Gemm", [x, *parts], f"layer{index}")
        x = graph.node("Relu", [x], f"layer{index}.relu") if index < last else x
    graph.node("Sigmoid", [graph.node("Sub", [x, graph.floats("middle", network.middle)], "logit")], SCORE)


def _similar(graph: _Graph, table: ItemTable) -> None:
    """The mean of two cosines: who chose both, and what was chosen around both."""
    order = np.concatenate([table.earlier, table.later], axis=1)
    units = np.concatenate([_unit(table.taste), _unit(order)], axis=1) * np.sqrt(0.5)
    padded = graph.floats("units", np.concatenate([units, np.zeros((1, units.shape[1]))]))
    latest = graph.node("Gather", ["places", graph.ints("latest", 0)], "latest.place", axis=1)
    one = graph.node("Gather", [padded, latest], "latest.unit", axis=0)
    graph.node("MatMul", [one, graph.floats("units.transposed", units.T)], SIMILAR)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _history_rows(table: ItemTable) -> tuple[Any, dict[str, slice]]:
    """What a history is summed over [items + 1, columns], a row of zeros last, and where each part lies."""
    rows, spaces = _item_rows(table, one=True)
    return np.concatenate([rows, np.zeros((1, rows.shape[1]))]), spaces


def _item_rows(table: ItemTable, *, one: bool = False) -> tuple[Any, dict[str, slice]]:
    parts = {name: table.space(name) for name in ("taste", "earlier", "later", "genres", "numbers")}
    if one:
        parts["one"] = np.ones((len(table), 1))
    spaces, place = {}, 0
    for name, part in parts.items():
        spaces[name] = slice(place, place + part.shape[1])
        place += part.shape[1]
    return np.concatenate(list(parts.values()), axis=1), spaces
