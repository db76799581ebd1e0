"""What holds between a signature and tensors: checks of outputs and of declared shapes, and inputs of zeros."""

from collections.abc import Sequence

import numpy as np

from engines.base import Array, EngineError, Signature, Tensors, TensorSpec


def check_outputs(signature: Signature, outputs: Tensors, rows: int) -> None:
    """Check what an engine returned for `rows` rows: every output, its dtype and its shape. Raises EngineError."""
    if len(outputs) != len(signature.outputs):
        named = ", ".join(sorted(outputs)) or "none"
        raise EngineError(f"the engine returned {len(outputs)} outputs ({named}) of {len(signature.outputs)}")
    for spec in signature.outputs:
        array = outputs.get(spec.name)
        if array is None:
            raise EngineError(f"the engine returned no output '{spec.name}'")
        if array.dtype != spec.dtype:
            raise EngineError(f"output '{spec.name}' has dtype {array.dtype}, the signature says {spec.datatype}")
        if signature.batchable and (array.ndim == 0 or array.shape[0] != rows):
            raise EngineError(f"output '{spec.name}' has shape {list(array.shape)} for a batch of {rows} rows")
        if not _fits(array.shape, spec.shape):
            raise EngineError(f"output '{spec.name}' has shape {list(array.shape)}, the signature says {shown(spec)}")


def zeros(signature: Signature, rows: int = 1, size_of_symbols: int = 1) -> dict[str, Array]:
    """Return inputs of zeros (empty strings for BYTES): `rows` rows, every other symbolic dimension as said."""
    made: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = [size if isinstance(size, int) else size_of_symbols for size in spec.shape]
        if signature.batchable:
            shape[0] = rows
        made[spec.name] = np.full(shape, b"", object) if spec.datatype == "BYTES" else np.zeros(shape, spec.dtype)
    return made


def mismatch(declared: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> str:
    """Return the first difference between tensors as declared and as found in a file, or nothing.

    A declared size must be found; a declared name or -1 stands for any symbolic dimension.
    """
    by_name = {spec.name: spec for spec in found}
    for spec in declared:
        actual = by_name.get(spec.name)
        if actual is None:
            return f"'{spec.name}' is declared, but the file has {', '.join(by_name) or 'none'}"
        if actual.datatype != spec.datatype:
            return f"'{spec.name}' is declared {spec.datatype}, but the file says {actual.datatype}"
        if len(actual.shape) != len(spec.shape) or not all(map(_agrees, spec.shape, actual.shape)):
            return f"'{spec.name}' is declared {shown(spec)}, but the file says {shown(actual)}"
    missing = by_name.keys() - {spec.name for spec in declared}
    return f"'{min(missing)}' is in the file, but not declared" if missing else ""


def shown(spec: TensorSpec) -> str:
    """Return the shape as written in a manifest: symbolic dimensions as -1."""
    return str([size if isinstance(size, int) else -1 for size in spec.shape])


def _agrees(declared: int | str, actual: int | str) -> bool:
    if isinstance(declared, str) or declared == -1:
        return isinstance(actual, str)
    return declared == actual


def _fits(shape: tuple[int, ...], spec: tuple[int | str, ...]) -> bool:
    if len(shape) != len(spec):
        return False
    # A loop, not all() of a generator, which takes twice as long: every batch comes through here.
    for wanted, size in zip(spec, shape, strict=True):  # noqa: SIM110
        if wanted != size and not isinstance(wanted, str):
            return False
    return True
