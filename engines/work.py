"""What goes through a batcher: a work in, an outcome or one of these errors out, and a report for each engine run.

BatcherError
├── QueueFull           refused at the door; try again after `retry_after`
├── DeadlineUnmeetable  the work's deadline would pass before its answer is there; try again after `retry_after`
├── DeadlineExpired     the work's deadline passed before its answer was there
├── ItemFailed          the engine failed on this very work; `__cause__` is the EngineError
└── BatcherClosed       the batcher takes no more work
    └── EnginesLost     every engine thread of the batcher has died

The values are not frozen, for a frozen dataclass takes four times as long to make, and each request makes several;
nobody writes to them all the same.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engines.base import Array, EngineError, Tensors

#: When something began and ended, in monotonic seconds.
Span = tuple[float, float]


class BatcherError(Exception):
    """Why a submitted work was not computed."""


class QueueFull(BatcherError):
    """The queue has no room for the work. `retry_after`: seconds until it probably has."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full, retry after {retry_after:.3f} s")
        self.retry_after = retry_after


class DeadlineUnmeetable(BatcherError):
    """The engine's times say that the answer would be late. `retry_after`: seconds until it probably would not."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the deadline cannot be met, retry after {retry_after:.3f} s")
        self.retry_after = retry_after


class DeadlineExpired(BatcherError):
    """The work's deadline passed before its answer was there."""


class ItemFailed(BatcherError):
    """The engine failed on this work also when it ran alone. `__cause__` is the EngineError."""


class BatcherClosed(BatcherError):
    """The batcher takes no more work."""


class EnginesLost(BatcherClosed):
    """Every engine thread of the batcher has died."""


@dataclass(slots=True)
class Deferred:
    """Inputs that are yet to be made, of shapes known beforehand.

    `make` is called in an engine's thread right before the run, so that what it makes is still in that core's cache;
    once more when the batch fails and is halved. What it raises is raised to the work's caller, and fails no other.
    """

    make: Callable[[], Tensors]
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(slots=True)
class Work:
    """One request for one model.

    `inputs`: every input of the signature, with its dtype, or how to make them (`Batcher.prepares_inputs` says when
    that pays). In a batchable model all share axis 0, of `rows` rows; in any other model `rows` is 1 and the tensors
    are the whole request. `deadline`: absolute `time.monotonic()` seconds. `tag`: opaque, handed back in
    `BatchReport.tags`. `padding`: share of its tokens that only fill rows up, 0 to 1.
    """

    inputs: Tensors | Deferred
    rows: int
    deadline: float = math.inf
    tag: object = None
    padding: float = 0.0


@dataclass(slots=True)
class BatchTiming:
    """One engine run: `members` works of `rows` rows in all; `started` and `ended` in monotonic seconds.

    `padding_ratio`: share of the computed tokens that was padding, 0 to 1.
    """

    batch_id: int
    rows: int
    members: int
    padding_ratio: float
    started: float
    ended: float


@dataclass(slots=True)
class Outcome:
    """The answer to a work of `rows` rows that arrived at the monotonic instant `queued`.

    `outputs` may be views of the batch's tensors: read them, do not write to them. `prepared`: when the work's
    inputs were made, if they came deferred.
    """

    outputs: dict[str, Array]
    queued: float
    batch: BatchTiming
    rows: int
    prepared: Span | None = None

    @property
    def waited(self) -> float:
        """Return the seconds for which the work was neither prepared nor computed."""
        waited = self.batch.started - self.queued
        if self.prepared is not None:
            waited -= self.prepared[1] - self.prepared[0]
        return max(waited, 0.0)


@dataclass(slots=True)
class BatchReport:
    """What one engine run was: the tags of its works in order, and the error when it failed."""

    timing: BatchTiming
    tags: tuple[object, ...]
    error: EngineError | None = None


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch and a queue may grow.

    `max_rows`: rows of one batch. `max_queue_rows`: rows waiting. `max_tokens`: rows times the length of axis 1 of
    the first input of one batch, when set; a single row longer than that runs alone.
    """

    max_rows: int
    max_queue_rows: int
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.max_queue_rows < 1 or (self.max_tokens is not None and self.max_tokens < 1):
            raise ValueError(f"batch limits must be at least 1, got {self}")


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """Counts since the start, and what is there now."""

    engines: int
    queued_rows: int
    running_rows: int
    batches: int
    rows: int
    failed_batches: int
