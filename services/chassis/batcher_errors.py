"""The one table from the batcher's errors to the callers'."""

from engines.work import (
    BatcherClosed,
    BatcherError,
    DeadlineExpired,
    DeadlineUnmeetable,
    EnginesLost,
    ItemFailed,
    QueueFull,
    Work,
)
from services.chassis import errors
from services.chassis.errors import ServiceError
from services.chassis.model_table import LoadedModel


def translated(error: BatcherError, model: LoadedModel, work: Work, started: float) -> ServiceError:
    """What the caller hears who has sent `work` to `model` at `started` (monotonic seconds)."""
    match error:
        case QueueFull():
            found = errors.queue_full(model.name, error.retry_after)
        case DeadlineUnmeetable():
            found = errors.deadline_unmeetable(model.name, error.retry_after)
        case DeadlineExpired():
            found = errors.deadline_exceeded(f"model {model.name}", work.deadline - started)
        case ItemFailed():
            found = errors.engine_failed(model.name)
        case EnginesLost():
            found = errors.model_unavailable(model.name, model.reason)
        case BatcherClosed():
            found = errors.draining()
        case _:
            found = errors.internal("")
    return found
