"""A BERT encoder as an ONNX graph, from a checkpoint in the names of Hugging Face: token ids in, hidden states out.

Architecture: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (2018), post-norm, exact GELU. The
operators are those that ONNX Runtime fuses (bias and GELU, scale and product) and that TensorRT knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import TensorProto

from engines.base import Array
from engines.zoo.errors import CheckpointError
from engines.zoo.graph import Graph

IDS: Final = "input_ids"
MASK: Final = "attention_mask"
#: Added to the attention scores of padding: its softmax is then exactly 0 in float32.
_HIDDEN: Final = -10000.0


@dataclass(frozen=True, slots=True)
class BertShape:
    """`layers` blocks of `heads` attention heads; widths are read from the weights. `epsilon`: of layer norms."""

    layers: int
    heads: int
    epsilon: float = 1e-12


class Bert:
    """Writes the encoder into `graph`, whose inputs are IDS and MASK, INT64 [batch, tokens].

    All tokens are of type 0. Raises CheckpointError when a tensor is missing.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Array], shape: BertShape) -> None:
        self._graph, self._weights, self._shape = graph, weights, shape
        self.width = self._weight("embeddings.LayerNorm.weight").shape[0]

    def hidden_states(self) -> str:
        """Write the whole encoder; returns its output, float32 [batch, tokens, width]."""
        self._constants()
        bias = self._attention_bias()
        x = self._embedded()
        for index in range(self._shape.layers):
            x = self._block(x, bias, f"encoder.layer.{index}", f"layer{index}")
        return x

    def mean(self, x: str, output: str) -> str:
        """The mean of the hidden states over the mask, scaled to length 1: [batch, width]; zeros without tokens."""
        graph = self._graph
        mask = graph.node("Cast", [MASK], "mask", to=TensorProto.FLOAT)
        masked = graph.node("Mul", [x, graph.node("Unsqueeze", [mask, "axis.2"], "mask.column")], "masked")
        total = graph.node("ReduceSum", [masked, "axis.1"], "total", keepdims=0)
        count = graph.node("ReduceSum", [mask, "axis.1"], "count", keepdims=1)
        mean = graph.node("Div", [total, graph.node("Max", [count, "one"], "count.least")], "mean")
        length = graph.node("ReduceL2", [mean], "length", axes=[-1], keepdims=1)
        graph.constant("length.least", np.array(1e-12, np.float32))
        return graph.node("Div", [mean, graph.node("Max", [length, "length.least"], "length.safe")], output)

    def _constants(self) -> None:
        heads, width = self._shape.heads, self.width
        for axis in (0, 1, 2):
            self._graph.constant(f"axis.{axis}", np.array([axis], np.int64))
        for name, value in (("one", 1.0), ("half", 0.5), ("root", 2.0**0.5), ("hidden", _HIDDEN)):
            self._graph.constant(name, np.array(value, np.float32))
        self._graph.constant("scale", np.array((width // heads) ** 0.5, np.float32))
        self._graph.constant("by_head", np.array([0, 0, heads, width // heads], np.int64))
        self._graph.constant("by_token", np.array([0, 0, width], np.int64))

    def _attention_bias(self) -> str:
        """[batch, 1, 1, tokens]: 0 for tokens, a large negative number for padding."""
        graph = self._graph
        rows = graph.node("Unsqueeze", [MASK, "axis.1"], "mask.rows")
        wide = graph.node(
            "Cast", [graph.node("Unsqueeze", [rows, "axis.2"], "mask.wide")], "kept", to=TensorProto.FLOAT
        )
        return graph.node("Mul", [graph.node("Sub", ["one", wide], "dropped"), "hidden"], "attention_bias")

    def _embedded(self) -> str:
        graph = self._graph
        words = graph.constant("words", self._weight("embeddings.word_embeddings.weight"))
        types = self._weight("embeddings.token_type_embeddings.weight")
        places = graph.constant("places", self._weight("embeddings.position_embeddings.weight") + types[0])
        looked_up = graph.node("Gather", [words, IDS], "looked_up")
        size = graph.node("Slice", [graph.node("Shape", [IDS], "shape"), "axis.1", "axis.2"], "tokens")
        placed = graph.node("Slice", [places, "axis.0", size, "axis.0"], "placed")
        return self._norm(graph.node("Add", [looked_up, placed], "embedded"), "embeddings.LayerNorm", "embeddings")

    def _block(self, x: str, bias: str, source: str, name: str) -> str:
        """Self-attention and a feed-forward network, each added to its input and normalised."""
        graph = self._graph
        attended = self._attention(x, bias, f"{source}.attention.self", f"{name}.attention")
        attended = self._linear(attended, f"{source}.attention.output.dense", f"{name}.attended")
        added = graph.node("Add", [attended, x], f"{name}.add1")
        x = self._norm(added, f"{source}.attention.output.LayerNorm", f"{name}.norm1")
        inner = self._gelu(self._linear(x, f"{source}.intermediate.dense", f"{name}.inner"))
        outer = self._linear(inner, f"{source}.output.dense", f"{name}.outer")
        added = graph.node("Add", [outer, x], f"{name}.add2")
        return self._norm(added, f"{source}.output.LayerNorm", f"{name}.norm2")

    def _attention(self, x: str, bias: str, source: str, name: str) -> str:
        graph = self._graph
        orders = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
        heads = {}
        for part, order in orders.items():
            linear = self._linear(x, f"{source}.{part}", f"{name}.{part}")
            split = graph.node("Reshape", [linear, "by_head"], f"{name}.{part}.split")
            heads[part] = graph.node("Transpose", [split], f"{name}.{part}.heads", perm=order)
        products = graph.node("MatMul", [heads["query"], heads["key"]], f"{name}.products")
        scaled = graph.node("Div", [products, "scale"], f"{name}.scaled")
        shares = graph.node("Softmax", [graph.node("Add", [scaled, bias], f"{name}.biased")], f"{name}.shares", axis=-1)
        mixed = graph.node("MatMul", [shares, heads["value"]], f"{name}.mixed")
        mixed = graph.node("Transpose", [mixed], f"{name}.mixed.tokens", perm=[0, 2, 1, 3])
        return graph.node("Reshape", [mixed, "by_token"], f"{name}.context")

    def _linear(self, x: str, source: str, name: str) -> str:
        weight = self._graph.constant(f"{name}.weight", np.ascontiguousarray(self._weight(f"{source}.weight").T))
        product = self._graph.node("MatMul", [x, weight], f"{name}.product")
        bias = self._graph.constant(f"{name}.bias", self._weight(f"{source}.bias"))
        return self._graph.node("Add", [product, bias], name)

    def _gelu(self, x: str) -> str:
        """x * (1 + erf(x / sqrt 2)) / 2, written as the runtime recognises it."""
        graph = self._graph
        erf = graph.node("Erf", [graph.node("Div", [x, "root"], f"{x}.root")], f"{x}.erf")
        doubled = graph.node("Mul", [x, graph.node("Add", [erf, "one"], f"{x}.raised")], f"{x}.doubled")
        return graph.node("Mul", [doubled, "half"], f"{x}.gelu")

    def _norm(self, x: str, source: str, name: str) -> str:
        weight = self._graph.constant(f"{name}.weight", self._weight(f"{source}.weight"))
        bias = self._graph.constant(f"{name}.bias", self._weight(f"{source}.bias"))
        epsilon = self._shape.epsilon
        return self._graph.node("LayerNormalization", [x, weight, bias], name, axis=-1, epsilon=epsilon)

    def _weight(self, name: str) -> Array:
        try:
            return self._weights[name].astype(np.float32, copy=False)
        except KeyError:
            raise CheckpointError(f"BERT weights: tensor '{name}' is missing") from None
