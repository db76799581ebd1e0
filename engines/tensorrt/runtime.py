"""The door through which a repository asks for TensorRT: can it run here, and an engine for this model file.

Importing this loads neither TensorRT nor CUDA.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from engines.base import Engine
from engines.tensorrt import plans
from engines.tensorrt.engine import TensorRTEngine
from engines.tensorrt.libraries import LIBRARIES, Library, TensorRTError, gpus, installed
from engines.tensorrt.plans import Sidecar

#: Preferred first: the full library knows the GPU it was built for, and runs on data-centre GPUs.
_PREFERENCE: Final = ("tensorrt", "tensorrt-rtx")


def availability() -> tuple[bool, str]:
    """Whether plans can run on this machine, and if not why and what to do. Imports no library, never raises."""
    count, reason = gpus()
    if count == 0:
        return False, f"TensorRT needs an NVIDIA GPU: {reason}"
    if not _installed():
        return False, f'no TensorRT library is installed: run "{LIBRARIES["tensorrt"].install}"'
    if find_spec("pycuda") is None:
        return False, "PyCUDA is not installed: run \"pip install 'headrace-mesh[pycuda]'\" (it compiles against CUDA)"
    return True, f"{count} NVIDIA GPU{'s' if count > 1 else ''} and {_installed()[0].name}"


def obstacle(model: Path) -> str:
    """Why `models/<name>/<version>/model.onnx` cannot run on TensorRT here and now, or nothing."""
    ready, reason = availability()
    if not ready:
        return reason
    return "" if _find(model) else f"it has no plan, run 'headrace engines build {model.parent.parent.name}'"


def open_engine(model: Path) -> Engine:
    """An engine from the plan built from the model file. Raises TensorRTError."""
    ready, reason = availability()
    if not ready:
        raise TensorRTError(f"{model}: {reason}")
    found = _find(model)
    if found is None:
        raise TensorRTError(f"{model} has no plan: run 'headrace engines build {model.parent.parent.name}'")
    return TensorRTEngine(*found)


def _find(model: Path) -> tuple[Library, Path, Sidecar] | None:
    for library in _installed():
        found = plans.find(model, library.name)
        if found is not None:
            return library, *found
    return None


def _installed() -> list[Library]:
    return [LIBRARIES[name] for name in _PREFERENCE if installed(LIBRARIES[name])]
