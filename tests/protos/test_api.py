"""The public API against the names, paths and encodings that callers rely on."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from headrace.common.v1 import common_pb2
from headrace.inference import open_inference_pb2
from headrace.model.v1 import model_pb2
from headrace.nlp.v1 import nlp_pb2
from headrace.recommendation.v1 import recommendation_pb2
from headrace.speech.v1 import speech_pb2
from headrace.vision.v1 import vision_pb2

CLIENT = Path(__file__).parents[2] / "clients" / "python"
DOMAINS = (vision_pb2, speech_pb2, nlp_pb2, recommendation_pb2)
REST = {
    "headrace.vision.v1.VisionService.Classify": "/v1/vision:classify",
    "headrace.vision.v1.VisionService.ReadText": "/v1/vision:readText",
    "headrace.vision.v1.VisionService.Embed": "/v1/vision:embed",
    "headrace.speech.v1.SpeechService.Recognize": "/v1/speech:recognize",
    "headrace.speech.v1.SpeechService.DetectSpeech": "/v1/speech:detect",
    "headrace.nlp.v1.NlpService.Embed": "/v1/nlp:embed",
    "headrace.nlp.v1.NlpService.ClassifyText": "/v1/nlp:classify",
    "headrace.nlp.v1.NlpService.Rerank": "/v1/nlp:rerank",
    "headrace.recommendation.v1.RecommendationService.Recommend": "/v1/recommendation:recommend",
    "headrace.recommendation.v1.RecommendationService.Rank": "/v1/recommendation:rank",
    "headrace.recommendation.v1.RecommendationService.SimilarItems": "/v1/recommendation:similarItems",
}


def _methods():
    services = (service for module in DOMAINS for service in module.DESCRIPTOR.services_by_name.values())
    return [method for service in services for method in service.methods]


def test_every_unary_rpc_is_a_post_of_its_whole_request() -> None:
    rules = {method.full_name: method.GetOptions().Extensions[annotations_pb2.http] for method in _methods()}
    assert {name: rule.post for name, rule in rules.items() if rule.WhichOneof("pattern")} == REST
    assert {rule.body for name, rule in rules.items() if name in REST} == {"*"}
    assert set(rules) - set(REST) == {"headrace.speech.v1.SpeechService.StreamingRecognize"}


def test_every_response_names_its_model() -> None:
    for method in _methods():
        field = method.output_type.fields_by_name["model"]
        assert field.message_type is common_pb2.ModelRef.DESCRIPTOR, method.full_name
        # A stream's first message carries the model in its configuration.
        asked = speech_pb2.StreamingConfig.DESCRIPTOR if method.client_streaming else method.input_type
        assert asked.fields_by_name["model"].type == FieldDescriptor.TYPE_STRING, method.full_name


def test_the_model_service_is_rest_over_the_models_names() -> None:
    (service,) = model_pb2.DESCRIPTOR.services_by_name.values()
    rules = {method.name: method.GetOptions().Extensions[annotations_pb2.http] for method in service.methods}
    assert {name: (rule.get or rule.post, rule.body) for name, rule in rules.items()} == {
        "ListModels": ("/v1/models", ""),
        "GetModel": ("/v1/models/{name}", ""),
        "LoadModel": ("/v1/models/{name}:load", "*"),
        "UnloadModel": ("/v1/models/{name}:unload", "*"),
        "SetTraffic": ("/v1/models/{name}:setTraffic", "*"),
    }
    assert {"page_size", "page_token"} == set(model_pb2.ListModelsRequest.DESCRIPTOR.fields_by_name)
    assert "next_page_token" in model_pb2.ListModelsResponse.DESCRIPTOR.fields_by_name


def _triton(name: str):
    """The descriptor of Triton's client for one of our top-level names."""
    for module in (service_pb2, model_config_pb2):
        for known in (module.DESCRIPTOR.message_types_by_name, module.DESCRIPTOR.enum_types_by_name):
            if name in known:
                return known[name]
    raise AssertionError(f"Triton's client has no {name}")


def _shape(field):
    kind = field.message_type or field.enum_type
    choice = field.containing_oneof.name if field.containing_oneof else None
    return field.name, field.number, field.type, field.is_repeated, kind.full_name if kind else None, choice


def _compare_messages(ours, theirs) -> None:
    known = {field.name: _shape(field) for field in theirs.fields}
    for field in ours.fields:
        if field.full_name == "inference.ModelMetadataResponse.properties":
            assert field.number not in theirs.fields_by_number  # The protocol has it, Triton's proto does not.
            continue
        assert _shape(field) == known.get(field.name), field.full_name
    for nested in ours.nested_types:
        if nested.name != "PropertiesEntry":
            _compare_messages(nested, theirs.nested_types_by_name[nested.name])
    for enum in ours.enum_types:
        _compare_enums(enum, theirs.enum_types_by_name[enum.name])


def _compare_enums(ours, theirs) -> None:
    assert [(value.name, value.number) for value in ours.values] == [
        (value.name, value.number) for value in theirs.values
    ]


@pytest.mark.parametrize("name", open_inference_pb2.DESCRIPTOR.message_types_by_name)
def test_open_inference_messages_are_tritons(name) -> None:
    _compare_messages(open_inference_pb2.DESCRIPTOR.message_types_by_name[name], _triton(name))


@pytest.mark.parametrize("name", open_inference_pb2.DESCRIPTOR.enum_types_by_name)
def test_open_inference_enums_are_tritons(name) -> None:
    _compare_enums(open_inference_pb2.DESCRIPTOR.enum_types_by_name[name], _triton(name))


def test_open_inference_rpcs_are_tritons() -> None:
    (ours,) = open_inference_pb2.DESCRIPTOR.services_by_name.values()
    theirs = service_pb2.DESCRIPTOR.services_by_name[ours.name]
    assert ours.full_name == theirs.full_name == "inference.GRPCInferenceService"
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
        assert (method.client_streaming, method.server_streaming) == (other.client_streaming, other.server_streaming)
    missing = {method.name for method in theirs.methods} - {method.name for method in ours.methods}
    assert all("SharedMemory" in name or name in {"TraceSetting", "LogSettings"} for name in missing)


def test_reflection_finds_open_inference_in_its_pool() -> None:
    pool = open_inference_pb2.POOL
    assert open_inference_pb2.DESCRIPTOR.pool is pool
    assert pool.FindFileContainingSymbol("inference.GRPCInferenceService").name == "inference/open_inference.proto"


ROUND_TRIP = """
request = ours.ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"x"])
request.parameters["timeout"].int64_param = 3
request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
other = theirs.ModelInferRequest.FromString(request.SerializeToString())
assert other.parameters["timeout"].int64_param == 3 and other.inputs[0].shape == [1, 16]
assert ours.ModelInferRequest.FromString(other.SerializeToString()) == request
"""
OURS = "from headrace.inference import open_inference_pb2 as ours, open_inference_pb2_grpc"
THEIRS = "import tritonclient.grpc; from tritonclient.grpc import service_pb2 as theirs"


@pytest.mark.parametrize("imports", [(OURS, THEIRS), (THEIRS, OURS)], ids=["ours first", "theirs first"])
def test_open_inference_and_tritons_client_live_in_one_process(imports) -> None:
    program = "\n".join((*imports, ROUND_TRIP))
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        env={"PYTHONPATH": str(CLIENT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
