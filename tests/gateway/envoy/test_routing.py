"""Which process answers what, with real clients of every kind on one port."""

import asyncio
import base64
import json
import shutil
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.inference import open_inference_pb2 as oip
from headrace.speech.v1 import speech_pb2
from headrace.vision.v1 import vision_pb2
from tests.gateway.envoy.harness import VISION, Mesh, failure, framed, http, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE = vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=b"abc")])


def label(response: Any) -> str:
    return str(response.results[0].categories[0].label)


async def test_typed_call_goes_to_its_service_and_brings_its_receipt(mesh: Mesh) -> None:
    call = mesh.vision().Classify(PICTURE)
    assert label(await call).startswith("vision-")
    metadata = dict(await call.initial_metadata())
    assert (metadata["headrace-queue-ms"], metadata["headrace-model"]) == ("1.5", "m@1")
    assert metadata["server"] == "headrace"


async def test_internal_headers_neither_enter_nor_leave(mesh: Mesh) -> None:
    sent = (("x-headrace-model", "evil"), ("x-headrace-tenant", "evil"), ("x-envoy-force-trace", "1"),
            ("x-envoy-max-retries", "9"), ("x-envoy-internal", "true"), ("triton_grpc_error", "true"))  # fmt: skip
    call = mesh.vision().Classify(PICTURE, metadata=sent)
    seen = mesh.backends[label(await call)].headers
    assert not [name for name in seen if name.startswith("x-headrace-")]
    assert not {"x-envoy-force-trace", "x-envoy-max-retries", "x-envoy-internal"} & seen.keys()
    assert seen["triton_grpc_error"] == "true"
    leaked = [name for name in dict(await call.initial_metadata()) if name.startswith(("x-", "via"))]
    assert leaked == []


@pytest.mark.parametrize(("model", "service"), [("double", "vision"), ("double@1", "vision"), ("whisper", "speech")])
async def test_open_inference_goes_where_the_model_is(mesh: Mesh, model: str, service: str) -> None:
    answer = await mesh.inference().ModelInfer(oip.ModelInferRequest(model_name=model))
    assert answer.id.startswith(f"{service}-")
    assert (await mesh.inference().ModelReady(oip.ModelReadyRequest(name=model))).ready
    described = await mesh.inference().ModelMetadata(oip.ModelMetadataRequest(name=model))
    assert described.platform.startswith(f"{service}-")


@pytest.mark.parametrize("model", ["", "unknown"])
async def test_unknown_model_is_not_found_with_details(mesh: Mesh, model: str) -> None:
    found = await failure(mesh.inference().ModelInfer(oip.ModelInferRequest(model_name=model)))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert model in found.message


async def test_a_spoofed_model_header_does_not_route(mesh: Mesh) -> None:
    call = mesh.inference().ModelInfer(oip.ModelInferRequest(), metadata=(("x-headrace-model", "double"),))
    assert (await failure(call)).code is grpc.StatusCode.NOT_FOUND


async def test_compressed_messages_reach_the_only_holder_of_models(mesh: Mesh) -> None:
    models = {"double": "vision"}
    await mesh.publish(mesh.changed(models=models))
    request = oip.ModelInferRequest(model_name="double", id="x" * 5000)
    answer = await mesh.inference().ModelInfer(request, compression=grpc.Compression.Gzip)
    assert answer.id.startswith("vision-")


async def test_stream_follows_its_first_message(mesh: Mesh) -> None:
    call = mesh.inference().ModelStreamInfer()
    answers = []
    for _ in range(3):
        await call.write(oip.ModelInferRequest(model_name="whisper"))
        answers.append((await call.read()).infer_response.id)
    await call.done_writing()
    assert answers == ["speech-0"] * 3


async def test_typed_stream(mesh: Mesh) -> None:
    call = mesh.speech().StreamingRecognize()
    await call.write(speech_pb2.StreamingRecognizeRequest(audio=b"12345"))
    assert (await call.read()).segment.text == "5"
    await call.done_writing()


