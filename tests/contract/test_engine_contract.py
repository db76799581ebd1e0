"""What every engine promises, whatever computes: run on each backend with one model, y = 2x on FP32 [rows, 4]."""

import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import backends
from engines.base import DTYPES, Engine, EngineError, TensorSpec
from engines.batcher import Batcher, BatchLimits, Work
from engines.fake import FakeEngine
from engines.onnx import OnnxEngine
from engines.signatures import check_outputs, zeros

TENSORRT = "engines.tensorrt.runtime"


def _model(folder: Path) -> Path:
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy")
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    graph = helper.make_graph([node], "double", [x], [y], [two])
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def _fake(folder: Path) -> Engine:
    return FakeEngine()


def _onnx(folder: Path) -> Engine:
    return OnnxEngine(_model(folder))


def _tensorrt(folder: Path) -> Engine:
    if importlib.util.find_spec(TENSORRT) is None:
        pytest.skip("this installation has no TensorRT runtime")
    runtime = importlib.import_module(TENSORRT)
    model = _model(folder)
    obstacle = runtime.obstacle(model)
    if obstacle:
        pytest.skip(f"TensorRT cannot run here: {obstacle}")
    engine: Engine = runtime.open_engine(model)
    return engine


@pytest.fixture(
    params=[_fake, _onnx, pytest.param(_tensorrt, marks=pytest.mark.gpu)], ids=lambda make: make.__name__[1:]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    make: Callable[[Path], Engine] = request.param
    made = make(tmp_path)
    yield made
    made.close()


def rows(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(count).standard_normal((count, 4)).astype(np.float32)


def test_the_signature_names_the_tensors(engine: Engine) -> None:
    signature = engine.signature
    assert signature.batchable
    assert [(spec.name, spec.datatype, spec.shape[1:]) for spec in signature.inputs] == [("x", "FP32", (4,))]
    assert [(spec.name, spec.datatype, spec.shape[1:]) for spec in signature.outputs] == [("y", "FP32", (4,))]
    assert all(isinstance(spec.shape[0], str) for spec in (*signature.inputs, *signature.outputs))
    assert engine.signature == signature


def test_it_warms_up_and_runs_zeros(engine: Engine) -> None:
    engine.warm_up()
    check_outputs(engine.signature, engine.run(zeros(engine.signature, 3)), 3)


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_outputs_keep_the_order_of_the_rows(engine: Engine, count: int) -> None:
    engine.warm_up()
    outputs = engine.run({"x": rows(count)})
    assert list(outputs) == ["y"]
    np.testing.assert_allclose(outputs["y"], 2 * rows(count), rtol=1e-6)


def test_a_row_does_not_depend_on_its_batch(engine: Engine) -> None:
    engine.warm_up()
    batch = rows(8)
    together = engine.run({"x": batch})["y"].copy()
    alone = [engine.run({"x": batch[index : index + 1]})["y"].copy() for index in range(8)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-6)


def test_outputs_survive_the_next_run(engine: Engine) -> None:
    engine.warm_up()
    first = engine.run({"x": rows(4)})["y"]
    engine.run({"x": rows(4) + 1})
    np.testing.assert_allclose(first, 2 * rows(4), rtol=1e-6)


def test_inputs_are_left_as_they_were_and_may_be_read_only(engine: Engine) -> None:
    engine.warm_up()
    batch = rows(4)
    batch.flags.writeable = False
    engine.run({"x": batch})
    np.testing.assert_array_equal(batch, rows(4))


def test_inputs_need_not_be_contiguous(engine: Engine) -> None:
    engine.warm_up()
    batch = rows(8)[::2]
    np.testing.assert_allclose(engine.run({"x": batch})["y"], 2 * batch, rtol=1e-6)


def test_it_may_be_made_in_one_thread_and_run_in_another(engine: Engine) -> None:
    results: list[float] = []

    def own() -> None:
        engine.warm_up()
        results.append(float(engine.run({"x": np.full((1, 4), 3, np.float32)})["y"][0, 0]))
        engine.close()

    thread = threading.Thread(target=own)
    thread.start()
    thread.join()
    assert results == [6.0]


def test_close_may_be_called_twice(engine: Engine) -> None:
    engine.close()
    engine.close()


async def test_it_serves_a_batcher(engine: Engine) -> None:
    batcher = Batcher([engine], BatchLimits(max_rows=4, max_queue_rows=100))
    await batcher.start()
    outcome = await batcher.submit(Work({"x": rows(10)}, 10))
    await batcher.close()
    np.testing.assert_allclose(outcome.outputs["y"], 2 * rows(10), rtol=1e-6)


def test_every_datatype_has_a_dtype() -> None:
    for name, dtype in DTYPES.items():
        assert TensorSpec("t", name, ()).dtype == dtype


def test_the_registry_knows_each_backend() -> None:
    assert set(backends.FACTORIES) == {"onnxruntime", "tensorrt", "fake"}


@pytest.mark.parametrize("make", [_onnx])
def test_inputs_that_do_not_fit_raise_an_engine_error(make: Callable[[Path], Engine], tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        make(tmp_path).run({"x": np.zeros((1, 5), np.float32)})
