"""Engines for the zoo, built ahead of time by the real library: a model of each service, at small shapes."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.onnx import OnnxEngine
from engines.repository import Repository
from engines.signatures import zeros
from engines.tensorrt import availability, open_engine, sizes
from engines.tensorrt.builder import BuildOptions, Built, build
from engines.tensorrt.libraries import LIBRARIES, TensorRTError, installed
from engines.tensorrt.onnx_inputs import read_inputs
from engines.tensorrt.profiles import Stretch, covering
from engines.zoo import registry
from engines.zoo.artifacts import Artifacts, default_cache
from tests.mesh import zoo_models

RTX = LIBRARIES["tensorrt-rtx"]
needs_rtx = pytest.mark.skipif(not installed(RTX), reason=f"needs tensorrt-rtx: {RTX.install}")

#: Small shapes build in a second each; the manifests' own, which `headrace engines build --all` takes, in a minute.
QUICK = {
    "efficientnet_lite0": {},
    "ppocr_v6_detector": {"height": (Stretch(32, 64),), "width": (Stretch(32, 64),)},
    "all_minilm_l6_v2": {"tokens": (Stretch(1, 16),)},
    "clothing_sentiment": {},
    "movielens": {},
    "movielens_retrieval": {},
    "silero_vad": {"chunks": (Stretch(1, 4),)},
    "whisper_tiny_en_encoder": {"frames": (Stretch(2, 100),)},
    "whisper_tiny_en": {"n": (Stretch(1, 4),), "capacity": (Stretch(1, 64),), "states": (Stretch(1, 50),)},
    "ppocr_v6": {"width": (Stretch(64, 128),)},
}


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo_models(tmp_path_factory.mktemp("tensorrt") / "models")


def quick(zoo: Path, name: str, folder: Path) -> Built:
    """The plan of a copy, so that no other test finds one beside the model."""
    copy = Path(shutil.copytree(zoo / name / "1", folder / name / "1"))
    return build(copy / "model.onnx", BuildOptions(RTX, (1, 2), (), QUICK[name]))


@needs_rtx
@pytest.mark.parametrize("name", QUICK)
def test_a_model_of_each_service_builds_without_a_gpu(name: str, zoo: Path, tmp_path: Path) -> None:
    built = quick(zoo, name, tmp_path)
    engine = OnnxEngine(zoo / name / "1" / "model.onnx")
    try:
        known = engine.signature
    finally:
        engine.close()
    assert built.plan.stat().st_size == built.sidecar.plan_bytes > 10_000
    assert [tensor.name for tensor in built.sidecar.inputs] == [spec.name for spec in known.inputs]
    assert {tensor.name: tensor.datatype for tensor in built.sidecar.outputs} == {
        spec.name: spec.datatype for spec in known.outputs
    }
    assert len(built.sidecar.key.profiles) == 2


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_manifest_bounds_every_dimension_that_its_model_leaves_open(name: str, zoo: Path) -> None:
    entry = next(entry for entry in Repository(zoo).scan() if entry.name == name)
    assert entry.manifest is not None
    inputs = read_inputs(entry.folder / "1" / "model.onnx")
    open_sizes = {size for spec in inputs for size in spec.shape[1:] if isinstance(size, str)}
    assert open_sizes <= set(sizes.dimensions(entry.manifest, inputs))
    assert set(entry.manifest.dimensions) <= open_sizes


@needs_rtx
def test_the_detector_of_speech_as_it_is_published_does_not_build_and_says_where(tmp_path: Path) -> None:
    recipe = registry.recipe("silero_vad")
    files = Artifacts(default_cache()).files(recipe, lambda *_: None, lambda: None)
    path = tmp_path / "published" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(next(data for name, data in files.items() if name.endswith(".onnx")))
    stretches = {"batch": (Stretch(1, 2),), "sequence": (Stretch(1, 576),)}
    with pytest.raises(TensorRTError, match=r"cannot build it: .*; it decides at run time by node '/model/decoder/If'"):
        build(path, BuildOptions(RTX, (1, 2), (), stretches))


def test_weights_that_lie_elsewhere_must_lie_beside_the_model(zoo: Path, tmp_path: Path) -> None:
    version = Path(shutil.copytree(zoo / "whisper_tiny_en" / "1", tmp_path / "whisper_tiny_en" / "1"))
    assert len(read_inputs(version / "model.onnx")) == 4
    (version / "embeddings.bin").unlink()
    with pytest.raises(TensorRTError, match=r"its weights 'embeddings\.bin' are not beside it"):
        read_inputs(version / "model.onnx")


@pytest.mark.gpu
@pytest.mark.skipif(not availability()[0], reason=f"needs an NVIDIA GPU: {availability()[1]}")
@pytest.mark.parametrize("name", QUICK)
def test_plans_of_the_zoo_compute_what_onnx_runtime_does(name: str, zoo: Path, tmp_path: Path) -> None:
    built = quick(zoo, name, tmp_path)
    reference = OnnxEngine(zoo / name / "1" / "model.onnx")
    engine = open_engine(built.plan.parent.parent / "model.onnx")
    engine.warm_up()
    for rows in (1, 2):
        inputs = zeros(reference.signature, rows, 64)
        shapes = {key: array.shape for key, array in inputs.items()}
        profile = covering(built.sidecar.key.profiles, shapes)
        if profile is None:
            inputs = {
                key: np.zeros(built.sidecar.key.profiles[rows - 1].greatest[key], array.dtype)
                for key, array in inputs.items()
            }
        expected, found = reference.run(inputs), engine.run(inputs)
        for output, values in expected.items():
            np.testing.assert_allclose(found[output], values, atol=1e-3)
    engine.close()
    reference.close()
