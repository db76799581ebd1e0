"""The check of a work against the signature, and what the policy needs to know of it."""

from collections.abc import Hashable

from engines.base import Signature
from engines.work import Deferred, Work


class Intake:
    """Checks works for one signature. On every request's path, hence its few steps."""

    __slots__ = ("_batchable", "_inputs")

    def __init__(self, signature: Signature) -> None:
        self._batchable = signature.batchable
        self._inputs = [(spec.name, spec.dtype) for spec in signature.inputs]

    def describe(self, work: Work) -> tuple[Hashable, int]:
        """Return the work's group (the shapes of its rows) and its tokens (rows times axis 1 of the first input).

        Raises ValueError when names, dtypes or rows are not as the signature says; sizes are left to the engine.
        """
        inputs, rows = work.inputs, work.rows
        if isinstance(inputs, Deferred):
            return self._describe_deferred(inputs, rows)
        if len(inputs) != len(self._inputs) or rows < 1 or (rows != 1 and not self._batchable):
            names = ", ".join(name for name, _ in self._inputs)
            rule = "at least one row" if self._batchable else "exactly one row"
            raise ValueError(f"a work has inputs {names} of {rule}, got {', '.join(inputs) or 'none'} of {rows}")
        group = []
        for name, dtype in self._inputs:
            tensor = inputs.get(name)
            if tensor is None or tensor.dtype != dtype:
                raise ValueError(f"input '{name}' must be there with dtype {dtype}")
            shape = tensor.shape
            if self._batchable and (not shape or shape[0] != rows):
                raise ValueError(f"input '{name}' has shape {list(shape)} in a work of {rows} rows")
            group.append(shape[1:])
        return tuple(group), _tokens(group, rows)

    def _describe_deferred(self, deferred: Deferred, rows: int) -> tuple[Hashable, int]:
        """Trust the names and shapes, since our own code declares them; what is made differently fails in the run."""
        group = [deferred.shapes[name][1:] for name, _ in self._inputs]
        return tuple(group), _tokens(group, rows)


def _tokens(group: list[tuple[int, ...]], rows: int) -> int:
    first = group[0] if group else ()
    return rows * first[0] if first else rows
