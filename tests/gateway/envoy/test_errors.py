"""Errors born in Envoy: the code, the words and the details of the one table, for gRPC and for REST callers."""

import asyncio
import base64
import json
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from gateway.topology import ServiceNode
from headrace.inference import open_inference_pb2 as oip
from headrace.vision.v1 import vision_pb2
from tests.gateway.envoy.harness import LIMIT, OPTIONS, VISION, Mesh, Reply, failure, framed, http, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLASSIFY = f"/{VISION}/Classify"
REST = "/v1/vision:classify"


def picture(size: int) -> vision_pb2.ClassifyRequest:
    return vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=bytes(size))])


async def web(mesh: Mesh, request: vision_pb2.ClassifyRequest, **headers: str) -> tuple[Reply, status_pb2.Status]:
    """Make a gRPC-Web call that fails; return the reply and its details."""
    reply = await http(
        mesh.port, "POST", CLASSIFY, framed(request.SerializeToString()),
        content_type="application/grpc-web+proto", **headers,
    )  # fmt: skip
    raw = reply.headers.get("grpc-status-details-bin", "")
    return reply, status_pb2.Status.FromString(base64.b64decode(raw + "=" * (-len(raw) % 4)))


@pytest.mark.parametrize("size", [LIMIT + 1, 40 << 20])
async def test_too_large_a_message(mesh: Mesh, size: int) -> None:
    found = await failure(mesh.vision().Classify(picture(size)))
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert str(LIMIT) in found.message
    info = found.find(error_details_pb2.ErrorInfo)
    assert (info.domain, info.metadata["limit_bytes"]) == ("headrace", str(LIMIT))
    large = oip.ModelInferRequest(model_name="double", raw_input_contents=[bytes(size)])
    assert (await failure(mesh.inference().ModelInfer(large))).reason == "MESSAGE_TOO_LARGE"


async def test_too_large_a_message_leaves_its_neighbours_alone(mesh: Mesh) -> None:
    stream = mesh.inference().ModelStreamInfer()
    await stream.write(oip.ModelInferRequest(model_name="double"))
    await stream.read()
    connections = await mesh.stat("http.edge.downstream_cx_total")
    await failure(mesh.vision().Classify(picture(40 << 20)))
    await stream.write(oip.ModelInferRequest(model_name="double"))
    assert (await stream.read()).infer_response.model_name == "double"
    await mesh.vision().Classify(picture(10))
    assert await mesh.stat("http.edge.downstream_cx_total") == connections
    await stream.done_writing()


async def test_the_largest_message_passes(mesh: Mesh) -> None:
    overhead = picture(LIMIT - 100).ByteSize() - (LIMIT - 100)
    answer = await mesh.vision().Classify(picture(LIMIT - overhead))
    assert answer.results[0].categories[0].index == LIMIT - overhead