async def test_the_control_process_answers_for_the_mesh(mesh: Mesh) -> None:
    assert (await mesh.inference().ServerReady(oip.ServerReadyRequest())).ready
    assert (await mesh.inference().ServerMetadata(oip.ServerMetadataRequest())).name == "control"
    health = health_pb2_grpc.HealthStub(mesh.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("path", ["/no.Such/Method", f"/{VISION}/NoSuchMethod", "/headrace.nlp.v1.NlpService/Embed"])
async def test_unknown_methods_are_unimplemented(mesh: Mesh, path: str) -> None:
    found = await failure(mesh.channel.unary_unary(path)(b""))
    assert found.code is grpc.StatusCode.UNIMPLEMENTED


async def test_private_services_are_not_reachable_by_rest(mesh: Mesh) -> None:
    reply = await http(mesh.port, "POST", "/headrace.control.v1.ControlService/ListTraces", b"{}")
    assert (reply.status, reply.reason()) == (404, "UNKNOWN_METHOD")


async def test_rest_call(mesh: Mesh) -> None:
    body = json.dumps({"images": [{"content": base64.b64encode(b"hello").decode()}]}).encode()
    reply = await http(mesh.port, "POST", "/v1/vision:classify", body, content_type="application/json")
    assert reply.status == 200
    assert reply.json()["results"][0]["categories"][0]["index"] == 5
    assert reply.headers["headrace-queue-ms"] == "1.5"
    assert not [name for name in reply.headers if name.startswith("x-envoy")]


async def test_rest_body_may_be_base64_of_the_largest_message(mesh: Mesh) -> None:
    content = b"x" * (mesh.snapshot.edge.max_message_bytes - 100)
    body = json.dumps({"images": [{"content": base64.b64encode(content).decode()}]}).encode()
    reply = await http(mesh.port, "POST", "/v1/vision:classify", body)
    assert reply.json()["results"][0]["categories"][0]["index"] == len(content)


async def test_grpc_web_binary_and_text(mesh: Mesh) -> None:
    frame = framed(PICTURE.SerializeToString())
    reply = await http(
        mesh.port, "POST", f"/{VISION}/Classify", frame,
        content_type="application/grpc-web+proto", x_grpc_web="1", origin="https://app.example",
    )  # fmt: skip
    assert reply.status == 200
    size = int.from_bytes(reply.body[1:5], "big")
    assert label(vision_pb2.ClassifyResponse.FromString(reply.body[5 : 5 + size])).startswith("vision-")
    assert b"grpc-status:0" in reply.body[5 + size :].replace(b" ", b"")
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    assert "grpc-status-details-bin" in reply.headers["access-control-expose-headers"]
    kind = "application/grpc-web-text"
    text = await http(mesh.port, "POST", f"/{VISION}/Classify", base64.b64encode(frame), content_type=kind, accept=kind)
    first = text.body.partition(b"=")[0]  # each frame is encoded by itself
    assert b"vision-" in base64.b64decode(first + b"=" * (-len(first) % 4))


async def test_grpc_web_open_inference_is_routed_by_model(mesh: Mesh) -> None:
    frame = framed(oip.ModelInferRequest(model_name="whisper").SerializeToString())
    path = "/inference.GRPCInferenceService/ModelInfer"
    reply = await http(mesh.port, "POST", path, frame, content_type="application/grpc-web+proto")
    assert b"speech-0" in reply.body


async def test_cors(mesh: Mesh) -> None:
    preflight = {"origin": "https://app.example", "access_control_request_method": "POST"}
    for path in (f"/{VISION}/Classify", "/v1/vision:classify"):
        reply = await http(mesh.port, "OPTIONS", path, **preflight)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://app.example")
        assert "grpc-timeout" in reply.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in reply.headers
    reply = await http(mesh.port, "POST", "/v1/vision:classify", b"{}", origin="https://app.example")
    assert reply.headers["access-control-allow-origin"] == "https://app.example"


async def test_plain_health_page(mesh: Mesh) -> None:
    reply = await http(mesh.port, "GET", "/healthz")
    assert (reply.status, reply.body) == (200, b"ok\n")


async def test_calls_spread_over_replicas(mesh: Mesh) -> None:
    calls = [mesh.vision().Classify(vision_pb2.ClassifyRequest(model="wait")) for _ in range(24)]
    before = {name: mesh.backends[name].calls for name in ("vision-0", "vision-1")}
    tasks = [asyncio.ensure_future(call) for call in calls]
    await until(lambda: all(mesh.backends[name].calls > before[name] for name in before))
    for name in before:
        mesh.backends[name].gate.set()
    labels = [label(answer) for answer in await asyncio.gather(*tasks)]
    # Two random choices each time: nearly even, never one-sided.
    assert min(labels.count(name) for name in before) >= 4


async def run_tool(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(*arguments, stdout=-1, stderr=-2)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.skipif(not shutil.which("grpcurl"), reason="grpcurl is not on the PATH")
async def test_grpcurl(mesh: Mesh) -> None:
    listed = await run_tool("grpcurl", "-plaintext", mesh.address, "list")
    assert VISION in listed
    answer = await run_tool("grpcurl", "-plaintext", "-d", '{"images":[{}]}', mesh.address, f"{VISION}/Classify")
    assert "vision-" in answer


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on the PATH")
async def test_curl(mesh: Mesh) -> None:
    url = f"http://{mesh.address}/v1/vision:classify"
    assert "vision-" in await run_tool("curl", "-sf", "--json", '{"images":[{"content":"aGk="}]}', url)
