"""Deferred inputs, made in the thread that computes them right after."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from engines.base import Tensors
from engines.work import Deferred, Span, Work


@dataclass(slots=True)
class Prepared:
    """The inputs of a batch, for the works that have some, in order, and their rows in all.

    By the place of the work in the batch: `spans`, when its inputs were made; `failures`, why they could not be.
    """

    inputs: list[Tensors]
    rows: int
    spans: dict[int, Span] = field(default_factory=dict)
    failures: dict[int, Exception] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Return the time that all of it took, failures aside."""
        return sum([ended - started for started, ended in self.spans.values()])


def prepare(works: Sequence[Work]) -> Prepared:
    """Make the deferred inputs of `works`. What making one raises fails that work only."""
    prepared = Prepared([], 0)
    for place, work in enumerate(works):
        inputs = work.inputs
        if isinstance(inputs, Deferred):
            started = time.monotonic()
            try:
                inputs = inputs.make()
            except Exception as error:  # noqa: BLE001 - it is the caller's own, and goes back to the caller as it is.
                prepared.failures[place] = error
                continue
            prepared.spans[place] = (started, time.monotonic())
        prepared.inputs.append(inputs)
        prepared.rows += work.rows
    return prepared
