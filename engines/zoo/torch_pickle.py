"""Reads tensors from PyTorch's older stream format (`.pth` before 1.6) without PyTorch and without trusting the file.

The stream is five pickles (magic number, protocol, byte order and sizes, the object, the order of storages), then for
each storage its element count (int64) and its raw elements. A pickle can name any callable; this reader admits the
names that tensors are made of and refuses the rest, so that a checkpoint can bring in data only.
"""

import math
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np

from engines.base import Array
from engines.zoo.errors import CheckpointError

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_DTYPES: Final = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str
    numel: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor as the pickle describes it: a strided window on a storage. Sizes and strides count elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _View:
    return _View(storage, offset, size, stride)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Admit what a state dict of tensors is made of; raise on any other name."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise CheckpointError(
            f"checkpoint refused: its pickle names '{module}.{name}', only plain tensors are admitted"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: ("storage", dtype, key, device, element count, None)."""
        kind, dtype, key, _device, numel, view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or view is not None:
            raise CheckpointError("checkpoint refused: it holds a storage of an unknown kind")
        return _Storage(str(key), dtype, int(numel))


def read_state_dict(data: bytes) -> dict[str, Array]:
    """The tensors of a state dict by name, C-contiguous, in the file's dtypes.

    Raises CheckpointError when the bytes are not such a stream, end early, or name anything but tensors.
    """
    stream = BytesIO(data)
    try:
        if _load(stream) != _MAGIC or _load(stream) != _PROTOCOL:
            raise CheckpointError("not a PyTorch stream checkpoint: wrong magic number or protocol")
        if not _load(stream)["little_endian"]:
            raise CheckpointError("checkpoint refused: big-endian storages are not supported")
        views = _load(stream)
        keys = _load(stream)
        storages = _read_storages(stream, keys, {view.storage.key: view.storage for view in views.values()})
        return {name: _materialise(storages[view.storage.key], view) for name, view in views.items()}
    except CheckpointError:
        raise
    except Exception as error:
        # Damaged pickles fail in as many ways as there are opcodes.
        raise CheckpointError(f"not a PyTorch stream checkpoint, or a damaged one: {error}") from error


def _load(stream: BinaryIO) -> Any:
    return _Unpickler(stream).load()


def _read_storages(stream: BinaryIO, keys: list[str], declared: dict[str, _Storage]) -> dict[str, Array]:
    storages: dict[str, Array] = {}
    for key in keys:
        storage = declared[key]
        count = int.from_bytes(_exactly(stream, 8), "little")
        if count != storage.numel:
            raise CheckpointError(f"damaged checkpoint: storage {key} has {count} elements, {storage.numel} declared")
        dtype = np.dtype(storage.dtype)
        storages[key] = np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype)
    return storages


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise CheckpointError("damaged checkpoint: it ends before its last tensor")
    return data


def _materialise(storage: Array, view: _View) -> Array:
    if len(view.size) != len(view.stride) or min((*view.size, *view.stride, view.offset), default=0) < 0:
        raise CheckpointError("damaged checkpoint: a tensor with impossible sizes")
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.size, view.stride, strict=True))
    if 0 not in view.size and (last >= len(storage) or math.prod(view.size) > len(storage)):
        raise CheckpointError("damaged checkpoint: a tensor reaches beyond its storage")
    strides = tuple(stride * storage.itemsize for stride in view.stride)
    window = np.lib.stride_tricks.as_strided(storage[view.offset :], view.size, strides, writeable=False)
    return np.ascontiguousarray(window).reshape(view.size)
