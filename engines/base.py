"""The engine contract: all that a batcher knows about what computes.

An engine maps named input tensors to named output tensors. It is owned by one worker thread, which makes every call.
ONNX Runtime, TensorRT and the shipped fake pass one contract suite (`tests/contract/`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

#: Open Inference Protocol datatype name -> numpy dtype. BYTES tensors are object arrays of `bytes`.
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor: `datatype` is a key of DTYPES; a dimension is a size, or the name of a symbolic size."""

    name: str
    datatype: str
    shape: tuple[int | str, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the numpy dtype of the datatype."""
        return DTYPES[self.datatype]


@dataclass(frozen=True, slots=True)
class Signature:
    """What an engine takes and gives. `batchable`: axis 0 of every tensor is the same symbolic dimension, the rows."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool = True


class EngineError(Exception):
    """An engine failed on a batch it was given; the message is for the log, not for the caller."""


class EngineLoadError(Exception):
    """An engine could not be made from its files; the message says which file, what was wrong and what to do."""


class Engine(Protocol):
    """One loaded model on one device. Not thread-safe: only its worker calls it, from one thread.

    An engine that may also be called from another thread, one call at a time, has an attribute `any_thread = True`; one
    whose calling thread does all the computing, `computes_in_caller = True`.
    """

    @property
    def signature(self) -> Signature:
        """Return what the engine takes and gives; the same at every call."""

    def warm_up(self) -> None:
        """Run once on zeros, so that the first real batch pays no set-up cost. Raises EngineError."""

    def run(self, batch: Tensors) -> dict[str, Array]:
        """Compute every output for `batch`, whose tensors are as the signature says. Raises EngineError."""

    def close(self) -> None:
        """Give back memory and devices. Idempotent."""