async def test_a_stream_is_not_limited_by_its_total(mesh: Mesh) -> None:
    async def requests() -> AsyncIterator[oip.ModelInferRequest]:
        for _ in range(6):
            yield oip.ModelInferRequest(model_name="double", raw_input_contents=[bytes(LIMIT // 2)])

    assert len([answer async for answer in mesh.inference().ModelStreamInfer(requests())]) == 6


async def test_too_large_a_body_by_rest(mesh: Mesh) -> None:
    content = base64.b64encode(bytes(2 * LIMIT)).decode()
    reply = await http(mesh.port, "POST", REST, json.dumps({"images": [{"content": content}]}).encode())
    assert (reply.status, reply.reason()) == (413, "MESSAGE_TOO_LARGE")


async def test_expired_deadline(mesh: Mesh) -> None:
    async def envoy_was_first() -> bool:  # its timer and the service's race
        reply, details = await web(mesh, vision_pb2.ClassifyRequest(model="hang"), grpc_timeout="50m")
        assert reply.headers.get("grpc-status", "4") == "4"
        rest = await http(mesh.port, "POST", REST, b'{"model": "hang"}', grpc_timeout="50m")
        assert rest.status == 504
        return b"DEADLINE_EXCEEDED" in rest.body and "deadline" in details.message

    await until(envoy_was_first)


async def test_the_longest_deadline_is_the_meshs(mesh: Mesh) -> None:
    await mesh.publish(mesh.changed(edge=replace(mesh.snapshot.edge, max_deadline_seconds=0.2)))
    rest = await http(mesh.port, "POST", REST, b'{"model": "hang"}', grpc_timeout="1H")
    assert rest.status == 504


async def test_no_healthy_process(mesh: Mesh) -> None:
    nobody = ServiceNode("vision", (VISION,), ())
    await mesh.publish(mesh.changed(services=(nobody, mesh.snapshot.services[1])))
    found = await failure(mesh.vision().Classify(picture(1)))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_HEALTHY_UPSTREAM")
    assert found.find(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
    rest = await http(mesh.port, "POST", REST, b"{}")
    assert (rest.status, rest.reason()) == (503, "NO_HEALTHY_UPSTREAM")
    assert "grpc-status" not in rest.headers


async def test_unreachable_process(mesh: Mesh) -> None:
    # The control cluster has no health checks, so what is behind it can be unreachable and still be asked.
    health = mesh.changed(services=(ServiceNode("vision", (), ()), mesh.snapshot.services[1]))
    await mesh.publish(health)
    await mesh.stop_control()
    try:
        found = await failure(mesh.channel.unary_unary("/no.Such/Method")(b""))
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_CONNECT_FAILED")
    finally:
        await mesh.start_control()


async def test_too_many_calls_at_once(mesh: Mesh) -> None:
    await mesh.publish(mesh.changed(edge=replace(mesh.snapshot.edge, max_in_flight=1)))
    held = asyncio.ensure_future(mesh.vision().Classify(vision_pb2.ClassifyRequest(model="wait")))
    await until(lambda: any(mesh.backends[name].waiting for name in ("vision-0", "vision-1")))
    found = await failure(mesh.vision().Classify(picture(1)))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
    for name in ("vision-0", "vision-1"):
        mesh.backends[name].gate.set()
    await held


CRASHER = textwrap.dedent("""
    import asyncio, sys, grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    class Health(health_pb2_grpc.HealthServicer):
        async def Check(self, request, context):
            return health_pb2.HealthCheckResponse(status=1)

    class Hang(grpc.GenericRpcHandler):
        def service(self, details):
            async def hang(request, context):
                if details.method.endswith("/Embed"):
                    return b""
                print("called", flush=True)
                await asyncio.sleep(600)
            return grpc.unary_unary_rpc_method_handler(hang) if "Vision" in details.method else None

    async def main():
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
        server.add_generic_rpc_handlers((Hang(),))
        server.add_insecure_port(sys.argv[1])
        await server.start()
        print("ready", flush=True)
        await server.wait_for_termination()

    asyncio.run(main())
""")


@asynccontextmanager
async def process_that_hangs(mesh: Mesh) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the only vision replica in a process of its own, where calls never end."""
    address = mesh.socket("crasher")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CRASHER, address, stdout=-1)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        alone = ServiceNode("vision", (VISION,), (address,))
        await mesh.publish(mesh.changed(services=(alone, mesh.snapshot.services[1])))
        await mesh.answering(f"/{VISION}/Embed")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_process_killed_in_mid_call(mesh: Mesh) -> None:
    async with process_that_hangs(mesh) as process:
        call = asyncio.ensure_future(failure(mesh.vision().Classify(picture(1))))
        rest = asyncio.ensure_future(http(mesh.port, "POST", REST, b"{}"))
        assert process.stdout is not None
        for _ in range(2):
            await process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        found, reply = await call, await rest
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_RESET")
    assert (reply.status, reply.reason()) == (503, "UPSTREAM_RESET")


@pytest.mark.parametrize("body", [b'{"images":', b'{"images": 5}', b'{"images": [{"content": "?"}]}', b"[]", b"x"])
async def test_broken_or_mistyped_json(mesh: Mesh, body: bytes) -> None:
    reply = await http(mesh.port, "POST", REST, body, content_type="application/json")
    assert (reply.status, reply.reason()) == (400, "MALFORMED_JSON")
    assert len(reply.json()["message"]) > 100  # what the transcoder found wrong is in it


async def test_errors_of_the_service_reach_rest_callers_as_json(mesh: Mesh) -> None:
    reply = await http(mesh.port, "POST", REST, b'{"model": "invalid"}')
    assert (reply.status, reply.reason()) == (400, "INVALID_FIELD")
    assert reply.json()["details"][1]["fieldViolations"][0]["field"] == "images"


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/", 404, "UNKNOWN_METHOD"),
        ("POST", "/v1/vision:paint", 404, "UNKNOWN_METHOD"),
        ("GET", REST, 405, "HTTP_METHOD_NOT_ALLOWED"),
        ("DELETE", REST, 405, "HTTP_METHOD_NOT_ALLOWED"),
        ("POST", CLASSIFY, 415, "UNSUPPORTED_CONTENT_TYPE"),
        ("GET", "/a%2fb", 400, "BAD_HTTP_REQUEST"),
        ("POST", "/v1/nlp:embed", 404, "UNKNOWN_METHOD"),
    ],
)
async def test_plain_http_that_nothing_answers(mesh: Mesh, method: str, path: str, status: int, reason: str) -> None:
    reply = await http(mesh.port, method, path, b"{}")
    expected = 501 if path == "/v1/nlp:embed" else status  # known to the protos, answered by the control process
    assert (reply.status, reply.reason()) == (expected, reason)


async def test_headers_beyond_the_limit(mesh: Mesh) -> None:
    reply = await http(mesh.port, "GET", "/", big="x" * 70_000)
    assert (reply.status, reply.reason()) == (431, "HEADERS_TOO_LARGE")


async def test_truncated_first_message(mesh: Mesh) -> None:
    path = "/inference.GRPCInferenceService/ModelInfer"
    reply = await http(mesh.port, "POST", path, b"\0\0\0\0\x09\x0a", content_type="application/grpc-web+proto")
    assert reply.headers["grpc-status"] == "3"
    raw = reply.headers["grpc-status-details-bin"]
    details = status_pb2.Status.FromString(base64.b64decode(raw + "=" * (-len(raw) % 4)))
    assert b"MALFORMED_MESSAGE" in details.details[0].value


async def test_a_callers_connection_survives_all_of_it(mesh: Mesh) -> None:
    async with grpc.aio.insecure_channel(mesh.address, options=OPTIONS) as channel:
        for size in (10, 2 * LIMIT, 10):
            call = mesh.vision(channel).Classify(picture(size))
            if size > LIMIT:
                await failure(call)
            else:
                await call
