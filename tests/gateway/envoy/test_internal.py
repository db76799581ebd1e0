"""The internal listener: services call each other over it as callers call the mesh, on trusted terms."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from gateway.topology import Snapshot, TopologyError
from headrace.inference import open_inference_pb2 as oip
from headrace.inference import open_inference_pb2_grpc as oip_grpc
from headrace.speech.v1 import speech_pb2, speech_pb2_grpc
from headrace.vision.v1 import vision_pb2
from tests.gateway.envoy.harness import LIMIT, OPTIONS, Mesh, failure, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARENT = "00f067aa0ba902b7"


@pytest_asyncio.fixture(loop_scope="session")
async def inside(mesh: Mesh) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(mesh.snapshot.internal, options=OPTIONS) as channel:
        yield channel


def picture(model: str = "") -> Any:
    return vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=b"abc")], model=model)


async def seen_by_vision(mesh: Mesh, channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> dict[str, Any]:
    answer = await mesh.vision(channel).Classify(picture(), metadata=metadata)
    return mesh.backends[answer.results[0].categories[0].label].headers


async def test_calls_go_by_path_and_by_model(inside: grpc.aio.Channel) -> None:
    stub = oip_grpc.GRPCInferenceServiceStub(inside)
    for model, service in (("double", "vision"), ("double@1", "vision"), ("whisper", "speech")):
        assert (await stub.ModelInfer(oip.ModelInferRequest(model_name=model))).id.startswith(f"{service}-")
    speech = speech_pb2_grpc.SpeechServiceStub(inside)
    assert (await speech.Recognize(speech_pb2.RecognizeRequest())).transcript == "speech-0"
    stream = speech.StreamingRecognize()
    await stream.write(speech_pb2.StreamingRecognizeRequest(audio=b"12345"))
    assert (await stream.read()).segment.text == "5"
    await stream.done_writing()
    unknown = await failure(stub.ModelInfer(oip.ModelInferRequest(model_name="unknown")))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


async def test_what_steers_the_mesh_passes_inside_and_not_from_outside(mesh: Mesh, inside: grpc.aio.Channel) -> None:
    sent = (("x-headrace-account", "a"), ("triton_grpc_error", "true"))
    seen = await seen_by_vision(mesh, inside, *sent)
    assert {key: seen[key] for key, _ in sent} == dict(sent)
    assert "x-headrace-account" not in await seen_by_vision(mesh, mesh.channel, *sent)


async def test_a_call_is_traced_if_the_one_that_it_is_made_for_is(mesh: Mesh, inside: grpc.aio.Channel) -> None:
    sampled, unsampled = "ab12" * 8, "cd34" * 8
    header = (await seen_by_vision(mesh, inside, ("traceparent", f"00-{sampled}-{PARENT}-01")))["traceparent"]
    spans = await until(lambda: mesh.spans.of(sampled))
    assert [span.parent_span_id.hex() for span in spans] == [PARENT]
    assert header == f"00-{sampled}-{spans[0].span_id.hex()}-01"
    header = (await seen_by_vision(mesh, inside, ("traceparent", f"00-{unsampled}-{PARENT}-00")))["traceparent"]
    assert header.startswith(f"00-{unsampled}-")
    assert header.endswith("-00")
    own = (await seen_by_vision(mesh, inside)).get("traceparent", "---00")
    assert own.endswith("-00")
    await asyncio.sleep(0.3)
    assert mesh.spans.of(unsampled) == mesh.spans.of(own.split("-")[1]) == []


async def test_deadlines_limits_and_errors_are_those_of_the_public_port(mesh: Mesh, inside: grpc.aio.Channel) -> None:
    late = await failure(mesh.vision(inside).Classify(picture("hang"), timeout=0.3))
    assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
    large = vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=bytes(LIMIT + 100))])
    refused = await failure(mesh.vision(inside).Classify(large))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    invalid = await failure(mesh.vision(inside).Classify(picture("invalid")))
    assert (invalid.code, invalid.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    await mesh.stop_backend("speech-0")
    await mesh.healthy("speech", 0)
    away = await failure(speech_pb2_grpc.SpeechServiceStub(inside).Recognize(speech_pb2.RecognizeRequest()))
    assert (away.code, away.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_HEALTHY_UPSTREAM")


async def test_it_is_never_a_port(mesh: Mesh) -> None:
    with pytest.raises(TopologyError, match=r"internal: '127\.0\.0\.1:9000' is no UNIX socket"):
        replace(mesh.snapshot, internal="127.0.0.1:9000")
    assert Snapshot((), "unix:/c.sock", {}).internal == ""
