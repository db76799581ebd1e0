"""Open Inference request tensors to numpy and back: every byte checked, raw contents read without a copy.

Raw contents are little-endian and row-major, one entry a tensor; BYTES is, element by element, a 4-byte length and the
bytes. Typed contents are read in requests and never written in answers (tritonclient reads only raw ones).
"""

import math
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engines.base import Array, Signature, TensorSpec
from services.chassis.errors import ServiceError, invalid_argument, quote

if sys.byteorder != "little":
    raise ImportError("raw tensors are little-endian and are read in place: this needs a little-endian machine")

#: Open Inference datatype -> the field of InferTensorContents that carries it. FP16 and BF16 have none.
TYPED_FIELDS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_NARROW: Final = frozenset({"INT8", "INT16", "UINT8", "UINT16"})
_LENGTH: Final = struct.Struct("<I")
_MAX_DIMENSION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Input:
    """What one input must look like; `itemsize` 0 means BYTES, `plain` that its rows are its only freedom."""

    spec: TensorSpec
    itemsize: int
    row_items: int
    plain: bool

    @classmethod
    def of(cls, spec: TensorSpec, batchable: bool) -> "_Input":
        fixed = [size for size in spec.shape[1:] if isinstance(size, int)]
        plain = batchable and len(fixed) == len(spec.shape) - 1 and spec.datatype not in {"BYTES", "BOOL"}
        itemsize = 0 if spec.datatype == "BYTES" else spec.dtype.itemsize
        return cls(spec, itemsize, math.prod(fixed), plain)


@dataclass(slots=True)
class RequestTensors:
    """The checked inputs of one request; `rows` is 1 when the model is not batchable. The arrays are read-only."""

    inputs: dict[str, Array]
    rows: int


class TensorCodec:
    """Reads requests for one model; made once, when the model is loaded. `outputs`: the model's outputs by name."""

    def __init__(self, signature: Signature) -> None:
        self.outputs = {spec.name: spec for spec in signature.outputs}
        self._batchable = signature.batchable
        self._inputs = {spec.name: _Input.of(spec, signature.batchable) for spec in signature.inputs}

    def decode(self, request: Any) -> RequestTensors:
        """Read the tensors of a ModelInferRequest. Raises ServiceError INVALID_ARGUMENT naming the field."""
        tensors, raws = request.inputs, request.raw_input_contents
        raw = self._check_counts(tensors, len(raws))
        inputs: dict[str, Array] = {}
        symbols: dict[str, int] = {}
        for index, tensor in enumerate(tensors):
            name = tensor.name
            plan = self._inputs.get(name)
            if plan is None or name in inputs:
                raise self._wrong_name(index, name, known=plan is not None)
            spec = plan.spec
            if tensor.datatype != spec.datatype:
                raise _wrong_datatype(index, tensor.datatype, spec)
            if tensor.parameters:
                _check_input_parameters(index, tensor.parameters)
            shape = tuple(tensor.shape)
            if plan.plain and raw and not tensor.HasField("contents"):
                inputs[name] = _read_plain(index, shape, raws[index], plan)
                symbol = spec.shape[0]
                if symbols.setdefault(symbol, shape[0]) != shape[0]:  # type: ignore[arg-type]  # Axis 0 is a symbol.
                    raise _unequal(index, 0, shape[0], symbols, symbol)
            else:
                _check_shape(index, shape, plan, symbols, batchable=self._batchable)
                inputs[name] = _read(index, tensor, shape, raws[index] if raw else None, plan)
        rows = len(next(iter(inputs.values()))) if self._batchable else 1
        return RequestTensors(inputs, rows)

    def _check_counts(self, tensors: Any, raws: int) -> bool:
        """True when the contents are raw. The number of tensors is checked by name where it is wrong."""
        if len(tensors) < len(self._inputs):
            given = {tensor.name for tensor in tensors}
            missing = ", ".join(quote(name) for name in self._inputs if name not in given)
            raise invalid_argument("inputs", f"lacks {missing}; the model takes {self._takes()}")
        if raws and raws != len(tensors):
            problem = f"has {raws} entries for {len(tensors)} inputs; send one for each, or typed contents in all"
            raise invalid_argument("raw_input_contents", problem)
        return raws > 0

    def _wrong_name(self, index: int, name: str, *, known: bool) -> ServiceError:
        problem = "is given twice" if known else "is not an input of the model"
        return invalid_argument(f"inputs[{index}].name", f"{quote(name)} {problem}; it takes {self._takes()}")

    def _takes(self) -> str:
        return "; ".join(describe(plan.spec) for plan in list(self._inputs.values())[:8])


