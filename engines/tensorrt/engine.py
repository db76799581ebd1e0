"""A plan on an NVIDIA GPU as an engine: PyCUDA's primary context, pinned staging, one stream, `execute_async_v3`.

The context stack is per thread and an engine is called from one worker thread, but made and closed from others: every
method pushes the device's primary context and pops it again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from engines.base import DTYPES, Array, EngineError, Signature, Tensors, TensorSpec
from engines.signatures import zeros
from engines.tensorrt import profiles
from engines.tensorrt.libraries import Library, TensorRTError, load
from engines.tensorrt.plans import Sidecar, TensorInfo
from engines.tensorrt.session import make_logger

_ROWS: Final = "rows"


class TensorRTEngine:
    """One execution context of one plan on device 0, with staging buffers for its greatest profile."""

    def __init__(self, library: Library, plan: Path, sidecar: Sidecar) -> None:
        self._plan, self._sidecar = plan, sidecar
        self._cuda = _load_pycuda()
        self._device_context: Any = self._cuda.Device(0).retain_primary_context()
        self._complaints: list[str] = []
        self._buffers: dict[str, _Buffer] = {}
        self._profile = -1
        with self._current():
            trt = load(library)
            self._logger = make_logger(trt, self._complaints)
            self._runtime = trt.Runtime(self._logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
            if self._engine is None:
                raise TensorRTError(f"{plan} does not load on this GPU ({self._complaint()}): build it again here")
            self._context = self._engine.create_execution_context()
            self._stream = self._cuda.Stream()
            self._allocate()
        inputs, outputs = (tuple(map(_spec, tensors)) for tensors in (sidecar.inputs, sidecar.outputs))
        first = {spec.shape[0] if spec.shape else None for spec in (*inputs, *outputs)}
        self._signature = Signature(inputs, outputs, batchable=first == {_ROWS})

    @property
    def signature(self) -> Signature:
        """The plan's tensors."""
        return self._signature

    def warm_up(self) -> None:
        """Run every profile's greatest batch once, so that the library compiles what it compiles at first use."""
        for profile in self._sidecar.key.profiles:
            self.run({spec.name: np.zeros(profile.greatest[spec.name], spec.dtype) for spec in self._signature.inputs})
        if not self._sidecar.key.profiles:
            self.run(zeros(self._signature))

    def run(self, batch: Tensors) -> dict[str, Array]:
        """Copy in, compute, copy out, wait. Raises EngineError."""
        try:
            with self._current():
                self._select({name: array.shape for name, array in batch.items()})
                for name, array in batch.items():
                    self._buffers[name].send(array, self._cuda, self._stream)
                if not self._context.execute_async_v3(self._stream.handle):
                    raise EngineError(f"{self._plan.name}: {self._complaint()}")
                received = {
                    info.name: self._buffers[info.name].receive(self._shape(info.name), self._cuda, self._stream)
                    for info in self._sidecar.outputs
                }
                self._stream.synchronize()
                # The staging memory is written again by the next batch, so the caller gets copies.
                return {name: array.copy() for name, array in received.items()}
        except self._cuda.Error as error:
            raise EngineError(f"{self._plan.name}: {error}") from error

    def close(self) -> None:
        """Free GPU memory, then let go of the primary context. Idempotent."""
        if self._device_context is None:
            return
        with self._current():
            self._buffers.clear()
            self._context = self._engine = self._runtime = self._stream = None
        self._device_context.detach()
        self._device_context = None

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._device_context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def _allocate(self) -> None:
        """Memory for each tensor, enough for the greatest shapes of every profile. Raises TensorRTError."""
        tensors = (*self._sidecar.inputs, *self._sidecar.outputs)
        counts = {info.name: _count(info.shape) for info in tensors}
        for profile in self._sidecar.key.profiles:
            self._select(profile.greatest)
            for info in tensors:
                shape = profile.greatest.get(info.name) or self._shape(info.name)
                counts[info.name] = max(counts[info.name], _count(shape))
        for info in tensors:
            if info.datatype not in DTYPES:
                raise TensorRTError(
                    f"{self._plan}: tensor '{info.name}' is of type {info.datatype}, which cannot be served"
                )
            if counts[info.name] < 0:
                raise TensorRTError(f"{self._plan}: the size of output '{info.name}' depends on the data")
            self._buffers[info.name] = _Buffer(self._cuda, counts[info.name], DTYPES[info.datatype])
            self._context.set_tensor_address(info.name, int(self._buffers[info.name].device))

    def _select(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        if not self._sidecar.key.profiles:
            return
        index = profiles.covering(self._sidecar.key.profiles, shapes)
        if index is None:
            raise EngineError(f"{self._plan.name}: no profile covers {shapes}; build the engine with larger buckets")
        if index != self._profile:
            self._context.set_optimization_profile_async(index, self._stream.handle)
            self._stream.synchronize()
            self._profile = index
        for name, shape in shapes.items():
            self._context.set_input_shape(name, shape)

    def _shape(self, output: str) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(output))

    def _complaint(self) -> str:
        return self._complaints[-1].splitlines()[0] if self._complaints else "TensorRT gives no reason"


class _Buffer:
    """One tensor's memory on the device and its pinned twin on the host, for the greatest number of elements."""

    def __init__(self, cuda: Any, count: int, dtype: np.dtype[Any]) -> None:
        self._host: Array = cuda.pagelocked_empty(max(count, 1), dtype)
        self.device: Any = cuda.mem_alloc(self._host.nbytes)

    def send(self, array: Array, cuda: Any, stream: Any) -> None:
        """Start copying `array` to the device."""
        staged = self._host[: array.size]
        staged[:] = array.reshape(-1)
        if array.size:  # a cache before its first step has nothing to copy
            cuda.memcpy_htod_async(self.device, staged, stream)

    def receive(self, shape: tuple[int, ...], cuda: Any, stream: Any) -> Array:
        """Start copying a tensor of `shape` from the device; what is returned is filled when the stream is done."""
        staged = self._host[: int(np.prod(shape))]
        if staged.size:
            cuda.memcpy_dtoh_async(staged, self.device, stream)
        return staged.reshape(shape)


def _count(shape: Sequence[int]) -> int:
    """Elements of a shape; -1 while one of its sizes is open."""
    return -1 if min(shape, default=0) < 0 else math.prod(shape)


def _spec(info: TensorInfo) -> TensorSpec:
    shape = (
        size if size >= 0 else _ROWS if axis == 0 else f"{info.name}.{axis}" for axis, size in enumerate(info.shape)
    )
    return TensorSpec(info.name, info.datatype, tuple(shape))


def _load_pycuda() -> Any:
    try:
        cuda = import_module("pycuda.driver")
    except ImportError as error:
        raise TensorRTError(f"PyCUDA does not load ({error}): run \"pip install 'headrace-mesh[pycuda]'\"") from error
    cuda.init()
    return cuda
