# ruff: noqa: N802 - the names of rpcs are the protocol's
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.trace.v1 import trace_pb2

from gateway import runfile
from gateway.control import Control
from gateway.plain_http import fetch
from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace.inference import open_inference_pb2 as pb
from headrace.inference import open_inference_pb2_grpc as pb_grpc
from services.chassis import errors, health, rpc
from services.chassis.settings import ServiceSettings, Settings

VISION = "headrace.vision.v1.VisionService"
ONE = Settings(services={"vision": ServiceSettings()})


class Models:
    """What a service's Open Inference door says, changeable by a test."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.settled = True

    async def ServerMetadata(self, request: Any, call: Any) -> Any:
        return pb.ServerMetadataResponse(name="headrace", extensions=["parameters", "statistics"])

    async def ServerReady(self, request: Any, call: Any) -> Any:
        return pb.ServerReadyResponse(ready=self.settled)

    async def RepositoryIndex(self, request: Any, call: Any) -> Any:
        models = [pb.RepositoryIndexResponse.ModelIndex(name=name, version="1", state="READY") for name in self.names]
        return pb.RepositoryIndexResponse(models=models)

    async def ModelStatistics(self, request: Any, call: Any) -> Any:
        return pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(name=name) for name in self.names])

    async def ModelMetadata(self, request: Any, call: Any) -> Any:
        return pb.ModelMetadataResponse(name=request.name, platform="fake")

    async def ModelInfer(self, request: Any, call: Any) -> Any:
        if request.id == "bad":
            raise errors.invalid_argument("inputs", "is empty")
        return pb.ModelInferResponse(id=request.id, model_name=request.model_name)


@contextlib.asynccontextmanager
async def service(address: str, models: Models) -> AsyncIterator[health.Health]:
    """A service process's doors, served for real on `address`."""
    policy = rpc.Policy()
    state = health.Health([VISION])
    server = grpc.aio.server()
    inference = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    server.add_generic_rpc_handlers(
        (rpc.handlers(inference, models, policy), rpc.handlers(health.SERVICE, state, policy))
    )
    server.add_insecure_port(address)
    await server.start()
    try:
        yield state
    finally:
        state.close()
        await server.stop(0)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        await asyncio.sleep(0.01)


@pytest.fixture
def run_dir() -> Any:
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        yield Path(folder)


@pytest.fixture
async def control(run_dir: Path) -> AsyncIterator[Control]:
    made = Control(ONE, run_dir)
    async with made.serving():
        yield made


