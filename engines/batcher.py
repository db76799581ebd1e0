"""The batcher's public names."""

from collections.abc import Callable, Sequence

from engines.base import Engine
from engines.work import (
    BatcherClosed,
    BatcherError,
    BatchLimits,
    BatchReport,
    BatchTiming,
    DeadlineExpired,
    EnginesLost,
    ItemFailed,
    Outcome,
    QueueFull,
    Work,
)

__all__ = [
    "BatchLimits",
    "BatchReport",
    "BatchTiming",
    "Batcher",
    "BatcherClosed",
    "BatcherError",
    "DeadlineExpired",
    "EnginesLost",
    "ItemFailed",
    "Outcome",
    "QueueFull",
    "Work",
]


class Batcher:
    """One queue in front of the engines of one model."""

    def __init__(
        self, engines: Sequence[Engine], limits: BatchLimits, on_batch: Callable[[BatchReport], None] | None = None
    ) -> None:
        self._engines, self._limits, self._on_batch = engines, limits, on_batch
