"""A picture through the whole mesh, by every kind of client a user may have."""

import asyncio
import base64
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

import headrace
from headrace.vision.v1 import vision_pb2, vision_pb2_grpc
from tests.mesh import RunningMesh, wait_until
from tests.mesh import headrace as run_headrace

CLASSIFY = "headrace.vision.v1.VisionService/Classify"


def top_label(response: vision_pb2.ClassifyResponse, index: int = 0) -> str:
    return response.results[index].categories[0].label


def request_for(*contents: bytes, top_k: int = 0) -> vision_pb2.ClassifyRequest:
    return vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=content) for content in contents], top_k=top_k)


def test_photographs_are_labelled_with_a_receipt(channel: grpc.Channel, photographs: dict[str, bytes]) -> None:
    stub = vision_pb2_grpc.VisionServiceStub(channel)
    response, call = stub.Classify.with_call(request_for(*photographs.values()), timeout=20)
    assert [top_label(response, index) for index in (0, 1)] == ["palace", "daisy"]
    assert [len(result.categories) for result in response.results] == [5, 5]
    scores = [category.score for category in response.results[0].categories]
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1
    receipt = dict(call.initial_metadata())
    assert receipt["headrace-model"] == "efficientnet_lite0@1"
    assert float(receipt["headrace-engine-ms"]) > 0
    assert not [key for key in receipt if key.startswith(("x-headrace", "x-envoy"))]


def test_64_callers_share_batches_and_get_what_one_gets(mesh: RunningMesh, crops: list[bytes]) -> None:
    async def classify_all() -> tuple[list[float], list[float], int]:
        async with grpc.aio.insecure_channel(mesh.gateway) as channel:
            stub = vision_pb2_grpc.VisionServiceStub(channel)
            alone = [await stub.Classify(request_for(crop, top_k=1000), timeout=20) for crop in crops[::8]]
            calls = [stub.Classify(request_for(crop, top_k=1000), timeout=60) for crop in crops]
            together = await asyncio.gather(*calls)
            rows = [int(dict(await call.initial_metadata())["headrace-batch-rows"]) for call in calls]
        return scores(alone), scores(together[::8]), max(rows)

    def scores(responses: list[vision_pb2.ClassifyResponse]) -> list[float]:
        pairs = [
            sorted((category.index, category.score) for category in response.results[0].categories)
            for response in responses
        ]
        return [score for pair in pairs for _, score in pair]

    alone, together, largest_batch = asyncio.run(classify_all())
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert largest_batch > 1


def test_embeddings_have_unit_length_and_know_what_is_alike(mesh: RunningMesh, crops: list[bytes]) -> None:
    with headrace.Client(mesh.gateway) as client:
        first, beside, flower = (
            np.array(item.embedding) for item in client.vision.embed([crops[0], crops[3], crops[40]])
        )
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ beside > first @ flower + 0.2


