import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from engines.batcher import Batcher, BatchLimits, BatchReport, BatchTiming, Outcome, Work
from engines.fake import FakeEngine, FakeOptions
from services.chassis import telemetry
from services.chassis.call import Call
from services.chassis.metrics import Metrics
from services.chassis.telemetry import Telemetry, otlp_exporter, sampled_parent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
UNSAMPLED = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-00"),)
METHOD = "inference.GRPCInferenceService/ModelReady"


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans = []
        self.services = set()

    async def Export(self, request, context):  # noqa: N802  # The rpc's name.
        for resource in request.resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name):
        return [span for span in self.spans if span.name == name]


@asynccontextmanager
async def receiving(address: str) -> AsyncIterator[tuple[Receiver, str]]:
    server, receiver = grpc.aio.server(), Receiver()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield receiver, address if address.startswith("unix:") else f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def attributes(span):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


async def flush(running):
    assert await asyncio.to_thread(running.process.telemetry.flush, 0.3)


async def test_a_sampled_call_leaves_a_tree_and_a_linked_batch(serve, tools, tmp_path):
    async with (
        receiving(f"unix:{tmp_path}/otlp.sock") as (receiver, address),
        serve(otlp_endpoint=address) as running,
    ):
        engine = FakeEngine(FakeOptions(seconds_per_batch=0.01))
        observer = running.process.telemetry.batch_observer("double", "1")
        batcher = Batcher([engine], BatchLimits(16, 64), observer)
        await batcher.start()

        async def answer(request, call):
            with telemetry.span(call, "transform"):
                rows = np.ones((2, 4), np.float32)
            outcome = await batcher.submit(Work({"x": rows}, 2, call.deadline, call.trace))
            call.record("double", "1", [outcome])
            return tools.pb.ModelReadyResponse(ready=True)

        running.servicer.answer = answer
        ready, request = running.model_ready(), tools.pb.ModelReadyRequest()
        before = time.time_ns()
        await ready(request, metadata=SAMPLED)
        after = time.time_ns()
        await ready(request, metadata=UNSAMPLED)
        await ready(request)
        await batcher.close()
        await flush(running)

        assert receiver.services == {"test-0"}
        assert sorted(span.name for span in receiver.spans) == sorted(
            [METHOD, "transform", "queue", "engine", "headrace.batch"]
        )
        [server] = receiver.named(METHOD)
        assert server.trace_id.hex() == TRACE
        assert server.parent_span_id.hex() == "b7ad6b7169203331"
        facts = attributes(server)
        assert facts["rpc.system.name"] == "grpc"
        assert facts["rpc.method"] == METHOD
        assert facts["rpc.status_code"] == "OK"
        assert facts["headrace.model.name"] == "double"
        assert facts["headrace.batch.rows"] == 2
        for name in ("transform", "queue", "engine"):
            [span] = receiver.named(name)
            assert (span.trace_id, span.parent_span_id) == (server.trace_id, server.span_id)
            assert before <= span.start_time_unix_nano <= span.end_time_unix_nano <= after
        [batch], [engine_span], [queue] = (receiver.named(name) for name in ("headrace.batch", "engine", "queue"))
        assert batch.trace_id != server.trace_id
        assert [link.span_id for link in batch.links] == [server.span_id]
        assert [link.span_id for link in engine_span.links] == [batch.span_id]
        assert queue.end_time_unix_nano == engine_span.start_time_unix_nano
        assert engine_span.end_time_unix_nano - engine_span.start_time_unix_nano >= 10_000_000
        assert attributes(batch)["headrace.batch.members"] == 1


async def test_every_sampled_call_of_a_batch_is_linked(serve, tools):
    async with receiving("127.0.0.1:0") as (receiver, address), serve(otlp_endpoint=address) as running:
        observer = running.process.telemetry.batch_observer("double", "1")
        batcher = Batcher([FakeEngine(FakeOptions(seconds_per_batch=0.05))], BatchLimits(64, 64), observer)
        await batcher.start()

        async def answer(request, call):
            work = Work({"x": np.ones((1, 4), np.float32)}, 1, call.deadline, call.trace)
            call.record("double", "1", [await batcher.submit(work)])
            return tools.pb.ModelReadyResponse()

        running.servicer.answer = answer
        ready = running.model_ready()
        await asyncio.gather(*(ready(tools.pb.ModelReadyRequest(), metadata=SAMPLED) for _ in range(8)))
        await batcher.close()
        await flush(running)
        batches = {span.span_id: span for span in receiver.named("headrace.batch")}
        servers = {span.span_id for span in receiver.named(METHOD)}
        assert len(servers) == 8
        linked = [link.span_id for batch in batches.values() for link in batch.links]
        assert sorted(linked) == sorted(servers)
        for engine in receiver.named("engine"):
            batch = batches[engine.links[0].span_id]
            assert engine.parent_span_id in {link.span_id for link in batch.links}
        assert max(len(batch.links) for batch in batches.values()) > 1


async def test_errors_mark_the_server_span(serve, tools):
    async with receiving("127.0.0.1:0") as (receiver, address), serve(otlp_endpoint=address) as running:

        async def answer(request, call):
            raise ValueError

        running.servicer.answer = answer
        ready = running.model_ready()
        with pytest.raises(grpc.aio.AioRpcError):
            await ready(tools.pb.ModelReadyRequest(), metadata=SAMPLED)
        with pytest.raises(grpc.aio.AioRpcError):
            await ready(b"\xff", metadata=SAMPLED)
        await flush(running)
        codes = {attributes(span)["rpc.status_code"]: span.status.code for span in receiver.spans}
        assert codes == {"INTERNAL": 2, "INVALID_ARGUMENT": 0}
        reasons = {attributes(span)["headrace.error.reason"] for span in receiver.spans}
        assert reasons == {"INTERNAL", "MALFORMED_MESSAGE"}


async def test_a_receiver_that_is_gone_costs_one_line(serve, tools, tmp_path, caplog):
    async with serve(otlp_endpoint=f"unix:{tmp_path}/gone.sock") as running:
        ready = running.model_ready()
        for _ in range(3):
            assert (await ready(tools.pb.ModelReadyRequest(), metadata=SAMPLED)).ready
            await asyncio.to_thread(running.process.telemetry.flush, 0.3)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    lines = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert len(lines) <= 1
    assert all(record.levelno == logging.WARNING for record in lines)


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", True),
        (f"00-{TRACE}-b7ad6b7169203331-03", True),
        (f"cc-{TRACE}-b7ad6b7169203331-01-later", True),
        (f"00-{TRACE}-b7ad6b7169203331-00", False),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"ff-{TRACE}-b7ad6b7169203331-01", False),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", False),
        (f"00-{TRACE}-b7ad6b7169203331-01-more", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_who_is_sampled(header, sampled):
    assert (sampled_parent(header) is not None) is sampled


def test_a_long_stream_does_not_fill_memory():
    process = Telemetry("test", Metrics(), otlp_exporter("127.0.0.1:1"))
    call = Call("a/b", trace=process.begin("a/b", SAMPLED[0][1]), observer=process.computed)
    observe = process.batch_observer("m", "1")
    for number in range(2000):
        timing = BatchTiming(number, 1, 1, 0.0, float(number), number + 0.5)
        observe(BatchReport(timing, (call.trace,), None))
        call.record("m", "1", [Outcome({}, float(number), timing, 1)])
    assert len(call.trace.batches) <= 300
    assert call.receipt.engine_share_ms == pytest.approx(2000 * 500)
    assert math.isinf(call.deadline)
    process.close(within=0.0)
