import asyncio
import logging
import struct
import time

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from services.chassis import errors, rpc
from services.chassis.call import Receipt


def details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    return status


def info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    found = error_details_pb2.ErrorInfo()
    assert details(error).details[0].Unpack(found)
    assert found.domain == "headrace"
    return found


async def refused(awaitable):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value


async def test_answers_and_measures(serve, tools):
    async with serve() as running:
        reply = await running.model_ready()(tools.pb.ModelReadyRequest(name="double"))
        assert reply.ready
        assert running.servicer.calls[0].method == "inference.GRPCInferenceService/ModelReady"
        assert running.process.gate.active == 0


async def test_malformed_bytes_are_the_callers_fault(serve):
    async with serve() as running:
        error = await refused(running.model_ready()(b"\xff\xff\xff"))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert info(error).reason == "MALFORMED_MESSAGE"
        assert "inference.ModelReadyRequest" in error.details()


async def test_a_large_message_names_the_limit(serve, tools):
    async with serve(rpc.Limits(max_message_bytes=1024)) as running:
        error = await refused(running.model_ready()(tools.pb.ModelReadyRequest(name="x" * 2000)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert info(error).metadata["limit_bytes"] == "1024"
        far_above = await refused(running.model_ready()(tools.pb.ModelReadyRequest(name="x" * 9000)))
        assert far_above.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("method", ["ModelInfer", "Nothing"])
async def test_unknown_methods_say_so(serve, tools, method):
    async with serve() as running:
        error = await refused(running.channel().unary_unary(f"{tools.path}/{method}")(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert info(error).metadata["method"] == f"'{tools.path}/{method}'"


async def test_declared_errors_carry_their_details(serve, tools):
    async with serve() as running:

        async def answer(request, call):
            raise errors.queue_full("double", 0.25)

        running.servicer.answer = answer
        error = await refused(running.model_ready()(tools.pb.ModelReadyRequest()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        assert details(error).details[1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == 250
        registry = running.process.telemetry.metrics.registry
        assert registry.get_sample_value("headrace_rejected_total", {"model": "double", "reason": "QUEUE_FULL"}) == 1


async def test_undeclared_errors_stay_in_the_log(serve, tools, caplog):
    async with serve() as running:

        async def answer(request, call):
            raise ValueError("secret words")

        running.servicer.answer = answer
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
        call = running.model_ready()(tools.pb.ModelReadyRequest(), metadata=(("traceparent", traceparent),))
        error = await refused(call)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in error.details()
        assert info(error).metadata["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        record = next(record for record in caplog.records if record.levelno == logging.ERROR)
        assert record.trace_id == "0af7651916cd43dd8448eb211c80319c"
        assert record.exc_info[0] is ValueError


@pytest.mark.parametrize("metadata", [(), (("headrace-timeout", "50ms"),)])
async def test_a_call_without_deadline_gets_one(serve, tools, metadata):
    default = 30.0 if metadata else 0.05
    async with serve(rpc.Limits(default_deadline=default)) as running:
        running.servicer.answer = lambda request, call: asyncio.sleep(60)
        started = time.monotonic()
        error = await refused(running.model_ready()(tools.pb.ModelReadyRequest(), metadata=metadata))
        assert time.monotonic() - started < 5
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert info(error).metadata["deadline_s"] == "0.05"
        await asyncio.wait_for(running.servicer.cancelled.wait(), 5)


async def test_the_earliest_deadline_counts(serve, tools):
    async with serve(rpc.Limits(default_deadline=5, max_deadline=20)) as running:
        ready, request = running.model_ready(), tools.pb.ModelReadyRequest()
        await ready(request, timeout=8)
        await ready(request, timeout=8, metadata=(("headrace-timeout", "2.5"),))
        await ready(request, timeout=60)
        await ready(request, metadata=(("headrace-timeout", "1000s"),))
        await ready(request)
        allowed = [call.deadline - call.started for call in running.servicer.calls]
        assert allowed == pytest.approx([8, 2.5, 20, 20, 5], abs=0.2)


@pytest.mark.parametrize("value", ["soon", "-1", "0", "1h", "1e3", "9" * 40])
async def test_a_bad_timeout_header_is_named(serve, tools, value):
    async with serve() as running:
        call = running.model_ready()(tools.pb.ModelReadyRequest(), metadata=(("headrace-timeout", value),))
        error = await refused(call)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith("headrace-timeout: ")


async def test_a_cancelled_caller_cancels_the_handler(serve, tools):
    async with serve() as running:
        running.servicer.answer = lambda request, call: asyncio.sleep(60)
        call = running.model_ready()(tools.pb.ModelReadyRequest())
        await running.servicer.entered.wait()
        call.cancel()
        await asyncio.wait_for(running.servicer.cancelled.wait(), 5)
        await tools.poll(lambda: running.process.gate.active == 0)
        labels = {"rpc_method": "inference.GRPCInferenceService/ModelReady", "rpc_status_code": "CANCELLED"}
        registry = running.process.telemetry.metrics.registry
        assert registry.get_sample_value("rpc_server_call_duration_seconds_count", labels) == 1


async def test_an_expired_caller_cancels_the_handler(serve, tools):
    async with serve() as running:
        running.servicer.answer = lambda request, call: asyncio.sleep(60)
        error = await refused(running.model_ready()(tools.pb.ModelReadyRequest(), timeout=0.05))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(running.servicer.cancelled.wait(), 5)


async def test_the_receipt_comes_as_headers(serve, tools):
    async with serve() as running:

        async def answer(request, call):
            call.receipt = Receipt("double", "3", 1.25, 2.5, 0.5, 7, 0.125)
            return tools.pb.ModelReadyResponse(ready=True)

        running.servicer.answer = answer
        call = running.model_ready()(tools.pb.ModelReadyRequest())
        headers = dict(await call.initial_metadata())
        assert headers["headrace-model"] == "double@3"
        assert headers["headrace-queue-ms"] == "1.250"
        assert headers["headrace-engine-ms"] == "2.500"
        assert headers["headrace-engine-share-ms"] == "0.500"
        assert headers["headrace-batch-rows"] == "7"
        assert headers["headrace-padding-ratio"] == "0.125"
        assert (await call).ready


async def test_a_stream_answers_and_ends(serve, tools):
    async with serve() as running:
        stream = running.stream()
        for name in ("a", "b"):
            await stream.write(tools.pb.ModelInferRequest(id=name))
            assert (await stream.read()).infer_response.id == name
        await stream.done_writing()
        assert (await stream.read()).infer_response.id == "last"
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        call = running.servicer.calls[0]
        assert call.deadline == float("inf")
        assert call.item_deadline() == pytest.approx(time.monotonic() + 30, abs=1)


async def test_the_receipt_of_a_stream_comes_as_trailers(serve, tools):
    async with serve() as running:
        stream = running.stream()
        await stream.write(tools.pb.ModelInferRequest(id="receipt"))
        await stream.done_writing()
        assert [answer.infer_response.id async for answer in stream] == ["receipt", "last"]
        assert dict(await stream.trailing_metadata())["headrace-model"] == "double@1"


async def test_a_stream_has_the_deadline_of_its_caller(serve, tools):
    async with serve() as running:
        stream = running.channel().stream_stream(f"{tools.path}/ModelStreamInfer")(timeout=0.05)
        error = await refused(stream.read())
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await tools.poll(lambda: running.process.gate.active == 0)


async def test_a_failing_stream_carries_details(serve, tools):
    async with serve() as running:
        stream = running.stream()
        await stream.write(tools.pb.ModelInferRequest(id="fail"))
        error = await refused(stream.read())
        assert error.code() is grpc.StatusCode.INTERNAL
        assert info(error).reason == "INTERNAL"
        assert "secret" not in error.details()
        await tools.poll(lambda: running.process.gate.active == 0)


async def test_bytes_that_a_stream_does_not_understand(serve, tools):
    async with serve() as running:
        stream = running.channel().stream_stream(f"{tools.path}/ModelStreamInfer")()
        await stream.write(b"\xff\xff")
        error = await refused(stream.read())
        assert info(error).reason == "MALFORMED_MESSAGE"


async def test_core_ends_what_its_caller_abandons_at_the_deadline(serve, tools):
    """A peer that sends grpc-timeout and then never resets the stream must not keep the handler alive."""
    async with serve() as running:
        running.servicer.answer = lambda request, call: asyncio.sleep(60)
        host, port = running.address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
            headers = literal_headers(
                {
                    ":method": "POST",
                    ":scheme": "http",
                    ":path": f"{tools.path}/ModelReady",
                    ":authority": "test",
                    "content-type": "application/grpc",
                    "te": "trailers",
                    "grpc-timeout": "100m",
                }
            )
            writer.write(frame(1, 4, 1, headers) + frame(0, 1, 1, b"\0" + struct.pack(">I", 0)))
            await writer.drain()
            await asyncio.wait_for(running.servicer.cancelled.wait(), 5)
        finally:
            writer.close()
            await writer.wait_closed()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal_headers(headers: dict[str, str]) -> bytes:
    return b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in headers.items()
    )
