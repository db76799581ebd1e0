"""A work larger than a batch: cut into chunks, and the chunks' outcomes joined."""

from dataclasses import replace

import numpy as np

from engines.work import Deferred, Outcome, Work


def split(work: Work, rows: int) -> list[Work]:
    """Cut `work` into works of at most `rows` rows, in order. Raises ValueError for deferred inputs."""
    inputs = work.inputs
    if isinstance(inputs, Deferred):
        raise ValueError(f"deferred inputs have at most the {rows} rows of one batch, not {work.rows}")
    return [
        replace(
            work,
            inputs={name: tensor[start : start + rows] for name, tensor in inputs.items()},
            rows=min(rows, work.rows - start),
        )
        for start in range(0, work.rows, rows)
    ]


def join(outcomes: list[Outcome], rows: int) -> Outcome:
    """Put the outcomes of all chunks together; the timing spans all their batches and names the largest one's size."""
    first, last = outcomes[0], outcomes[-1]
    batches = [outcome.batch for outcome in outcomes]
    largest = max(batches, key=lambda batch: batch.rows)
    timing = replace(
        largest, started=min(batch.started for batch in batches), ended=max(batch.ended for batch in batches)
    )
    outputs = {name: np.concatenate([outcome.outputs[name] for outcome in outcomes]) for name in last.outputs}
    return Outcome(outputs, first.queued, timing, rows)
