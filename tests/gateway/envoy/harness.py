# ruff: noqa: N802 - rpc methods are spelled as the protos spell them
"""A small mesh for tests: one real Envoy, the real ADS server, and tiny grpc.aio backends on UNIX sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from http import client as http_client
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from gateway.ads import AdsServer, AdsStatus
from gateway.envoy.binary import find_envoy
from gateway.envoy.bootstrap import bootstrap_json
from gateway.envoy.render import render
from gateway.topology import Edge, ServiceNode, Snapshot
from headrace.common.v1 import common_pb2
from headrace.inference import open_inference_pb2 as oip
from headrace.inference import open_inference_pb2_grpc as oip_grpc
from headrace.speech.v1 import speech_pb2, speech_pb2_grpc
from headrace.vision.v1 import vision_pb2, vision_pb2_grpc
from services.chassis.errors import ServiceError, invalid_argument, not_found, unknown_method

LIMIT = 1 << 20
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
VISION = "headrace.vision.v1.VisionService"
SPEECH = "headrace.speech.v1.SpeechService"


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Poll `condition` (plain or async) until it is true; return what it returned."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            result = await result if isinstance(result, Awaitable) else result
            if result:
                return result
            await asyncio.sleep(0.01)


async def fail(context: Any, error: ServiceError) -> None:
    await context.abort(error.code, error.message, error.trailers())


@dataclass(frozen=True)
class Failure:
    """An error as a gRPC caller sees it."""

    code: grpc.StatusCode
    message: str
    reason: str
    details: Any
    error: grpc.aio.AioRpcError

    def find(self, kind: type[Any]) -> Any:
        """Return the detail of type `kind`, None where there is none."""
        found = kind()
        return next((found for detail in self.details.details if detail.Unpack(found)), None)


async def failure(call: Awaitable[Any]) -> Failure:
    """Await `call`, which must fail, and return how."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    details = status_pb2.Status.FromString(raw)
    info = error_details_pb2.ErrorInfo()
    found = any(detail.Unpack(info) for detail in details.details)
    if raw:
        assert (details.code, details.message) == (error.code().value[0], error.details())
    return Failure(error.code(), error.details() or "", info.reason if found else "", details, error)


@dataclass(frozen=True)
class Reply:
    """An HTTP/1.1 answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def reason(self) -> str:
        """Return the ErrorInfo reason of a google.rpc.Status body."""
        assert self.headers["content-type"] == "application/json"
        return str(self.json()["details"][0]["reason"])


async def http(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
    """Send one HTTP/1.1 request; `content_type` and such become `content-type`."""

    def send() -> Reply:
        connection = http_client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            names = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, path, body or None, names)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    return await asyncio.to_thread(send)


def framed(message: bytes, flag: int = 0) -> bytes:
    """Return a gRPC frame."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


class Backend(vision_pb2_grpc.VisionServiceServicer, speech_pb2_grpc.SpeechServiceServicer):
    """Answers typed calls; the request's model says how to behave."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.headers: dict[str, Any] = {}
        self.calls = 0
        self.waiting = 0
        self.gate = asyncio.Event()

    async def Classify(self, request: Any, context: Any) -> Any:
        self.headers = dict(context.invocation_metadata())
        self.calls += 1
        if request.model == "invalid":
            await fail(context, invalid_argument("images", "at least one is needed"))
        if request.model == "wait":
            self.waiting += 1
            await self.gate.wait()
        if request.model == "hang":
            await asyncio.sleep(60)
        await context.send_initial_metadata((("headrace-queue-ms", "1.5"), ("headrace-model", "m@1")))
        size = sum(len(image.content) for image in request.images)
        category = common_pb2.Category(label=self.name, index=size)
        return vision_pb2.ClassifyResponse(results=[vision_pb2.ClassifyResult(categories=[category])])

    async def Recognize(self, request: Any, context: Any) -> Any:
        return speech_pb2.RecognizeResponse(transcript=self.name)

    async def StreamingRecognize(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        total = 0
        async for request in requests:
            total += len(request.audio)
            segment = speech_pb2.SpeechSegment(text=str(total))
            yield speech_pb2.StreamingRecognizeResponse(segment=segment)


class Inference(oip_grpc.GRPCInferenceServiceServicer):
    """Answers Open Inference calls with its own name as the response's id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.headers: dict[str, Any] = {}

    def _answer(self, request: Any) -> Any:
        return oip.ModelInferResponse(model_name=request.model_name, id=self.name)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        self.headers = dict(context.invocation_metadata())
        if self.name == "control":
            await fail(context, not_found("model", request.model_name, ["double"]))
        return self._answer(request)

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield oip.ModelStreamInferResponse(infer_response=self._answer(request))

    async def ModelReady(self, request: Any, context: Any) -> Any:
        if self.name == "control":
            await fail(context, not_found("model", request.name))
        return oip.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        return oip.ModelMetadataResponse(name=request.name, platform=self.name)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return oip.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return oip.ServerMetadataResponse(name=self.name)


