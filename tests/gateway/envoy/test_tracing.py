"""Who is traced: sampled callers always and whole, unsampled ones never, the rest by the snapshot's ratio."""

from typing import Any

import pytest

from headrace.inference import open_inference_pb2 as oip
from headrace.vision.v1 import vision_pb2
from tests.gateway.envoy.harness import Mesh, http, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def seen_upstream(mesh: Mesh, *metadata: tuple[str, str]) -> tuple[str, str, str]:
    """Make a call; return trace id, span id and flags of the `traceparent` that the service got ("" without)."""
    answer = await mesh.vision().Classify(vision_pb2.ClassifyRequest(), metadata=metadata)
    headers = mesh.backends[answer.results[0].categories[0].label].headers
    _, trace, span, flags = headers.get("traceparent", "---").split("-")
    return trace, span, flags


async def root_span(mesh: Mesh, trace: str) -> Any:
    return (await until(lambda: mesh.spans.of(trace)))[0]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_sampled_callers_trace_is_kept(mesh: Mesh, ratio: float) -> None:
    await mesh.publish(mesh.changed(sample_ratio=ratio))
    trace, span, flags = await seen_upstream(mesh, ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "a=b"))
    assert (trace, flags) == (TRACE, "01")
    assert span != PARENT
    own = await until(lambda: [found for found in mesh.spans.of(TRACE) if found.span_id.hex() == span])
    assert own[0].parent_span_id.hex() == PARENT


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_an_unsampled_caller_stays_unsampled(mesh: Mesh, ratio: float) -> None:
    await mesh.publish(mesh.changed(sample_ratio=ratio))
    trace, _, flags = await seen_upstream(mesh, ("traceparent", f"00-{TRACE[::-1]}-{PARENT}-00"))
    assert (trace, flags) == (TRACE[::-1], "00")
    assert mesh.spans.of(TRACE[::-1]) == []


async def test_without_a_caller_the_gateway_starts_the_trace(mesh: Mesh) -> None:
    trace, span, flags = await seen_upstream(mesh)
    assert flags == "01"
    root = await root_span(mesh, trace)
    assert (root.span_id.hex(), root.parent_span_id, root.name) == (
        span, b"", "/headrace.vision.v1.VisionService/Classify",
    )  # fmt: skip


async def test_ratio_zero_starts_none(mesh: Mesh) -> None:
    await mesh.publish(mesh.changed(sample_ratio=0.0))
    trace, _, flags = await seen_upstream(mesh)
    assert flags in {"", "00"}
    assert mesh.spans.of(trace) == []


async def test_a_ratio_between_is_a_share(mesh: Mesh) -> None:
    await mesh.publish(mesh.changed(sample_ratio=0.5))
    flags = [(await seen_upstream(mesh))[2] for _ in range(60)]
    assert 10 < flags.count("01") < 50


async def test_the_root_span_names_model_and_status(mesh: Mesh) -> None:
    header = ("traceparent", f"00-{'ab' * 16}-{PARENT}-01")
    await mesh.inference().ModelInfer(oip.ModelInferRequest(model_name="double@1"), metadata=(header,))
    root = await root_span(mesh, "ab" * 16)
    tags = {item.key: item.value.string_value for item in root.attributes}
    assert tags["headrace.model.name"] == "double"
    assert tags["grpc.status_code"] == "0"


async def test_rest_calls_are_traced_too(mesh: Mesh) -> None:
    headers = {"traceparent": f"00-{'cd' * 16}-{PARENT}-01"}
    await http(mesh.port, "POST", "/v1/vision:classify", b"{}", **headers)
    assert (await root_span(mesh, "cd" * 16)).name == "/headrace.vision.v1.VisionService/Classify"
