import pickle
import socket

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2

import headrace
from headrace._errors import ERRORS, from_status

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


def test_the_table_has_a_class_of_its_own_for_every_code() -> None:
    assert {code.value[0]: code for code in CODES} == {number: kind.code for number, kind in ERRORS.items()}
    assert len(set(ERRORS.values())) == len(CODES)


@pytest.mark.parametrize("kind", ERRORS.values())
def test_every_error_is_exported_and_drawn(kind) -> None:
    assert getattr(headrace, kind.__name__) is kind
    assert kind.__name__ in headrace.HeadraceError.__doc__


@pytest.mark.parametrize("code", [code for code in CODES if code is not grpc.StatusCode.UNAVAILABLE])
async def test_every_code_arrives_as_its_class_and_is_not_tried_again(mesh, vision, fail, code) -> None:
    mesh.service.failures = [fail(code, "because")]
    with pytest.raises(headrace.HeadraceError, match="because") as caught:
        await vision.classify(b"a")
    assert type(caught.value) is ERRORS[code.value[0]]
    assert caught.value.code is code
    assert len(mesh.service.requests) == 1


async def test_rich_details_are_read(mesh, vision, fail) -> None:
    info = details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="headrace", metadata={"model": "tiny"})
    bad = details_pb2.BadRequest()
    bad.field_violations.add(field="images[3].content", description="is empty")
    retry = details_pb2.RetryInfo(retry_delay=Duration(nanos=250_000_000))
    other = details_pb2.Help()
    mesh.service.failures = [fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (other, info, bad, retry))]
    with pytest.raises(headrace.ResourceExhausted) as caught:
        await vision.embed(b"a")
    error = caught.value
    assert (error.message, error.reason, error.domain) == ("full", "QUEUE_FULL", "headrace")
    assert error.metadata == {"model": "tiny"}
    assert error.violations == (headrace.FieldViolation("images[3].content", "is empty"),)
    assert error.retry_after == 0.25
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in the line itself
    assert (type(copy), copy.details) == (type(error), error.details)


async def test_broken_details_hide_nothing(mesh, vision, fail) -> None:
    trailers = (("grpc-status-details-bin", b"\xff\xff"),)
    mesh.service.failures = [fail(grpc.StatusCode.NOT_FOUND, "there is no such model", (), trailers)]
    with pytest.raises(headrace.NotFound, match="there is no such model") as caught:
        await vision.classify(b"a")
    assert caught.value.details == headrace.Details()


def test_an_item_with_an_unheard_of_code_is_unknown() -> None:
    assert type(from_status(status_pb2.Status(code=99, message="new"))) is headrace.Unknown


async def test_unavailable_is_tried_four_times(mesh, vision, fail) -> None:
    mesh.service.failures = [fail(grpc.StatusCode.UNAVAILABLE, "draining")] * 9
    with pytest.raises(headrace.Unavailable, match="draining"):
        await vision.classify(b"a")
    assert len(mesh.service.requests) == 4


async def test_a_retry_can_succeed_even_with_a_large_request(mesh, vision, fail) -> None:
    mesh.service.failures = [fail(grpc.StatusCode.UNAVAILABLE)]
    results = await vision.classify(b"a" * (4 << 20))
    assert results[0].error is None
    assert len(mesh.service.requests) == 2


async def test_the_servers_push_back_is_honoured(mesh, vision, fail) -> None:
    again = (("grpc-retry-pushback-ms", "1"),)
    never = (("grpc-retry-pushback-ms", "-1"),)
    mesh.service.failures = [fail(grpc.StatusCode.UNAVAILABLE, "no", (), trailers) for trailers in (again, never)]
    with pytest.raises(headrace.Unavailable):
        await vision.classify(b"a")
    assert len(mesh.service.requests) == 2


async def test_failing_calls_are_throttled(mesh, vision, fail) -> None:
    mesh.service.failures = [fail(grpc.StatusCode.UNAVAILABLE, "no", (), (("grpc-retry-pushback-ms", "1"),))] * 40
    for _ in range(4):
        with pytest.raises(headrace.Unavailable):
            await vision.classify(b"a")
    # Of 10 tokens each failure takes one, and from 5 on none is tried again: 4 attempts, then 1 for each call.
    assert len(mesh.service.requests) == 7


async def test_the_deadline_ends_a_silent_call(mesh, vision) -> None:
    mesh.service.silent = True
    with pytest.raises(headrace.DeadlineExceeded):
        await vision.classify(b"a", timeout=0.05)


async def test_messages_over_the_cap_are_refused_before_they_are_sent(mesh, connect) -> None:
    async with connect(mesh.target, max_message_bytes=1000) as vision:
        with pytest.raises(headrace.ResourceExhausted, match="larger than max"):
            await vision.classify(b"a" * 1001)
    assert mesh.service.requests == []


async def test_nobody_listening_is_unavailable(connect) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{closed.getsockname()[1]}"
        async with connect(target, timeout=10) as vision:
            with pytest.raises(headrace.Unavailable, match=r"127\.0\.0\.1"):
                await vision.classify(b"a")
