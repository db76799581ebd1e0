"""Layers of transformers as ONNX nodes: a graph that names its tensors by itself."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from engines.base import Array
from engines.zoo.graph import Graph

#: Width of an attention head in every Whisper model.
HEAD: Final = 64


@dataclass(slots=True)
class LayerGraph(Graph):
    """A graph whose methods return the name of what they compute; d = model width, n = length, b = rows."""

    _made: int = 0
    _integers: dict[tuple[int, ...], str] = field(default_factory=dict)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        self._made += 1
        return self.node(operator, list(inputs), f"{operator.lower()}.{self._made}", **attributes)

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        """Cut `x` along `axis` into parts of these sizes."""
        self._made += 1
        parts = [f"split.{self._made}.{index}" for index in range(len(sizes))]
        self._nodes.append(helper.make_node("Split", [x, self.integers(*sizes)], parts, name=parts[0], axis=axis))
        return parts

    def lstm(self, inputs: list[str], width: int) -> list[str]:
        """A forward LSTM over the first axis: all outputs, the last output, the last cell; inputs as in ONNX."""
        self._made += 1
        made = [f"lstm.{self._made}.{part}" for part in ("all", "output", "cell")]
        self._nodes.append(helper.make_node("LSTM", inputs, made, name=made[0], hidden_size=width))
        return made

    def weight(self, value: Array, dtype: type = np.float32) -> str:
        """A constant tensor."""
        self._made += 1
        return self.constant(f"weight.{self._made}", np.ascontiguousarray(value, dtype))

    def scalar(self, value: float, dtype: type = np.float32) -> str:
        """A constant of no dimensions."""
        self._made += 1
        return self.constant(f"scalar.{self._made}", np.array(value, dtype))

    def integers(self, *values: int) -> str:
        """A constant int64 vector; equal ones are one tensor."""
        if values not in self._integers:
            self._made += 1
            self._integers[values] = self.constant(f"integers.{self._made}", np.array(values, np.int64))
        return self._integers[values]

    def size(self, x: str, axis: int) -> str:
        """The length of an axis, as a vector of one."""
        return self.add("Shape", x, start=axis, end=axis + 1)

    def linear(self, x: str, weight: Array, bias: Array | None = None) -> str:
        """`x` [..., in] by `weight` [out, in]."""
        product = self.add("MatMul", x, self.weight(weight.T))
        return product if bias is None else self.add("Add", product, self.weight(bias))

    def layer_norm(self, x: str, gamma: Array, beta: Array) -> str:
        """Normalised over the last axis, epsilon 1e-5."""
        return self.add("LayerNormalization", x, self.weight(gamma), self.weight(beta), axis=-1, epsilon=1e-5)

    def gelu(self, x: str) -> str:
        """The exact one, with the error function; ONNX Runtime computes these nodes as one."""
        erf = self.add("Erf", self.add("Div", x, self.scalar(float(np.sqrt(2.0)))))
        return self.add("Mul", self.add("Mul", x, self.add("Add", erf, self.scalar(1.0))), self.scalar(0.5))

    def heads(self, x: str, count: int) -> str:
        """[b, n, count * 64] as [b, count, n, 64]."""
        return self.add("Transpose", self.add("Reshape", x, self.integers(0, 0, count, HEAD)), perm=[0, 2, 1, 3])

    def joined(self, x: str, width: int) -> str:
        """[b, heads, n, 64] as [b, n, width]."""
        return self.add("Reshape", self.add("Transpose", x, perm=[0, 2, 1, 3]), self.integers(0, 0, width))


def detached(model: bytes, constant: str, file: str) -> tuple[bytes, bytes]:
    """The model file with one constant moved to `file` beside it, and that file.

    ONNX Runtime maps such a file: a table of which few rows are read takes hardly any memory.
    """
    proto = onnx.load_from_string(model)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == constant)
    data: bytes = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", "0"), ("length", str(len(data)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return proto.SerializeToString(deterministic=True), data
