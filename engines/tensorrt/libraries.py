"""The two libraries behind one driver, `tensorrt` and `tensorrt-rtx`, and the table of where they differ."""

import ctypes
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from engines.base import EngineLoadError


class TensorRTError(EngineLoadError):
    """A plan cannot be built, found or run; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Library:
    """What one library can do.

    `modules`: import names to try, in order. `targets`: compute capabilities that a build may name (none: it builds
    for the GPU at hand). `builds_without_gpu`: it builds ahead of time on any machine. `timing_cache`: measured kernel
    times can be kept between builds. `runtime_cache`: what a GPU compiles at load can be kept.
    """

    name: str
    modules: tuple[str, ...]
    install: str
    targets: tuple[str, ...]
    builds_without_gpu: bool
    timing_cache: bool
    int8_activations: bool
    runtime_cache: bool


LIBRARIES: Final = {
    "tensorrt-rtx": Library(
        name="tensorrt-rtx",
        modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
        install="pip install 'headrace-mesh[tensorrt-rtx]'",
        targets=("sm75", "sm80", "sm86", "sm89", "sm120", "sm121"),
        builds_without_gpu=True,
        timing_cache=False,
        int8_activations=False,
        runtime_cache=True,
    ),
    "tensorrt": Library(
        name="tensorrt",
        modules=("tensorrt", "tensorrt_bindings"),
        install="pip install 'headrace-mesh[tensorrt]'",
        targets=(),
        builds_without_gpu=False,
        timing_cache=True,
        int8_activations=True,
        runtime_cache=False,
    ),
}


def library(name: str) -> Library:
    """The library called `name`. Raises TensorRTError."""
    try:
        return LIBRARIES[name]
    except KeyError:
        raise TensorRTError(f"no library is called '{name}'; known: {', '.join(LIBRARIES)}") from None


def installed(library: Library) -> bool:
    """Whether one of its modules can be found, without importing it."""
    return _module_name(library) is not None


def load(library: Library) -> Any:
    """Import the library's module. Raises TensorRTError saying what to install."""
    name = _module_name(library)
    if name is None:
        raise TensorRTError(f'{library.name} is not installed: run "{library.install}"')
    try:
        return import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise TensorRTError(f"{library.name} is installed but does not load ({error}): {library.install}") from error


def require_build(library: Library, targets: tuple[str, ...]) -> None:
    """Preflight of a build. Raises TensorRTError naming what is missing and what to install or to choose instead."""
    for target in targets:
        if not library.targets:
            raise TensorRTError(f"{library.name} builds for the GPU at hand only: leave --target out")
        if target not in library.targets:
            raise TensorRTError(f"{library.name} has no target '{target}'; it has: {', '.join(library.targets)}")
    if not installed(library):
        raise TensorRTError(f'{library.name} is not installed: run "{library.install}"')
    count, reason = gpus()
    if count == 0 and not library.builds_without_gpu:
        raise TensorRTError(
            f"{library.name} builds on a machine with an NVIDIA GPU only ({reason}): use tensorrt-rtx here"
        )


@cache
def gpus() -> tuple[int, str]:
    """How many NVIDIA GPUs the driver shows, and why there is none. Never raises."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0, "the NVIDIA driver is there but does not start"
    except (OSError, AttributeError):
        return 0, "no NVIDIA driver is installed"
    return count.value, "" if count.value else "the NVIDIA driver shows no GPU"


def _module_name(library: Library) -> str | None:
    for name in library.modules:
        try:
            if find_spec(name) is not None:
                return name
        except (ImportError, ValueError):
            continue
    return None
