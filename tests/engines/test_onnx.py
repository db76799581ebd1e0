from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from engines.base import EngineError, EngineLoadError, TensorSpec
from engines.onnx import OnnxEngine

ModelWriter = Callable[..., Path]


def test_the_signature_is_the_files(double_model: ModelWriter, tmp_path: Path) -> None:
    engine = OnnxEngine(double_model(tmp_path / "m.onnx", ["batch", 4]))
    assert engine.signature.inputs == (TensorSpec("x", "FP32", ("batch", 4)),)
    assert engine.signature.outputs == (TensorSpec("y", "FP32", ("batch", 4)),)
    assert engine.signature.batchable


@pytest.mark.parametrize(
    ("dims", "out_dims", "batchable"),
    [
        (["n", 4], ["n", 4], True),
        ([None, 4], [None, 4], True),
        (["n", 4], ["lost_name", 4], True),
        (["n", "length"], [None, None], True),
        ([1, 4], [1, 4], False),
        ([2, 4], [2, 4], False),
        ([], [], False),
    ],
)
def test_models_with_a_batch_axis_are_told_from_others(
    double_model: ModelWriter,
    tmp_path: Path,
    dims: list[int | str | None],
    out_dims: list[int | str | None],
    batchable: bool,
) -> None:
    engine = OnnxEngine(double_model(tmp_path / "m.onnx", dims, out_dims))
    assert engine.signature.batchable is batchable
    engine.warm_up()
    if batchable:
        assert engine.signature.inputs[0].shape[0] == engine.signature.outputs[0].shape[0]


def test_an_open_output_that_does_not_follow_the_rows_is_no_batch_axis(
    total_model: ModelWriter, tmp_path: Path
) -> None:
    assert not OnnxEngine(total_model(tmp_path / "m.onnx")).signature.batchable


def test_unnamed_dimensions_get_names(double_model: ModelWriter, tmp_path: Path) -> None:
    engine = OnnxEngine(double_model(tmp_path / "m.onnx", [None, None, 3]))
    assert engine.signature.inputs[0].shape == ("rows", "x.1", 3)


@pytest.mark.parametrize(
    ("dims", "out_dims"), [(["batch", 4], ["batch", 5]), (["batch", 4], ["batch", 4, 1]), ([2, 4], [3, 4])]
)
def test_a_file_whose_shapes_contradict_its_graph_is_refused(
    double_model: ModelWriter, tmp_path: Path, dims: list[int | str | None], out_dims: list[int | str | None]
) -> None:
    with pytest.raises(EngineLoadError, match=r"declared"):
        OnnxEngine(double_model(tmp_path / "m.onnx", dims, out_dims))


@pytest.mark.parametrize(("dims", "out_dims"), [(["batch", 4], [7, 4]), (["batch", "width"], ["batch", 5])])
def test_a_file_whose_shapes_prove_wrong_fails_its_warm_up(
    double_model: ModelWriter, tmp_path: Path, dims: list[int | str | None], out_dims: list[int | str | None]
) -> None:
    engine = OnnxEngine(double_model(tmp_path / "m.onnx", dims, out_dims))
    with pytest.raises(EngineError, match="'y' has shape"):
        engine.warm_up()


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match=r"no.onnx: there is no such file; put the model there"):
        OnnxEngine(tmp_path / "no.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09\x12"])
def test_a_corrupt_file_says_what_to_do_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineLoadError, match=r"bad.onnx: ONNX Runtime cannot load it .*; pull or export") as raised:
        OnnxEngine(path)
    assert "\n" not in str(raised.value)


def test_a_truncated_file_is_refused(double_model: ModelWriter, tmp_path: Path) -> None:
    path = double_model(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EngineLoadError, match="pull or export"):
        OnnxEngine(path)


def test_an_element_type_that_cannot_be_served_is_named(tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BFLOAT16, ["n"]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "m.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    with pytest.raises(EngineLoadError, match=r"'x' is of type tensor\(bfloat16\)"):
        OnnxEngine(path)


def test_strings_travel_as_bytes(text_model: ModelWriter, tmp_path: Path) -> None:
    engine = OnnxEngine(text_model(tmp_path / "m.onnx"))
    engine.warm_up()
    texts = np.array([["grüße".encode()], [b""]], object)
    np.testing.assert_array_equal(engine.run({"x": texts})["y"], texts)
    with pytest.raises(EngineError):
        engine.run({"x": np.array([[b"\xff"]], object)})


def test_a_closed_engine_raises(double_model: ModelWriter, tmp_path: Path) -> None:
    engine = OnnxEngine(double_model(tmp_path / "m.onnx"))
    engine.close()
    engine.close()
    with pytest.raises(EngineError):
        engine.run({"x": np.zeros((1, 4), np.float32)})


def test_the_runtime_writes_nothing_to_stderr(
    double_model: ModelWriter, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = OnnxEngine(double_model(tmp_path / "m.onnx", ["batch", "width"], ["batch", 5]))
    with pytest.raises(EngineError):
        engine.run({"x": np.zeros((1, 3, 1), np.float32)})
    engine.run({"x": np.zeros((1, 4), np.float32)})
    assert capfd.readouterr() == ("", "")


def test_a_twin_computes_beside_on_the_same_weights(double_model: ModelWriter, tmp_path: Path) -> None:
    engine = OnnxEngine(double_model(tmp_path / "m.onnx", ["batch", 4]))
    twin = engine.twin()
    assert twin is not None
    assert twin.signature == engine.signature
    given = np.arange(8, dtype=np.float32).reshape(2, 4)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda one: one.run({"x": given})["y"], [engine, twin] * 50))
    assert all((answer == 2 * given).all() for answer in answers)
    engine.close()
    np.testing.assert_array_equal(twin.run({"x": given})["y"], 2 * given)
    twin.close()
    with pytest.raises(EngineError):
        twin.run({"x": given})
    assert OnnxEngine(tmp_path / "m.onnx", threads=2).twin() is None
