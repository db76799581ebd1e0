import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.base import TensorSpec
from engines.tensorrt import availability, obstacle, open_engine, plans
from engines.tensorrt.builder import BuildOptions, build
from engines.tensorrt.libraries import LIBRARIES, TensorRTError, gpus, installed, library, require_build
from engines.tensorrt.profiles import buckets_for, covering, make, stretches
from engines.zoo import registry
from engines.zoo.artifacts import Artifacts, default_cache
from engines.zoo.pull import pull

RTX = LIBRARIES["tensorrt-rtx"]
needs_rtx = pytest.mark.skipif(not installed(RTX), reason=f"needs tensorrt-rtx: {RTX.install}")
needs_no_gpu = pytest.mark.skipif(gpus()[0] > 0, reason="is about machines without an NVIDIA GPU")
ROWS = TensorSpec("x", "FP32", ("batch", 3))


def model(folder: Path, operator: str = "Relu", domain: str = "", rows: str = "batch") -> Path:
    node = helper.make_node(operator, ["x"], ["y"], name="the_node", domain=domain)
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 4]) for name in "xy"]
    graph = helper.make_graph([node], "one", tensors[:1], tensors[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path = folder / "one" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


@pytest.mark.parametrize(("most", "expected"), [(1, (1,)), (4, (1, 4)), (16, (1, 4, 16)), (20, (1, 4, 16, 20))])
def test_buckets(most: int, expected: tuple[int, ...]) -> None:
    assert buckets_for(most) == expected


def test_profiles_cover_every_row_count_once() -> None:
    made = make([ROWS], (1, 4, 16), {})
    assert [(one.least["x"][0], one.greatest["x"][0]) for one in made] == [(1, 1), (2, 4), (5, 16)]
    assert [covering(made, {"x": (rows, 3)}) for rows in (1, 2, 4, 5, 16, 17)] == [0, 1, 1, 2, 2, None]


def test_profiles_cover_each_stretch_of_each_open_dimension() -> None:
    ids = TensorSpec("ids", "INT64", ("batch", "length"))
    cache = TensorSpec("cache", "FP32", ("batch", 2, "past", 4))
    made = make([ids, cache], (1, 8), {"length": stretches((32, 128)), "past": stretches((64,), least=0)})
    assert [(one.least["ids"], one.greatest["ids"]) for one in made] == [
        ((1, 1), (1, 32)),
        ((1, 33), (1, 128)),
        ((2, 1), (8, 32)),
        ((2, 33), (8, 128)),
    ]
    assert {(one.least["cache"][2], one.best["cache"][2]) for one in made} == {(0, 64)}
    assert covering(made, {"ids": (3, 40), "cache": (3, 2, 0, 4)}) == 3
    assert covering(made, {"ids": (3, 129), "cache": (3, 2, 0, 4)}) is None
    with pytest.raises(TensorRTError, match=r"'cache' has the open dimension 'past': bound it with --dim past=N"):
        make([ids, cache], (8,), {"length": stretches((128,))})


def test_rows_that_the_model_fixes_need_no_buckets() -> None:
    (one,) = make([TensorSpec("sound", "FP32", (1, "samples"))], (1, 4, 16), {"samples": stretches((512,))})
    assert (one.least["sound"], one.greatest["sound"]) == ((1, 1), (1, 512))


def test_fixed_shapes_need_no_profile() -> None:
    assert make([TensorSpec("x", "FP32", (1, 3))], (1, 4), {}) == ()


@pytest.mark.parametrize("buckets", [(), (0, 1), (4, 1), (2, 2)])
def test_buckets_must_rise(buckets: tuple[int, ...]) -> None:
    with pytest.raises(TensorRTError, match="must be positive and rising"):
        make([ROWS], buckets, {})


@needs_rtx
def test_efficientnet_builds_ahead_of_time(tmp_path: Path) -> None:
    folder = pull(registry.recipe("efficientnet_lite0"), tmp_path, Artifacts(default_cache())).folder
    built = build(folder / "1" / "model.onnx", BuildOptions(RTX, targets=("sm89", "sm120")))

    about = plans.read(built.plan)
    assert about == built.sidecar
    assert built.plan.stat().st_size == about.plan_bytes > 10_000_000
    assert (about.model, about.version, about.key.precision) == ("efficientnet_lite0", "1", "fp32")
    assert [(tensor.name, tensor.shape) for tensor in about.outputs] == [
        ("logits", (-1, 1000)),
        ("features", (-1, 1280)),
    ]
    assert len(about.key.profiles) == 3


@needs_rtx
def test_a_plan_is_built_once_and_anew_when_anything_changes(tmp_path: Path) -> None:
    path = model(tmp_path)
    first = build(path, BuildOptions(RTX))
    assert not first.reused
    assert build(path, BuildOptions(RTX)).reused
    assert not build(path, BuildOptions(RTX, targets=("sm120",))).reused
    assert not build(path, BuildOptions(RTX, buckets=(1, 2))).reused
    assert len(plans.plans(tmp_path)) == 3
    found = plans.find(path, "tensorrt-rtx")
    assert found is not None

    first.plan.write_bytes(first.plan.read_bytes()[:100])
    assert len(plans.plans(tmp_path)) == 2
    assert not build(path, BuildOptions(RTX)).reused

    changed = onnx.load(str(path))
    changed.doc_string = "changed"
    onnx.save(changed, str(path))
    assert plans.find(path, "tensorrt-rtx") is None
    assert not build(path, BuildOptions(RTX)).reused


@needs_rtx
@pytest.mark.parametrize(("operator", "domain"), [("Frobnicate", "own"), ("Det", "")])
def test_an_unsupported_node_is_named(operator: str, domain: str, tmp_path: Path) -> None:
    with pytest.raises(TensorRTError, match=rf"node 'the_node' \({operator}\) is not supported by tensorrt-rtx 1\."):
        build(model(tmp_path, operator, domain), BuildOptions(RTX))
    assert not plans.plans(tmp_path)


@needs_rtx
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_corrupt_model_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = model(tmp_path)
    path.write_bytes(path.read_bytes()[:40] if content is None else content)
    with pytest.raises(TensorRTError, match="is no ONNX model") as caught:
        build(path, BuildOptions(RTX))
    assert "\n" not in str(caught.value)


def test_preflight_says_what_is_missing() -> None:
    absent = replace(RTX, modules=("no_such_module",))
    with pytest.raises(TensorRTError, match=r"not installed: run \"pip install 'headrace-mesh\[tensorrt-rtx\]'\""):
        require_build(absent, ())
    with pytest.raises(TensorRTError, match="has no target 'sm90'; it has: sm75"):
        require_build(RTX, ("sm90",))
    with pytest.raises(TensorRTError, match="builds for the GPU at hand only"):
        require_build(LIBRARIES["tensorrt"], ("sm89",))
    with pytest.raises(TensorRTError, match="no library is called 'tensorrt_rtx'; known: tensorrt-rtx, tensorrt"):
        library("tensorrt_rtx")


@needs_no_gpu
def test_without_a_gpu_the_runtime_refuses_with_the_reason(tmp_path: Path) -> None:
    ready, reason = availability()
    assert not ready
    assert reason.startswith("TensorRT needs an NVIDIA GPU: ")
    assert obstacle(tmp_path / "m" / "1" / "model.onnx") == reason
    with pytest.raises(TensorRTError, match="needs an NVIDIA GPU"):
        open_engine(tmp_path / "m" / "1" / "model.onnx")
    present = replace(LIBRARIES["tensorrt"], modules=("json",))
    with pytest.raises(TensorRTError, match=r"with an NVIDIA GPU only \(.*\): use tensorrt-rtx here"):
        require_build(present, ())


def test_importing_the_backend_loads_no_library() -> None:
    code = "import sys, engines.tensorrt as t; t.availability(); print([m for m in sys.modules if 'tensorrt_' in m])"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.gpu
@pytest.mark.skipif(not availability()[0], reason=f"needs an NVIDIA GPU: {availability()[1]}")
def test_a_plan_computes_what_onnx_runtime_does(tmp_path: Path) -> None:
    path = model(tmp_path)
    build(path, BuildOptions(next(lib for lib in LIBRARIES.values() if installed(lib))))
    engine = open_engine(path)
    engine.warm_up()
    for rows in (1, 3, 16):
        x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
        np.testing.assert_allclose(engine.run({"x": x})["y"], np.maximum(x, 0), atol=1e-6)
    engine.close()
    engine.close()
