"""Deferred inputs, made in the thread that computes them right after."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.base import Tensors
from engines.work import Deferred, Span, Work


@dataclass(slots=True)
class Prepared:
    """The inputs of a batch, for the works that have some, in order, and their rows in all.

    By the place of the work in the batch: `spans`, when its inputs were made; `failures`, why they could not be.
    """

    inputs: list[Tensors]
    rows: int
    spans: Mapping[int, Span]
    failures: Mapping[int, Exception]

    @property
    def seconds(self) -> float:
        """Return the time that all of it took, failures aside."""
        return sum(ended - started for started, ended in self.spans.values()) if self.spans else 0.0


def prepare(works: Sequence[Work]) -> Prepared:
    """Make the deferred inputs of `works`. What making one raises fails that work only."""
    made: list[Tensors] = []
    rows = 0
    spans: dict[int, Span] = {}
    failures: dict[int, Exception] = {}
    for place, work in enumerate(works):
        inputs = work.inputs
        if isinstance(inputs, Deferred):
            started = time.monotonic()
            try:
                inputs = inputs.make()
            except Exception as error:  # noqa: BLE001 - it is the caller's own, and goes back to the caller as it is.
                failures[place] = error
                continue
            spans[place] = (started, time.monotonic())
        made.append(inputs)
        rows += work.rows
    return Prepared(made, rows, spans, failures)