@pytest.fixture
async def channel(control: Control, run_dir: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{run_dir}/control.sock") as opened:
        yield opened


def reason(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    return info


async def test_a_service_that_loads_answers_and_is_not_ready(control: Control, run_dir: Path) -> None:
    models = Models("double")
    models.settled = False
    async with service(f"unix:{run_dir}/vision-0.sock", models):
        await until(control.state.all_serving)
        await until(lambda: control.state.models() == {"double": "vision"})
        assert not control.ready()
        assert control.state.statuses()[0].problem == "it loads its models"
        models.settled = True
        await until(control.ready)
        # A process that has begun again loads again.
    await until(lambda: not control.state.all_serving())
    models.settled = False
    async with service(f"unix:{run_dir}/vision-0.sock", models):
        await until(control.state.all_serving)
        assert not control.ready()


async def test_follows_a_service_through_life_and_death(
    control: Control, channel: grpc.aio.Channel, run_dir: Path
) -> None:
    inference = pb_grpc.GRPCInferenceServiceStub(channel)
    checks = health_pb2_grpc.HealthStub(channel)
    assert (await inference.ServerLive(pb.ServerLiveRequest())).live
    assert not (await inference.ServerReady(pb.ServerReadyRequest())).ready
    async with service(f"unix:{run_dir}/vision-0.sock", Models("double")) as vision:
        await until(control.ready)
        assert (await inference.ServerReady(pb.ServerReadyRequest())).ready
        assert list((await inference.ServerMetadata(pb.ServerMetadataRequest())).extensions) == [
            "parameters",
            "statistics",
        ]
        assert control._snapshot().models == {"double": "vision"}
        vision.set("models", well=False)
        await until(lambda: not control.state.ready())
        vision.set("models", well=True)
        await until(control.ready)
    await until(lambda: not control.state.ready())
    answer = await checks.Check(health_pb2.HealthCheckRequest(service=VISION))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    # A model whose service is away stays in the routes: its callers hear UNAVAILABLE, not NOT_FOUND.
    assert control._snapshot().models == {"double": "vision"}
    async with service(f"unix:{run_dir}/vision-0.sock", Models("double", "triple")):
        await until(lambda: control.ready() and "triple" in control.state.models())


async def test_a_restarted_control_process_remembers_the_models(run_dir: Path) -> None:
    first = Control(ONE, run_dir)
    async with first.serving(), service(f"unix:{run_dir}/vision-0.sock", Models("double")):
        await until(first.ready)
        await until(lambda: "double" in str(runfile.read_status(run_dir)))
    second = Control(ONE, run_dir)
    assert second._snapshot().models == {"double": "vision"}
    assert not second.state.ready()


async def test_the_repository_index_is_merged_and_filtered(
    control: Control, channel: grpc.aio.Channel, run_dir: Path
) -> None:
    inference = pb_grpc.GRPCInferenceServiceStub(channel)
    async with service(f"unix:{run_dir}/vision-0.sock", Models("b", "a")):
        await until(control.ready)
        index = await inference.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
        assert [(model.name, model.state) for model in index.models] == [("a", "READY"), ("b", "READY")]
        statistics = await inference.ModelStatistics(pb.ModelStatisticsRequest())
        assert [model.name for model in statistics.model_stats] == ["b", "a"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="x"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_model_is_not_found_and_the_known_are_named(
    control: Control, channel: grpc.aio.Channel, run_dir: Path
) -> None:
    inference = pb_grpc.GRPCInferenceServiceStub(channel)
    async with service(f"unix:{run_dir}/vision-0.sock", Models("double")):
        await until(control.ready)
        for call in (
            inference.ModelInfer(pb.ModelInferRequest(model_name="dubble")),
            inference.ModelReady(pb.ModelReadyRequest(name="dubble")),
            inference.ModelMetadata(pb.ModelMetadataRequest(name="dubble")),
            inference.ModelConfig(pb.ModelConfigRequest(name="dubble")),
            inference.ModelStatistics(pb.ModelStatisticsRequest(name="dubble")),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="did you mean double") as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert reason(caught.value).reason == "MODEL_NOT_FOUND"
        with pytest.raises(grpc.aio.AioRpcError, match="must name a model"):
            await inference.ModelInfer(pb.ModelInferRequest())


async def test_a_stream_answers_each_item_wherever_its_model_is(
    control: Control, channel: grpc.aio.Channel, run_dir: Path
) -> None:
    async with service(f"unix:{run_dir}/vision-0.sock", Models("double")):
        await until(control.ready)
        requests = [pb.ModelInferRequest(id=str(n), model_name=name) for n, name in enumerate(["nope", "double", ""])]
        stream = pb_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(requests))
        answers = {answer.infer_response.id: answer async for answer in stream}
    assert "there is no model 'nope'" in answers["0"].error_message
    assert answers["1"].error_message == ""
    assert answers["1"].infer_response.model_name == "double"
    assert "must name a model" in answers["2"].error_message


async def test_what_the_gateway_could_not_look_into_is_answered_by_the_models_holder(
    control: Control, channel: grpc.aio.Channel, run_dir: Path
) -> None:
    inference = pb_grpc.GRPCInferenceServiceStub(channel)
    async with service(f"unix:{run_dir}/vision-0.sock", Models("double")):
        await until(control.ready)
        zipped = grpc.Compression.Gzip
        about = await inference.ModelMetadata(pb.ModelMetadataRequest(name="double"), compression=zipped)
        assert (about.name, about.platform) == ("double", "fake")
        asked = pb.ModelInferRequest(model_name="double", id="x" * 5000)
        assert (await inference.ModelInfer(asked, compression=zipped)).id == asked.id
        with pytest.raises(grpc.aio.AioRpcError, match="inputs: is empty") as caught:
            await inference.ModelInfer(pb.ModelInferRequest(model_name="double", id="bad"), compression=zipped)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason(caught.value).reason == "INVALID_FIELD"
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await inference.ModelMetadata(pb.ModelMetadataRequest(name="nope"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as away:
        await inference.ModelMetadata(pb.ModelMetadataRequest(name="double"))
    assert away.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(away.value).reason == "MODEL_UNAVAILABLE"


async def test_health_watch_follows_the_mesh_and_list_names_all(
    control: Control, channel: grpc.aio.Channel, run_dir: Path
) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    seen = [(await watch.read()).status]
    async with service(f"unix:{run_dir}/vision-0.sock", Models("double")):
        seen.append((await watch.read()).status)
    seen.append((await watch.read()).status)
    watch.cancel()
    assert seen == [2, 1, 2]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nope"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_unknown_methods_hear_which_services_exist(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/headrace.speech.v1.SpeechService/Recognize")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert VISION in (caught.value.details() or "")
    assert reason(caught.value).reason == "UNKNOWN_METHOD"


async def test_reflection_lists_what_is_public(channel: grpc.aio.Channel, run_dir: Path) -> None:
    def names() -> set[str]:
        with grpc.insecure_channel(f"unix:{run_dir}/control.sock") as blocking:
            return set(ProtoReflectionDescriptorDatabase(blocking).get_services())

    listed = await asyncio.to_thread(names)
    assert {VISION, "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= listed
    assert not any("control" in name or "opentelemetry" in name for name in listed)


async def test_receives_spans_and_gives_traces_back(channel: grpc.aio.Channel) -> None:
    request = collector.ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(
        trace_id=b"\xaa" * 16,
        span_id=b"\x01" * 8,
        name="root",
        kind=trace_pb2.Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1_000_000_000,
        end_time_unix_nano=1_500_000_000,
    )
    export = channel.unary_unary(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        collector.ExportTraceServiceRequest.SerializeToString,
        collector.ExportTraceServiceResponse.FromString,
    )
    await export(request)
    stub = control_pb2_grpc.ControlServiceStub(channel)
    trace = await stub.GetTrace(control_pb2.GetTraceRequest())
    assert trace.trace_id == "aa" * 16
    assert [(span.name, span.duration.ToMilliseconds()) for span in trace.spans] == [("root", 500)]
    listed = await stub.ListTraces(control_pb2.ListTracesRequest())
    assert [(entry.name, entry.span_count) for entry in listed.traces] == [("root", 1)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetTrace(control_pb2.GetTraceRequest(trace_id="bb"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_metrics_page_has_every_process_and_survives_one_that_is_down(
    control: Control, run_dir: Path
) -> None:
    gone = runfile.RunFile("vision-0", 1, "", "http://127.0.0.1:1/metrics")
    runfile.write_json(run_dir / "vision-0.json", gone)
    about = runfile.read_run_file(run_dir, "control")
    assert about is not None
    address = about.metrics.removeprefix("http://").removesuffix("/metrics")
    page = (await fetch(address, "/metrics")).body.decode()
    assert 'headrace_process_up{process="control"} 1' in page
    assert 'headrace_process_up{process="vision-0"} 0' in page
    assert 'process_open_fds{process="control"}' in page
    assert (await fetch(address, "/else")).status == 404
