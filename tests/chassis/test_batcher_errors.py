"""What callers hear of each error of the batcher."""

import time

import grpc
import pytest
from google.rpc import error_details_pb2

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
from services.chassis.batcher_errors import translated
from services.chassis.errors import ServiceError
from services.chassis.model_table import LoadedModel


def heard(error: BatcherError) -> ServiceError:
    now = time.monotonic()
    return translated(error, LoadedModel("double", "1", None), Work({}, 1, now + 1), now)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (QueueFull(0.25), grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        (DeadlineUnmeetable(0.25), grpc.StatusCode.RESOURCE_EXHAUSTED, "DEADLINE_UNMEETABLE"),
        (DeadlineExpired(""), grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (ItemFailed(""), grpc.StatusCode.INTERNAL, "ENGINE_FAILED"),
        (EnginesLost(""), grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE"),
        (BatcherClosed(""), grpc.StatusCode.UNAVAILABLE, "DRAINING"),
        (BatcherError(""), grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
def test_each_error_has_its_code_and_reason(error: BatcherError, code: grpc.StatusCode, reason: str) -> None:
    told = heard(error)
    assert (told.code, told.reason) == (code, reason)


@pytest.mark.parametrize("error", [QueueFull(0.25), DeadlineUnmeetable(0.25)])
def test_who_is_refused_hears_when_to_retry(error: BatcherError) -> None:
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in heard(error).details().details)
    assert retry.retry_delay.nanos == 250_000_000
