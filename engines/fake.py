"""An engine that computes next to nothing and misbehaves on request: for tests of queues, faults and front ends."""

import threading
import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engines.base import Array, EngineError, Signature, Tensors, TensorSpec

Wrong = Literal["", "rows", "missing", "dtype", "shape"]

_DEFAULT_INPUTS = (TensorSpec("x", "FP32", ("rows", 4)),)


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """What the fake does.

    Each input `x` gives an output `y` (`name` gives `name_out`) of `factor` times its values; BYTES are passed on.
    `seconds_per_batch` and `seconds_per_row` are slept. `fail_on`: a batch fails when a row's first element in the
    first input equals it; `die_on`: the same ends the thread. `wrong`: which promise of the signature to break.
    `gate`: each run waits until it is set.
    """

    inputs: tuple[TensorSpec, ...] = _DEFAULT_INPUTS
    batchable: bool = True
    factor: float = 2.0
    seconds_per_batch: float = 0.0
    seconds_per_row: float = 0.0
    fail_on: float | None = None
    die_on: float | None = None
    wrong: Wrong = ""
    gate: threading.Event | None = None


class FakeEngine:
    """Deterministic. `batches`: the rows of each run so far, for tests that ask what reached an engine."""

    def __init__(self, options: FakeOptions | None = None) -> None:
        self._options = options or FakeOptions()
        inputs = self._options.inputs
        outputs = tuple(replace(spec, name=_output_name(spec.name)) for spec in inputs)
        self._signature = Signature(inputs, outputs, self._options.batchable)
        self.batches: list[dict[str, Array]] = []
        self.closed = False

    @property
    def signature(self) -> Signature:
        """Return the tensors that the options name."""
        return self._signature

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm."""

    def run(self, batch: Tensors) -> dict[str, Array]:
        """Compute, sleep, fail or break a promise, as the options say. Raises EngineError."""
        options = self._options
        first = batch[self._signature.inputs[0].name]
        self.batches.append({name: tensor.copy() for name, tensor in batch.items()})
        if options.gate is not None:
            options.gate.wait()
        time.sleep(options.seconds_per_batch + options.seconds_per_row * (len(first) if first.ndim else 1))
        if _holds(first, options.die_on):
            raise SystemExit("the fake engine was told to die")
        if _holds(first, options.fail_on):
            raise EngineError(f"the fake engine fails on a row that begins with {options.fail_on}")
        return _broken({_output_name(name): self._scaled(tensor) for name, tensor in batch.items()}, options.wrong)

    def close(self) -> None:
        """Note the call. Idempotent."""
        self.closed = True

    def _scaled(self, tensor: Array) -> Array:
        if tensor.dtype == np.object_:
            return tensor.copy()
        return (tensor * self._options.factor).astype(tensor.dtype)


def _output_name(name: str) -> str:
    return "y" if name == "x" else f"{name}_out"


def _holds(tensor: Array, value: float | None) -> bool:
    if value is None or tensor.size == 0:
        return False
    firsts = tensor.reshape(len(tensor), -1)[:, 0] if tensor.ndim else tensor.reshape(1)
    return bool(np.any(firsts == value))


def _broken(outputs: dict[str, Array], wrong: Wrong) -> dict[str, Array]:
    name, tensor = next(iter(outputs.items()))
    if wrong == "missing":
        del outputs[name]
    elif wrong == "rows":
        outputs[name] = tensor[:-1]
    elif wrong == "dtype":
        outputs[name] = tensor.astype(np.complex64)
    elif wrong == "shape":
        outputs[name] = np.concatenate([tensor, tensor], axis=-1)
    return outputs
