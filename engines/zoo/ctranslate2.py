"""Reads checkpoints of CTranslate2 (`model.bin`, binary version 6) into numpy, without that library.

Layout, little-endian: version u32; name of the model's specification; its revision u32; number of variables u32; for
each: name, rank u8, sizes u32, type u8, bytes u32, data; then aliases. A name is its length u16, the final zero
included, and the bytes.
"""

import struct
from typing import Final

import numpy as np

from engines.base import Array
from engines.zoo.errors import CheckpointError

_VERSION: Final = 6
_DTYPES: Final = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_MAX_RANK: Final = 8


class _Reader:
    """Bytes read from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        end = self._place + size
        if end > len(self._data):
            raise CheckpointError(f"CTranslate2 checkpoint ends after {len(self._data)} bytes: it is truncated")
        taken = memoryview(self._data)[self._place : end]
        self._place = end
        return taken

    def number(self, layout: str) -> int:
        """The next integer, of a `struct` layout."""
        value: int = struct.unpack(f"<{layout}", self.take(struct.calcsize(layout)))[0]
        return value

    def text(self) -> str:
        """The next name."""
        try:
            return str(self.take(self.number("H")), "utf-8").rstrip("\0")
        except UnicodeDecodeError as error:
            raise CheckpointError("CTranslate2 checkpoint: a name is not UTF-8") from error


def read_checkpoint(data: bytes, specification: str) -> dict[str, Array]:
    """The variables of a model of this `specification`, as views of `data`. Raises CheckpointError."""
    reader = _Reader(data)
    version = reader.number("I")
    if version != _VERSION:
        raise CheckpointError(f"CTranslate2 checkpoint has binary version {version}, only {_VERSION} can be read")
    found = reader.text()
    if found != specification:
        raise CheckpointError(f"CTranslate2 checkpoint is a '{found[:40]}', expected '{specification}'")
    reader.number("I")
    return dict(_variable(reader) for _ in range(reader.number("I")))


def _variable(reader: _Reader) -> tuple[str, Array]:
    name, rank = reader.text(), reader.number("B")
    if rank > _MAX_RANK:
        raise CheckpointError(f"CTranslate2 checkpoint: '{name}' has {rank} dimensions")
    shape = [reader.number("I") for _ in range(rank)]
    kind, size = reader.number("B"), reader.number("I")
    if kind not in _DTYPES:
        raise CheckpointError(f"CTranslate2 checkpoint: '{name}' is of unknown type {kind}")
    dtype = np.dtype(_DTYPES[kind])
    if size != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise CheckpointError(f"CTranslate2 checkpoint: '{name}' has {size} bytes, which is not its shape {shape}")
    return name, np.frombuffer(reader.take(size), dtype).reshape(shape)
