"""Rendering as a pure function, and Envoy's own opinion of it without running."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from envoy.config.route.v3 import route_pb2
from google.protobuf import descriptor_pb2, json_format

from gateway.ads import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES
from gateway.envoy import descriptors
from gateway.envoy.binary import EnvoyNotFoundError, find_envoy
from gateway.envoy.bootstrap import bootstrap, bootstrap_json
from gateway.envoy.local_reply import json_body
from gateway.envoy.render import render
from gateway.topology import Edge, ServiceNode, Snapshot
from services.chassis.errors import TABLE, from_gateway

SNAPSHOT = Snapshot(
    services=(
        ServiceNode("vision", ("headrace.vision.v1.VisionService",), ("unix:/run/v0.sock", "10.0.0.1:9101")),
        ServiceNode("speech", ("headrace.speech.v1.SpeechService",), ("speech.example:9102",)),
    ),
    control="unix:/run/control.sock",
    models={"double": "vision"},
    internal="unix:/run/mesh.sock",
)


def routes(snapshot: Snapshot) -> route_pb2.RouteConfiguration:
    message = route_pb2.RouteConfiguration()
    assert render(snapshot).by_type[ROUTES]["headrace"].Unpack(message)
    return message


def test_quiet_speech_may_stay_quiet_for_an_hour_and_as_long_as_its_caller_wants() -> None:
    stream = next(route for route in routes(SNAPSHOT).virtual_hosts[0].routes if "StreamingRecognize" in route.name)
    assert stream.route.idle_timeout.seconds == 3600
    assert stream.route.timeout.ToNanoseconds() == 0
    assert stream.route.max_stream_duration.max_stream_duration.ToNanoseconds() == 0
    assert stream.route.max_stream_duration.grpc_timeout_header_max.ToNanoseconds() == 0


def test_equal_snapshots_render_equally() -> None:
    assert render(SNAPSHOT) == render(replace(SNAPSHOT, models=dict(SNAPSHOT.models)))


def test_models_and_sampling_change_nothing_but_the_routes() -> None:
    before = render(SNAPSHOT).by_type
    after = render(replace(SNAPSHOT, models={"double": "vision", "new": "vision"}, sample_ratio=0.25)).by_type
    assert [url for url in before if before[url] != after[url]] == [ROUTES]


def test_a_new_replica_changes_only_the_endpoints() -> None:
    vision, speech = SNAPSHOT.services
    more = replace(vision, endpoints=(*vision.endpoints, "unix:/run/v1.sock"))
    before, after = render(SNAPSHOT).by_type, render(replace(SNAPSHOT, services=(more, speech))).by_type
    assert [url for url in before if before[url] != after[url]] == [ENDPOINTS]


def test_names_of_hosts_are_resolved_by_envoy() -> None:
    rendered = render(SNAPSHOT).by_type
    assert list(rendered[ENDPOINTS]) == ["vision"]
    assert set(rendered[CLUSTERS]) == {"vision", "speech"}


@pytest.mark.parametrize("ratio", [0.0, 0.0001, 0.5, 1.0])
def test_every_routed_call_has_a_twin_for_sampled_callers(ratio: float) -> None:
    host = routes(replace(SNAPSHOT, sample_ratio=ratio)).virtual_hosts[0]
    own = {route.name: route for route in host.routes}
    shares = [r.tracing.random_sampling for name, r in own.items() if f"{name}:sampled" in own]
    assert {(share.numerator, share.denominator) for share in shares} == {(round(ratio * 10_000), 1)}


def test_streams_escape_the_body_limit_and_unary_calls_do_not() -> None:
    named = {route.name: route for route in routes(SNAPSHOT).virtual_hosts[0].routes}
    body_filter = "envoy.filters.http.body_size_limit"
    assert body_filter in named["speech:StreamingRecognize"].typed_per_filter_config
    assert body_filter in named["model:double:stream"].typed_per_filter_config
    assert body_filter not in named["vision"].typed_per_filter_config


@pytest.mark.parametrize("reason", [row.reason for row in TABLE.values() if row.gateway and "{" not in row.gateway])
def test_errors_as_json(reason: str) -> None:
    body = json.loads(json_body(from_gateway(reason)))
    assert body["details"][0]["reason"] == reason
    assert body["message"] == TABLE[reason].gateway


def test_only_replicated_services_are_retried() -> None:
    vision, speech = SNAPSHOT.services
    alone = replace(vision, endpoints=vision.endpoints[:1])
    for service, retried in ((vision, True), (alone, False)):
        table = routes(replace(SNAPSHOT, services=(service, speech))).virtual_hosts[0].routes
        named = {route.name: route.route.HasField("retry_policy") for route in table}
        assert (named["vision"], named["model:double"], named["control"]) == (retried, retried, False)


def test_the_second_replica_brings_retries() -> None:
    vision, speech = SNAPSHOT.services
    assert vision.endpoints[1:]
    fewer = replace(vision, endpoints=vision.endpoints[:1])
    before, after = render(SNAPSHOT).by_type, render(replace(SNAPSHOT, services=(fewer, speech))).by_type
    assert [url for url in before if before[url] != after[url]] == [ENDPOINTS, ROUTES]


def test_descriptor_sets_are_complete() -> None:
    for data in (descriptors.typed_descriptor_set(), descriptors.open_inference_descriptor_set()):
        seen: set[str] = set()
        for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
            assert set(file.dependency) <= seen
            seen.add(file.name)
    assert "google/rpc/error_details.proto" in {
        file.name for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors.typed_descriptor_set()).file
    }


def test_what_the_protos_say() -> None:
    assert descriptors.rest_paths()["/v1/vision:classify"] == "POST"
    assert descriptors.model_fields()["ModelInfer"] == "model_name"
    assert descriptors.model_fields()["ModelReady"] == "name"
    assert "RepositoryIndex" not in descriptors.model_fields()
    assert not [service.full_name for service in descriptors.typed_services() if "control" in service.full_name]


def test_admin_stays_where_it_is_put() -> None:
    text = json.loads(bootstrap_json(SNAPSHOT, "unix:/run/admin.sock"))
    assert text["admin"]["address"] == {"pipe": {"path": "/run/admin.sock"}}


def test_a_missing_binary_is_explained(tmp_path: Path) -> None:
    with pytest.raises(EnvoyNotFoundError, match=r"gateway\.envoy: .*nothing is not an executable file"):
        find_envoy(str(tmp_path / "nothing"))
    assert find_envoy(str(find_envoy())) == find_envoy()


@pytest.mark.parametrize("edge", [Edge(), Edge(max_message_bytes=1 << 30, max_deadline_seconds=86_400)])
async def test_envoy_finds_it_valid(tmp_path: Path, edge: Edge) -> None:
    rendered = render(replace(SNAPSHOT, edge=edge)).by_type
    whole = bootstrap(SNAPSHOT, "unix:/run/admin.sock")
    for cluster in rendered[CLUSTERS].values():
        assert cluster.Unpack(whole.static_resources.clusters.add())
    assert sorted(rendered[LISTENERS]) == ["edge", "internal"]
    for listener in rendered[LISTENERS].values():
        assert listener.Unpack(whole.static_resources.listeners.add())
    file = tmp_path / "whole.json"
    file.write_text(json_format.MessageToJson(whole))
    process = await asyncio.create_subprocess_exec(
        find_envoy(), "--mode", "validate", "-c", file, "--disable-hot-restart", stdout=-1, stderr=-2
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
