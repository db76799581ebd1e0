"""Tiny ONNX models, made where they are used."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]
ModelWriter = Callable[..., Path]


def write_double(path: Path, dims: Dims = ("batch", 4), out_dims: Dims | None = None, fixed_out: int = 0) -> Path:
    """y = 2x; `out_dims` is what the file claims y's shape to be."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["y"])]
    return _write(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims if out_dims is None else out_dims)],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )


def write_total(path: Path) -> Path:
    """One number for the whole batch, with an output dimension that the file leaves open."""
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)]
    return _write(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["sums"])],
        [numpy_helper.from_array(np.array([0], np.int64), "axes")],
    )


def write_text(path: Path) -> Path:
    """Strings passed on."""
    return _write(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.STRING, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ["batch", 1])],
        [],
    )


def write_classifier(path: Path, classes: int = 3, open_classes: bool = False) -> Path:
    """Mean colour of [batch, 3, 8, 8] pictures times a matrix: `classes` scores."""
    weights = np.random.default_rng(0).standard_normal((3, classes)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
    ]
    shape = ["batch", "classes" if open_classes else classes]
    return _write(
        path,
        nodes,
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array([2, 3], np.int64), "axes"), numpy_helper.from_array(weights, "weights")],
    )


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> Path:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.fixture
def double_model() -> ModelWriter:
    return write_double


@pytest.fixture
def total_model() -> ModelWriter:
    return write_total


@pytest.fixture
def text_model() -> ModelWriter:
    return write_text


@pytest.fixture
def classifier_model() -> ModelWriter:
    return write_classifier
