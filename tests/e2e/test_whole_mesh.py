"""Every service behind one port: what belongs to the mesh as a whole, and models of all of them in one stream."""

import json
import urllib.error
import urllib.request
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from gateway.envoy.descriptors import rest_paths, typed_services
from headrace.inference import open_inference_pb2 as oip
from headrace.inference import open_inference_pb2_grpc as oip_grpc
from services.chassis.default_models import DEFAULTS
from tests.mesh import RunningMesh, wait_until

#: A model of each service and the sizes of the dimensions that its inputs leave open.
ONE_OF_EACH = {
    "vision": "efficientnet_lite0",
    "nlp": "all_minilm_l6_v2",
    "recommendation": "movielens",
    "speech": "silero_vad",
}
SERVICES = [service for service in typed_services() if service.full_name.split(".")[1] in DEFAULTS]
TYPES = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}


@pytest.fixture
def stub(channel: grpc.Channel) -> oip_grpc.GRPCInferenceServiceStub:
    return oip_grpc.GRPCInferenceServiceStub(channel)


def request_of_ones(stub: Any, model: str, number: int) -> oip.ModelInferRequest:
    """A request that any model takes: tensors of ones, dimensions left open being 1."""
    about = stub.ModelMetadata(oip.ModelMetadataRequest(name=model), timeout=20)
    request = oip.ModelInferRequest(model_name=model, id=str(number))
    for tensor in about.inputs:
        shape = [max(size, 1) for size in tensor.shape]
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        request.raw_input_contents.append(np.ones(shape, TYPES[tensor.datatype]).tobytes())
    return request


def test_one_stream_may_name_models_of_every_service(stub: Any) -> None:
    models = ["double", *(ONE_OF_EACH[service] for service in DEFAULTS)]
    for first in range(len(models)):
        # The stream lands at the service that holds its first model; the others are reached from there.
        turned = models[first:] + models[:first]
        requests = [request_of_ones(stub, model, number) for number, model in enumerate([*turned, *turned])]
        requests.append(oip.ModelInferRequest(model_name="nobody", id="nobody"))
        answers = {answer.infer_response.id: answer for answer in stub.ModelStreamInfer(iter(requests), timeout=60)}
        nobody = answers.pop("nobody")
        assert "there is no model 'nobody'" in nobody.error_message
        assert nobody.infer_response.parameters["headrace_error_code"].string_param == "NOT_FOUND"
        assert {answer.error_message for answer in answers.values()} == {""}
        assert {int(key): answer.infer_response.model_name for key, answer in answers.items()} == dict(
            enumerate([*turned, *turned])
        )
        assert all(answer.infer_response.raw_output_contents for answer in answers.values())


def test_an_item_that_another_service_answers_is_in_the_callers_trace(mesh: RunningMesh, stub: Any) -> None:
    trace_id = "5e" * 16
    requests = [request_of_ones(stub, "double", 0), request_of_ones(stub, "silero_vad", 1)]
    metadata = [("traceparent", f"00-{trace_id}-{'1' * 16}-01")]
    assert len(list(stub.ModelStreamInfer(iter(requests), timeout=20, metadata=metadata))) == 2

    def services() -> list[str]:
        document = json.loads(mesh.command("trace", trace_id, "--json").stdout or '{"spans": []}')
        return sorted({span["service"] for span in document["spans"]})

    wait_until(lambda: services() == ["headrace-gateway", "speech-0", "vision-0"], 10, "both services are in the trace")


def test_the_mesh_as_a_whole_knows_all_of_them(stub: Any) -> None:
    assert stub.ServerReady(oip.ServerReadyRequest(), timeout=5).ready
    assert "statistics" in stub.ServerMetadata(oip.ServerMetadataRequest(), timeout=5).extensions
    index = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=5).models
    states = {model.name: (model.state, model.reason) for model in index}
    wanted = {name for models in DEFAULTS.values() for name in models.values()}
    assert {name: states.get(name) for name in wanted} == dict.fromkeys(wanted, ("READY", ""))
    for name in states:
        assert stub.ModelReady(oip.ModelReadyRequest(name=name), timeout=5).ready
        assert stub.ModelMetadata(oip.ModelMetadataRequest(name=name), timeout=5).inputs
        assert stub.ModelConfig(oip.ModelConfigRequest(name=name), timeout=5).config.input
    zipped = grpc.Compression.Gzip
    assert stub.ModelMetadata(oip.ModelMetadataRequest(name="silero_vad"), timeout=5, compression=zipped).outputs
    statistics = stub.ModelStatistics(oip.ModelStatisticsRequest(), timeout=5).model_stats
    assert {model.name for model in statistics} == set(states)


def test_reflection_describes_every_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    listed = set(database.get_services())
    mine = {service.full_name for service in SERVICES}
    assert mine | {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= listed
    for name in mine:
        assert database.FindFileContainingSymbol(name).package == name.rpartition(".")[0]


def rest(mesh: RunningMesh, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"http://{mesh.gateway}{path}", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  # http on loopback
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize("path", [path for path in rest_paths() if path[4:].partition(":")[0] in DEFAULTS])
def test_every_rest_path_reaches_its_service(mesh: RunningMesh, path: str) -> None:
    """An empty request is understood, and refused field by field or answered; never lost on the way."""
    status, document = rest(mesh, path, b"{}")
    if status != 200:
        assert (status, document["code"]) == (400, grpc.StatusCode.INVALID_ARGUMENT.value[0]), document
        assert document["details"][0]["domain"] == "headrace"


@pytest.mark.parametrize(
    "service", [service for service in typed_services() if service.full_name.split(".")[1] in DEFAULTS]
)
def test_grpc_web_reaches_every_unary_method(mesh: RunningMesh, service: Any) -> None:
    for method in service.methods:
        if method.client_streaming:
            continue
        headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
        url = f"http://{mesh.gateway}/{service.full_name}/{method.name}"
        with urllib.request.urlopen(urllib.request.Request(url, b"\0" * 5, headers), timeout=20) as answer:
            status = (
                answer.headers.get("grpc-status") or answer.read().partition(b"grpc-status:")[2][:2].strip().decode()
            )
        assert int(status) in {0, grpc.StatusCode.INVALID_ARGUMENT.value[0]}, method.name


def test_a_message_beyond_the_limit_is_refused_by_every_service(mesh: RunningMesh) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(mesh.gateway, options=options) as channel:
        for service in SERVICES:
            call = channel.unary_unary(f"/{service.full_name}/{service.methods[0].name}")
            with pytest.raises(grpc.RpcError) as caught:
                call(bytes(17 << 20), timeout=20)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, service.full_name
            status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            assert info.reason == "MESSAGE_TOO_LARGE"
