"""The door through which a repository asks for TensorRT: can it run here, and an engine for this model file."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from engines.base import Engine
from engines.tensorrt import plans
from engines.tensorrt.libraries import LIBRARIES, Library, TensorRTError, gpus, installed
from engines.tensorrt.runtime import TensorRTEngine

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


def create(model_file: Path) -> Engine:
    """An engine for `models/<name>/<version>/model.onnx` from a plan built before. Raises TensorRTError: why not."""
    ready, reason = availability()
    if not ready:
        raise TensorRTError(f'{model_file}: {reason}; or set backend = "auto" or "onnxruntime" in its model.toml')
    for library in _installed():
        found = plans.find(model_file, library.name)
        if found is not None:
            return TensorRTEngine(library, *found)
    name = model_file.parent.parent.name
    raise TensorRTError(f"{model_file} has no TensorRT plan: run 'headrace engines build {name}'")


def _installed() -> list[Library]:
    return [LIBRARIES[name] for name in _PREFERENCE if installed(LIBRARIES[name])]
