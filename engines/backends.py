"""Which engine serves a model, and why. What an engine needs is imported when the first one is made."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol, cast

from engines.base import Engine, EngineLoadError, TensorSpec
from engines.manifest import Backend, Fake, Manifest, Tensor

MODEL_FILE: Final = "model.onnx"
_TENSORRT_MODULE: Final = "engines.tensorrt.runtime"


class TensorRTRuntime(Protocol):
    """What `engines.tensorrt.runtime` offers, where it is there."""

    def obstacle(self, model: Path) -> str:
        """Return why the model file cannot run on TensorRT here and now, or nothing: no GPU, no library, no plan."""

    def open_engine(self, model: Path) -> Engine:
        """Load the plan built from the model file. Raises EngineLoadError."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that serves a model (never "auto") and one clause that says why."""

    backend: Backend
    reason: str


def choose(manifest: Manifest, version_folder: Path) -> Choice:
    """Decide what serves the model. Raises EngineLoadError when the manifest insists on what cannot be had."""
    if manifest.backend in ("onnxruntime", "fake"):
        return Choice(manifest.backend, "the manifest asks for it")
    obstacle = _tensorrt_obstacle(version_folder / MODEL_FILE)
    if not obstacle:
        asked = manifest.backend == "tensorrt"
        return Choice("tensorrt", "the manifest asks for it" if asked else "a GPU, the library and a plan are there")
    if manifest.backend == "tensorrt":
        allowed = 'backend = "auto" would fall back to ONNX Runtime'
        raise EngineLoadError(f"{version_folder}: backend 'tensorrt' cannot serve it: {obstacle}; {allowed}")
    return Choice("onnxruntime", f"TensorRT cannot serve it: {obstacle}")


def twin(engine: Engine) -> Engine | None:
    """Return an engine that computes beside this one on the same weights, where its backend has such."""
    make: Callable[[], Engine | None] | None = getattr(engine, "twin", None)
    return make() if make is not None else None


def open_engine(backend: Backend, manifest: Manifest, version_folder: Path, threads: int = 1) -> Engine:
    """Make one engine of `threads` threads, where its backend computes with threads. Raises EngineLoadError."""
    return FACTORIES[backend](manifest, version_folder, threads)


def tensor_spec(tensor: Tensor) -> TensorSpec:
    """Return a manifest's tensor in the engines' terms: -1 becomes a name, `rows` on axis 0."""
    names = (f"{tensor.name}.{axis}" if axis else "rows" for axis in range(len(tensor.shape)))
    shape = tuple(name if size == -1 else size for name, size in zip(names, tensor.shape, strict=True))
    return TensorSpec(tensor.name, tensor.datatype, shape)


def _onnxruntime(_manifest: Manifest, version_folder: Path, threads: int) -> Engine:
    from engines.onnx import OnnxEngine  # noqa: PLC0415 - a model on another backend needs no ONNX Runtime.

    return OnnxEngine(version_folder / MODEL_FILE, threads)


def _tensorrt(manifest: Manifest, version_folder: Path, _threads: int) -> Engine:
    runtime = _tensorrt_runtime()
    if runtime is None:
        raise EngineLoadError(f"{version_folder}: backend '{manifest.backend}' needs the TensorRT runtime")
    return runtime.open_engine(version_folder / MODEL_FILE)


def _fake(manifest: Manifest, _version_folder: Path, _threads: int) -> Engine:
    from engines.fake import FakeEngine, FakeOptions  # noqa: PLC0415 - for tests only.

    fake = manifest.fake or Fake()
    inputs = tuple(tensor_spec(tensor) for tensor in fake.inputs)
    return FakeEngine(
        FakeOptions(
            inputs=inputs,
            batchable=all(spec.shape and spec.shape[0] == "rows" for spec in inputs),
            factor=fake.factor,
            seconds_per_batch=fake.seconds_per_batch,
            seconds_per_row=fake.seconds_per_row,
            fail_on=fake.fail_on,
            wrong=fake.wrong,
        )
    )


FACTORIES: Final[dict[str, Callable[[Manifest, Path, int], Engine]]] = {
    "onnxruntime": _onnxruntime,
    "tensorrt": _tensorrt,
    "fake": _fake,
}


def _tensorrt_obstacle(model: Path) -> str:
    runtime = _tensorrt_runtime()
    return "this installation has no TensorRT runtime" if runtime is None else runtime.obstacle(model)


def _tensorrt_runtime() -> TensorRTRuntime | None:
    try:
        module: ModuleType = importlib.import_module(_TENSORRT_MODULE)
    except ImportError:
        return None
    return cast("TensorRTRuntime", module)