def test_rest_answers_json(mesh: RunningMesh, photographs: dict[str, bytes]) -> None:
    body = {"images": [{"content": base64.b64encode(photographs["china.jpg"]).decode()}], "topK": 2}
    request = urllib.request.Request(
        f"http://{mesh.gateway}/v1/vision:classify", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - as above
        document = json.loads(answer.read())
        assert answer.headers["headrace-model"] == "efficientnet_lite0@1"
    assert document["results"][0]["categories"][0]["label"] == "palace"
    assert document["model"] == {"name": "efficientnet_lite0", "version": "1"}


def test_grpc_web_answers_in_its_framing(mesh: RunningMesh, photographs: dict[str, bytes]) -> None:
    message = request_for(photographs["flower.jpg"]).SerializeToString()
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    body = b"\0" + len(message).to_bytes(4, "big") + message
    request = urllib.request.Request(f"http://{mesh.gateway}/{CLASSIFY}", body, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - as above
        raw = answer.read()
    size = int.from_bytes(raw[1:5], "big")
    response = vision_pb2.ClassifyResponse.FromString(raw[5 : 5 + size])
    assert top_label(response) == "daisy"
    assert raw[5 + size] == 0x80
    assert b"grpc-status:0" in raw[5 + size :].replace(b" ", b"")


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
def test_grpcurl_needs_no_protos(mesh: RunningMesh, photographs: dict[str, bytes]) -> None:
    body = {"images": [{"content": base64.b64encode(photographs["china.jpg"]).decode()}]}
    command = ["grpcurl", "-plaintext", "-d", "@", mesh.gateway, CLASSIFY]
    done = subprocess.run(command, input=json.dumps(body), capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["results"][0]["categories"][0]["label"] == "palace"


def test_tritonclient_works_unchanged(mesh: RunningMesh) -> None:
    client = triton.InferenceServerClient(mesh.gateway)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("efficientnet_lite0")
    assert {model.name for model in client.get_model_repository_index().models} >= {"double", "efficientnet_lite0"}
    assert client.get_model_config("double").config.max_batch_size > 1
    given = np.arange(32, dtype=np.float32).reshape(2, 16)
    tensor = triton.InferInput("x", given.shape, "FP32")
    tensor.set_data_from_numpy(given)
    np.testing.assert_array_equal(client.infer("double", [tensor]).as_numpy("y"), 2 * given)
    answers: list[tuple[str, np.ndarray]] = []
    client.start_stream(lambda result, error: answers.append((result.get_response().id, result.as_numpy("y"))))
    for number in range(8):
        client.async_stream_infer("double", [tensor], request_id=str(number))
    wait_until(lambda: len(answers) == 8, 10, "the stream has answered")
    client.stop_stream()
    client.close()
    assert sorted(number for number, _ in answers) == [str(number) for number in range(8)]


async def test_tritonclient_aio_works_unchanged(mesh: RunningMesh) -> None:
    async with triton_aio.InferenceServerClient(mesh.gateway) as client:
        given = np.ones((1, 16), np.float32)
        tensor = triton_aio.InferInput("x", [1, 16], "FP32")
        tensor.set_data_from_numpy(given)
        results = await asyncio.gather(*(client.infer("double", [tensor]) for _ in range(32)))
    assert all((result.as_numpy("y") == 2).all() for result in results)


def test_health_follows_the_services(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "headrace.vision.v1.VisionService", "inference.GRPCInferenceService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status == 1
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=5)
    assert next(iter(watch)).status == 1
    watch.cancel()
    listing = channel.unary_unary("/grpc.health.v1.Health/List")  # Younger than the stubs that grpcio ships.
    assert b"headrace.vision.v1.VisionService" in listing(b"", timeout=5)


def test_the_command_line_shows_what_the_picture_is(mesh: RunningMesh, photographs: dict[str, bytes]) -> None:
    (mesh.folder / "flower.jpg").write_bytes(photographs["flower.jpg"])
    shown = mesh.command("call", "vision.classify", "flower.jpg", "--top-k", "3")
    assert shown.returncode == 0, shown.stderr
    assert "daisy" in shown.stdout
    assert "efficientnet_lite0@1" in shown.stdout


def test_a_sampled_callers_trace_is_kept_whole(mesh: RunningMesh, channel: grpc.Channel, crops: list[bytes]) -> None:
    trace_id = "5eed" * 8
    stub = vision_pb2_grpc.VisionServiceStub(channel)
    metadata = [("traceparent", f"00-{trace_id}-{'1' * 16}-01")]
    stub.Classify(request_for(crops[0]), timeout=20, metadata=metadata)
    document = json.loads(mesh.command("trace", trace_id, "--json").stdout)
    names = [span["name"] for span in document["spans"]]
    assert {f"/{CLASSIFY}", CLASSIFY, "transform", "queue", "engine"} <= set(names)


def test_models_check_proves_what_was_pulled(zoo: Path, tmp_path: Path) -> None:
    checked = run_headrace("models", "check", "--models", str(zoo), folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
