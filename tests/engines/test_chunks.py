import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engines.chunks import join, split
from engines.work import BatchTiming, Outcome, Work


@given(st.integers(1, 40), st.integers(1, 12))
def test_what_is_split_is_joined_again(rows: int, most: int) -> None:
    whole = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    chunks = split(Work({"x": whole}, rows, 5.0, "tag"), most)
    assert sum(chunk.rows for chunk in chunks) == rows
    assert all(1 <= chunk.rows <= most and (chunk.deadline, chunk.tag) == (5.0, "tag") for chunk in chunks)
    timings = [
        BatchTiming(number, chunk.rows, 1, 0.0, 10.0 + number, 11.0 + number) for number, chunk in enumerate(chunks)
    ]
    outcome = join(
        [
            Outcome({"y": chunk.inputs["x"]}, 9.0, timing, chunk.rows)
            for chunk, timing in zip(chunks, timings, strict=True)
        ],
        rows,
    )
    np.testing.assert_array_equal(outcome.outputs["y"], whole)
    assert (outcome.queued, outcome.rows, outcome.batch.rows) == (9.0, rows, min(rows, most))
    assert (outcome.batch.started, outcome.batch.ended) == (10.0, 10.0 + len(chunks))