def describe(spec: TensorSpec) -> str:
    """A tensor as messages show it: `x FP32 [batch, 16]`."""
    return f"{spec.name} {spec.datatype} [{', '.join(map(str, spec.shape))}]"


def encode(array: Array) -> bytes:
    """One output tensor as an entry of raw_output_contents."""
    if array.dtype != object:
        return array.tobytes()
    parts: list[bytes] = []
    for item in array.ravel():
        data = item.encode() if isinstance(item, str) else bytes(item)
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def decode_bytes(raw: bytes, count: int, field: str) -> Array:
    """`count` length-prefixed elements as an object array of bytes. Raises ServiceError naming `field`."""
    if count * 4 > len(raw):
        raise _wrong_bytes(field, count, f"has {len(raw)} bytes, too few for {count} elements")
    array = np.empty(count, dtype=object)
    position = 0
    for index in range(count):
        if position + 4 > len(raw):
            raise _wrong_bytes(field, count, f"ends within the length of element {index}")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += 4
        if position + length > len(raw):
            raise _wrong_bytes(field, count, f"ends within element {index}, which says it has {length} bytes")
        array[index] = raw[position : position + length]
        position += length
    if position != len(raw):
        raise _wrong_bytes(field, count, f"has {len(raw) - position} bytes after the last element")
    return array


def classification(array: Array, top_k: int, labels: Sequence[str], *, batchable: bool) -> Array:
    """The `top_k` largest values of each row as BYTES "value:index" or "value:index:label", largest first.

    `array` is numeric [rows, ...] (one row when not `batchable`); the answer is [rows, k], or [k].
    """
    scores = array.reshape(len(array), -1) if batchable else array.reshape(1, -1)
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :top_k]
    answer = np.empty(order.shape, dtype=object)
    for place, index in np.ndenumerate(order):
        label = f":{labels[int(index)]}" if index < len(labels) else ""
        answer[place] = f"{scores[place[0], index]:f}:{index}{label}".encode()
    return answer if batchable else answer[0]


def _read_plain(index: int, shape: tuple[int, ...], raw: bytes, plan: _Input) -> Array:
    """The hot path: only axis 0 is free, so rows and byte count prove everything."""
    wanted = plan.spec.shape
    if len(shape) != len(wanted) or shape[1:] != wanted[1:] or shape[0] < 1:
        raise _wrong_shape(index, shape, plan.spec)
    if shape[0] * plan.row_items * plan.itemsize != len(raw):
        raise _wrong_size(f"raw_input_contents[{index}]", len(raw), shape, plan)
    return np.frombuffer(raw, plan.spec.dtype).reshape(shape)


def _check_shape(index: int, shape: tuple[int, ...], plan: _Input, symbols: dict[str, int], *, batchable: bool) -> None:
    """`symbols` collects the sizes of named dimensions: a name means one size in all inputs of a request."""
    if len(shape) != len(plan.spec.shape):
        raise _wrong_shape(index, shape, plan.spec)
    for axis, (size, wanted) in enumerate(zip(shape, plan.spec.shape, strict=True)):
        if isinstance(wanted, int):
            if size != wanted:
                raise _wrong_shape(index, shape, plan.spec)
        elif not (1 if batchable and axis == 0 else 0) <= size <= _MAX_DIMENSION:
            raise _wrong_shape(index, shape, plan.spec)
        elif symbols.setdefault(wanted, size) != size:
            raise _unequal(index, axis, size, symbols, wanted)


