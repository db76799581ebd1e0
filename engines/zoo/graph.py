"""Small helpers to write an ONNX graph by hand: recipes convert checkpoints with numpy and these, without PyTorch."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.base import Array

#: Opset and IR versions that ONNX Runtime 1.31 and TensorRT 10 both read.
OPSET: Final = 17
IR_VERSION: Final = 9


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Inference-time batch normalisation over channels: four vectors of one length."""

    weight: Array
    bias: Array
    mean: Array
    variance: Array
    epsilon: float


@dataclass(frozen=True, slots=True)
class Convolution:
    """A 2-D convolution: `weight` is [out, in / groups, k, k]; 'same' padding as TensorFlow computes it."""

    weight: Array
    norm: BatchNorm
    stride: int = 1
    groups: int = 1


def fold(weight: Array, norm: BatchNorm) -> tuple[Array, Array]:
    """Weight and bias of the convolution that does the batch norm's work too (float64 inside, float32 out)."""
    scale = norm.weight.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    folded = weight.astype(np.float64) * scale.reshape(-1, 1, 1, 1)
    bias = norm.bias.astype(np.float64) - norm.mean.astype(np.float64) * scale
    return folded.astype(np.float32), bias.astype(np.float32)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after an axis of `size`, as TensorFlow pads: the odd pixel goes behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(slots=True)
class Graph:
    """A graph under construction. Methods append nodes and return the name of the tensor they produce."""

    name: str
    _nodes: list[onnx.NodeProto] = field(default_factory=list)
    _constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: Array) -> str:
        """Store `value` in the file under `name`."""
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append one node with one output."""
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, x: str, output: str, conv: Convolution, size: int) -> tuple[str, int]:
        """A convolution with its batch norm folded in, on a square image of `size`; returns its name and its size."""
        kernel = conv.weight.shape[-1]
        before, after = same_padding(size, kernel, conv.stride)
        weight, bias = fold(conv.weight, conv.norm)
        inputs = [x, self.constant(f"{output}.weight", weight), self.constant(f"{output}.bias", bias)]
        self.node(
            "Conv",
            inputs,
            output,
            kernel_shape=[kernel, kernel],
            strides=[conv.stride, conv.stride],
            pads=[before, before, after, after],
            group=conv.groups,
        )
        return output, -(-size // conv.stride)

    def relu6(self, x: str) -> str:
        """Clip to 0..6."""
        if not any(constant.name == "relu6.low" for constant in self._constants):
            self.constant("relu6.low", np.array(0.0, np.float32))
            self.constant("relu6.high", np.array(6.0, np.float32))
        return self.node("Clip", [x, "relu6.low", "relu6.high"], f"{x}.relu6")

    def to_bytes(
        self,
        inputs: dict[str, list[int | str]],
        outputs: dict[str, list[int | str]],
        integers: frozenset[str] = frozenset(),
    ) -> bytes:
        """The checked model file. Shapes are those of float32 tensors, and int64 ones where `integers` names them.

        A string names a symbolic dimension.
        """

        def info(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
            kind = TensorProto.INT64 if name in integers else TensorProto.FLOAT
            return helper.make_tensor_value_info(name, kind, shape)

        graph = helper.make_graph(
            self._nodes,
            self.name,
            [info(name, shape) for name, shape in inputs.items()],
            [info(name, shape) for name, shape in outputs.items()],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="headrace")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data