class Health(health_pb2_grpc.HealthServicer):
    """Health that a test can switch."""

    def __init__(self) -> None:
        self.status = health_pb2.HealthCheckResponse.SERVING
        self.changed = asyncio.Condition()

    async def Check(self, request: Any, context: Any) -> Any:
        return health_pb2.HealthCheckResponse(status=self.status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield health_pb2.HealthCheckResponse(status=self.status)
        async with self.changed:
            while True:
                await self.changed.wait()
                yield health_pb2.HealthCheckResponse(status=self.status)


class Spans(trace_service_pb2_grpc.TraceServiceServicer):
    """Collects the spans that Envoy exports."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.received.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> list[Any]:
        return [span for span in self.received if span.trace_id.hex() == trace_id]


class Unknown(grpc.GenericRpcHandler):
    """Answers every method that nothing else has, as the control process does."""

    def service(self, handler_call_details: Any) -> Any:
        async def refuse(requests: Any, context: Any) -> None:
            await fail(context, unknown_method(handler_call_details.method))

        return grpc.stream_stream_rpc_method_handler(refuse)


@dataclass
class Mesh:
    """What a test talks to."""

    folder: Path
    snapshot: Snapshot
    ads: AdsServer
    control: Inference
    spans: Spans
    backends: dict[str, Backend] = field(default_factory=dict)
    inferences: dict[str, Inference] = field(default_factory=dict)
    healths: dict[str, Health] = field(default_factory=dict)
    servers: dict[str, grpc.aio.Server] = field(default_factory=dict)
    port: int = 0
    channel: Any = None
    process: Any = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def socket(self, name: str) -> str:
        return f"unix:{self.folder}/{name}.sock"

    async def publish(self, snapshot: Snapshot) -> AdsStatus:
        await self.ads.publish(render(snapshot))
        async with asyncio.timeout(10):
            return await self.ads.settled()

    def changed(self, **fields: Any) -> Snapshot:
        """Return the mesh's usual snapshot with some fields changed."""
        return replace(self.snapshot, **fields)

    async def start_backend(self, name: str) -> None:
        """Start (or restart) the in-process replica `name`."""
        server = grpc.aio.server(options=OPTIONS)
        backend = self.backends.setdefault(name, Backend(name))
        inference = self.inferences.setdefault(name, Inference(name))
        health = self.healths[name] = Health()
        vision_pb2_grpc.add_VisionServiceServicer_to_server(backend, server)
        speech_pb2_grpc.add_SpeechServiceServicer_to_server(backend, server)
        oip_grpc.add_GRPCInferenceServiceServicer_to_server(inference, server)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        server.add_insecure_port(self.socket(name))
        await server.start()
        self.servers[name] = server

    async def restore(self) -> None:
        """Undo what a test may have changed: stopped replicas, their health, the published configuration."""
        for name in ("vision-0", "vision-1", "speech-0"):
            if name not in self.servers:
                await self.start_backend(name)
            self.healths[name].status = health_pb2.HealthCheckResponse.SERVING
            self.backends[name].gate = asyncio.Event()
        await self.publish(self.snapshot)
        await self.healthy("vision", 2)
        await self.healthy("speech", 1)
        await self.answering(f"/{VISION}/Classify")
        await self.answering(f"/{SPEECH}/Recognize")

    async def answering(self, path: str) -> None:
        """Wait until calls of `path` reach a process, which Envoy's worker learns a moment after its statistics."""

        async def reached() -> bool:
            try:
                await self.channel.unary_unary(path)(b"")
            except grpc.aio.AioRpcError as error:
                return error.code() is not grpc.StatusCode.UNAVAILABLE
            return True

        await until(reached)

    async def start_control(self) -> None:
        """Start (or restart) the in-process stand-in of the control process."""
        server = grpc.aio.server(options=OPTIONS)
        oip_grpc.add_GRPCInferenceServiceServicer_to_server(self.control, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.healths.setdefault("control", Health()), server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self.spans, server)
        reflection.enable_server_reflection([VISION, reflection.SERVICE_NAME], server)
        server.add_generic_rpc_handlers((self.ads.handler(), Unknown()))
        server.add_insecure_port(self.socket("control"))
        await server.start()
        self.servers["control"] = server

    async def stop_control(self) -> None:
        await self.servers.pop("control").stop(0)

    async def stop_backend(self, name: str) -> None:
        """Stop the replica `name` at once."""
        await self.servers.pop(name).stop(0)

    def vision(self, channel: Any = None) -> Any:
        return vision_pb2_grpc.VisionServiceStub(channel or self.channel)

    def speech(self) -> Any:
        return speech_pb2_grpc.SpeechServiceStub(self.channel)

    def inference(self) -> Any:
        return oip_grpc.GRPCInferenceServiceStub(self.channel)

    async def admin(self, path: str, method: str = "GET") -> str:
        """Return the body of one answer of Envoy's admin page."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "admin.sock"))
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
        )
        raw = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = raw.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            parts, rest = [], body
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                parts.append(rest[: int(size or b"0", 16)])
                rest = rest[int(size or b"0", 16) + 2 :]
            body = b"".join(parts)
        return body.decode()

    async def stat(self, name: str) -> int:
        """Return one counter or gauge of Envoy."""
        text = await self.admin(f"/stats?filter=^{name}$")
        return int(text.rpartition(":")[2]) if text.strip() else 0

    async def healthy(self, service: str, count: int) -> None:
        """Wait until Envoy sees `count` healthy replicas of `service`."""

        async def seen() -> bool:
            return await self.stat(f"cluster.{service}.membership_healthy") == count

        await until(seen)


def service(mesh_folder: Path, name: str, replicas: int, *rpcs: str) -> ServiceNode:
    return ServiceNode(name, rpcs, tuple(f"unix:{mesh_folder}/{name}-{index}.sock" for index in range(replicas)))


def default_snapshot(folder: Path, edge: Edge) -> Snapshot:
    services = (service(folder, "vision", 2, VISION), service(folder, "speech", 1, SPEECH))
    models = {"double": "vision", "whisper": "speech"}
    control, internal = f"unix:{folder}/control.sock", f"unix:{folder}/mesh.sock"
    return Snapshot(services, control, models, internal, sample_ratio=1.0, edge=edge)


async def start_envoy(folder: Path, snapshot: Snapshot, node: str = "test") -> asyncio.subprocess.Process:
    """Start Envoy with an admin page on `folder`/admin.sock; its log goes to `folder`/envoy.log.

    Without a preexec_fn, which would make it a true fork: gRPC's fork handlers then break this process's poller.
    """
    config = folder / "bootstrap.json"
    config.write_text(bootstrap_json(snapshot, f"unix:{folder}/admin.sock", node))
    with (folder / "envoy.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            find_envoy(), "-c", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn",
            stdout=log, stderr=log,
        )  # fmt: skip


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@asynccontextmanager
async def running_mesh(folder: Path, edge: Edge | None = None) -> AsyncIterator[Mesh]:
    """Run a mesh of two services (vision with two replicas, speech with one) behind one Envoy."""
    edge = replace(edge or Edge(listen="127.0.0.1:0"), max_message_bytes=LIMIT)
    mesh = Mesh(folder, default_snapshot(folder, edge), AdsServer(), Inference("control"), Spans())
    async with AsyncExitStack() as stack:
        await mesh.start_control()
        for name in ("vision-0", "vision-1", "speech-0"):
            await mesh.start_backend(name)
        stack.push_async_callback(_stop_servers, mesh)
        await mesh.ads.publish(render(mesh.snapshot))
        mesh.process = await start_envoy(folder, mesh.snapshot)
        stack.push_async_callback(stop, mesh.process)
        try:
            async with asyncio.timeout(15):
                status = await mesh.ads.settled()
        except TimeoutError:
            pytest.fail(f"{mesh.ads.status()}\n{(folder / 'envoy.log').read_text()}")
        assert not status.rejections, status.rejections
        mesh.port = await listening_port(mesh)
        mesh.channel = grpc.aio.insecure_channel(mesh.address, options=OPTIONS)
        stack.push_async_callback(mesh.channel.close)
        await mesh.healthy("vision", 2)
        yield mesh


async def _stop_servers(mesh: Mesh) -> None:
    for server in mesh.servers.values():
        await server.stop(0)


async def listening_port(mesh: Mesh) -> int:
    """Return the port of Envoy's listener, once it has one."""

    async def port() -> int:
        listeners = json.loads(await mesh.admin("/listeners?format=json"))
        statuses = listeners.get("listener_statuses", [])
        return int(statuses[0]["local_address"]["socket_address"]["port_value"]) if statuses else 0

    return int(await until(port))