def _read(index: int, tensor: Any, shape: tuple[int, ...], raw: bytes | None, plan: _Input) -> Array:
    count = math.prod(shape)
    typed = tensor.HasField("contents") and tensor.contents.ByteSize() > 0
    if raw is None:
        return _shaped(index, _read_typed(index, tensor, count, plan), shape, plan)
    if typed:
        problem = "is set although raw_input_contents is too; send all tensors one way"
        raise invalid_argument(f"inputs[{index}].contents", problem)
    field = f"raw_input_contents[{index}]"
    if not plan.itemsize:
        return _shaped(index, decode_bytes(raw, count, field), shape, plan)
    if count * plan.itemsize != len(raw):
        raise _wrong_size(field, len(raw), shape, plan)
    flat = np.frombuffer(raw, plan.spec.dtype)
    if plan.spec.datatype == "BOOL":
        flat = np.frombuffer(raw, np.uint8) != 0  # Any other byte than 0 and 1 is no valid bool in memory.
    return _shaped(index, flat, shape, plan)


def _shaped(index: int, flat: Array, shape: tuple[int, ...], plan: _Input) -> Array:
    try:
        return flat.reshape(shape)
    except ValueError:  # Empty, with other dimensions whose product no array can have.
        raise _wrong_shape(index, shape, plan.spec) from None


def _read_typed(index: int, tensor: Any, count: int, plan: _Input) -> Array:
    datatype = plan.spec.datatype
    name = TYPED_FIELDS.get(datatype)
    if name is None:
        problem = f"cannot carry {datatype}; send its bytes in raw_input_contents"
        raise invalid_argument(f"inputs[{index}].contents", problem)
    values = getattr(tensor.contents, name)
    field = f"inputs[{index}].contents.{name}"
    if len(values) != count:
        problem = f"has {len(values)} values, the shape {_dims(tensor.shape)} needs {count}"
        raise invalid_argument(field, problem)
    if datatype == "BYTES":
        array = np.empty(count, dtype=object)
        array[:] = list(values)
        return array
    if datatype not in _NARROW:
        return np.array(values, dtype=plan.spec.dtype)
    wide, limits = np.array(values, dtype=np.int64), np.iinfo(plan.spec.dtype)
    if count and (wide.min() < limits.min or wide.max() > limits.max):
        raise invalid_argument(field, f"has a value outside {datatype}; {limits.min} to {limits.max} are allowed")
    return wide.astype(plan.spec.dtype)


def _check_input_parameters(index: int, parameters: Mapping[str, Any]) -> None:
    if any(name.startswith("shared_memory") for name in parameters):
        problem = "asks for shared memory, which is not served; send the bytes in raw_input_contents"
        raise invalid_argument(f"inputs[{index}].parameters", problem)


def _dims(shape: Sequence[int]) -> str:
    shown = ", ".join(map(str, list(shape)[:16]))
    return f"[{shown}{', ...' if len(shape) > 16 else ''}]"


def _wrong_shape(index: int, shape: tuple[int, ...], spec: TensorSpec) -> ServiceError:
    problem = f"is {_dims(shape)}; {describe(spec)} is taken, where a name stands for any size from 1"
    return invalid_argument(f"inputs[{index}].shape", problem)


def _unequal(index: int, axis: int, size: int, symbols: Mapping[str, int], symbol: Any) -> ServiceError:
    problem = f"is {size}; another input has {symbols[symbol]} for the same dimension '{symbol}', they must be equal"
    return invalid_argument(f"inputs[{index}].shape[{axis}]", problem)


def _wrong_datatype(index: int, datatype: str, spec: TensorSpec) -> ServiceError:
    if datatype == "BF16":
        problem = f"BF16 is not served; send {spec.datatype}"
    else:
        problem = f"is {quote(datatype)}; {describe(spec)} is taken"
    return invalid_argument(f"inputs[{index}].datatype", problem)


def _wrong_size(field: str, size: int, shape: tuple[int, ...], plan: _Input) -> ServiceError:
    wanted = math.prod(shape) * plan.itemsize
    problem = f"has {size} bytes; {plan.spec.datatype} {_dims(shape)} has {wanted}"
    return invalid_argument(field, problem)


def _wrong_bytes(field: str, count: int, problem: str) -> ServiceError:
    rule = f"BYTES with {count} elements is, for each, a 4-byte little-endian length and that many bytes"
    return invalid_argument(field, f"{problem}; {rule}")
