"""What bad input gets through the whole mesh: the right code, words and details; and the mesh serves on."""

import json
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from headrace.inference import open_inference_pb2 as oip
from headrace.inference import open_inference_pb2_grpc as oip_grpc
from headrace.vision.v1 import vision_pb2, vision_pb2_grpc
from tests.mesh import RunningMesh

CODE = grpc.StatusCode


@pytest.fixture(autouse=True)
def still_serving(mesh: RunningMesh) -> Iterator[None]:
    """Whatever a test sends, its neighbours are answered by the same processes."""
    before = mesh.pids()
    yield
    assert mesh.pids() == before
    with grpc.insecure_channel(mesh.gateway) as channel:
        answer = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(infer(), timeout=10)
    assert answer.raw_output_contents[0] == np.full(16, 2, np.float32).tobytes()


def infer(
    model: str = "double", version: str = "", datatype: str = "FP32", shape: tuple[int, ...] = (1, 16)
) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=model, model_version=version)
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    request.raw_input_contents.append(np.ones(16, np.float32).tobytes())
    return request


def details(error: grpc.RpcError) -> tuple[status_pb2.Status, error_details_pb2.ErrorInfo]:
    """The google.rpc.Status of a failed call and its ErrorInfo, which every error of the mesh carries."""
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert raw is not None, f"no details: {error.code()} {error.details()}"
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    info = error_details_pb2.ErrorInfo()
    assert any(part.Unpack(info) for part in status.details)
    assert info.domain == "headrace"
    return status, info


def refused(call: Callable[[], object], code: grpc.StatusCode, reason: str, *words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    assert error.code() is code, f"{error.code()}: {error.details()}"
    _, info = details(error)
    assert info.reason == reason
    for word in words:
        assert word in error.details()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"plain words, no picture", "not a picture"),
        (b"\xff\xd8\xff\xe0 a JPEG by its first bytes only", "JPEG"),
    ],
)
def test_a_bad_picture_fails_alone(
    channel: grpc.Channel, photographs: dict[str, bytes], content: bytes, words: str
) -> None:
    good = photographs["flower.jpg"]
    images = [vision_pb2.Image(content=each) for each in (good, content, good[: len(good) // 2], good)]
    response = vision_pb2_grpc.VisionServiceStub(channel).Classify(
        vision_pb2.ClassifyRequest(images=images), timeout=20
    )
    assert [result.error.code for result in response.results] == [0, 3, 3, 0]
    assert "images[1].content" in response.results[1].error.message
    assert words in response.results[1].error.message
    assert response.results[0].categories == response.results[3].categories


def test_a_decompression_bomb_is_refused_by_its_header(channel: grpc.Channel) -> None:
    size = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\r" + size + zlib.crc32(size).to_bytes(4, "big") + b"\0\0\0\0IDAT"
    request = vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=bomb)])
    response = vision_pb2_grpc.VisionServiceStub(channel).Classify(request, timeout=20)
    assert response.results[0].error.code == CODE.INVALID_ARGUMENT.value[0]
    assert "50000000" in response.results[0].error.message


def test_a_message_of_40_mb_names_the_limit(channel: grpc.Channel) -> None:
    request = vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=b"x" * 40_000_000)])
    stub = vision_pb2_grpc.VisionServiceStub(channel)
    refused(lambda: stub.Classify(request, timeout=20), CODE.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", "16777216")


def test_calls_that_are_wrong_as_a_whole(channel: grpc.Channel, photographs: dict[str, bytes]) -> None:
    stub = vision_pb2_grpc.VisionServiceStub(channel)
    image = vision_pb2.Image(content=photographs["china.jpg"])

    def classify(**fields: object) -> Callable[[], object]:
        return lambda: stub.Classify(vision_pb2.ClassifyRequest(**fields), timeout=20)

    refused(classify(), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "images")
    many = [vision_pb2.Image(content=b"x")] * 10_000
    refused(classify(images=many), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "images", "10000", "1024")
    refused(classify(images=[image], top_k=-1), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "top_k")
    refused(classify(images=[image], model="nope"), CODE.NOT_FOUND, "MODEL_NOT_FOUND", "nope", "efficientnet_lite0")
    unknown = classify(images=[image], model="efficientnet_lite0@9")
    refused(unknown, CODE.NOT_FOUND, "MODEL_VERSION_NOT_FOUND", "9")
    refused(classify(images=[image], model="double"), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "model", "double")


def test_tensors_that_do_not_fit(channel: grpc.Channel) -> None:
    stub = oip_grpc.GRPCInferenceServiceStub(channel)
    missing, twice, short = infer(), infer(), infer()
    missing.ClearField("inputs")
    missing.ClearField("raw_input_contents")
    twice.inputs.add(name="x", datatype="FP32", shape=(1, 16))
    twice.raw_input_contents.append(twice.raw_input_contents[0])
    short.raw_input_contents[0] = short.raw_input_contents[0][:-1]
    for request, word in (
        (infer(datatype="INT64"), "datatype"),
        (infer(shape=(1, 8)), "shape"),
        (infer(shape=(-1, 16)), "shape"),
        (infer(shape=(2**40, 2**40)), "shape"),
        (missing, "x"),
        (twice, "x"),
        (short, "64"),
    ):
        refused(
            lambda request=request: stub.ModelInfer(request, timeout=10), CODE.INVALID_ARGUMENT, "INVALID_FIELD", word
        )


def test_models_that_are_not_there(channel: grpc.Channel) -> None:
    stub = oip_grpc.GRPCInferenceServiceStub(channel)
    for call in (
        lambda: stub.ModelInfer(infer("nope"), timeout=10),
        lambda: stub.ModelReady(oip.ModelReadyRequest(name="nope"), timeout=10),
        lambda: stub.ModelMetadata(oip.ModelMetadataRequest(name="nope"), timeout=10),
    ):
        refused(call, CODE.NOT_FOUND, "MODEL_NOT_FOUND", "nope")
    refused(lambda: stub.ModelInfer(infer(version="9"), timeout=10), CODE.NOT_FOUND, "MODEL_VERSION_NOT_FOUND", "9")


@pytest.mark.parametrize(
    ("method", "code", "reason"),
    [
        ("/headrace.vision.v1.VisionService/Classify", CODE.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
        ("/inference.GRPCInferenceService/ModelInfer", CODE.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
        ("/headrace.vision.v1.VisionService/Nope", CODE.UNIMPLEMENTED, "UNKNOWN_METHOD"),
        ("/nowhere.Service/Nope", CODE.UNIMPLEMENTED, "UNKNOWN_METHOD"),
    ],
)
def test_bytes_and_paths_that_mean_nothing(
    channel: grpc.Channel, method: str, code: grpc.StatusCode, reason: str
) -> None:
    call = channel.unary_unary(method)
    refused(lambda: call(b"\x0a\xff\xff\xff\xff no protobuf", timeout=10), code, reason)


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/v1/vision:classify", b'{"images": [', 400, "MALFORMED_JSON"),
        ("/v1/vision:classify", b'{"images": 5}', 400, "MALFORMED_JSON"),
        ("/v1/vision:classify", b"{}", 400, "INVALID_FIELD"),
        ("/v1/vision:nope", b"{}", 404, "UNKNOWN_METHOD"),
    ],
)
def test_rest_errors_are_json_with_details(mesh: RunningMesh, path: str, body: bytes, status: int, reason: str) -> None:
    request = urllib.request.Request(f"http://{mesh.gateway}{path}", body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310 - as above
    with caught.value as answer:
        assert answer.code == status
        document = json.loads(answer.read())
    assert document["message"]
    assert [part.get("reason") for part in document["details"] if "ErrorInfo" in part["@type"]] == [reason]


def test_a_deadline_that_cannot_be_met(channel: grpc.Channel, crops: list[bytes]) -> None:
    request = vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=crop) for crop in crops * 4])
    with pytest.raises(grpc.RpcError) as caught:
        vision_pb2_grpc.VisionServiceStub(channel).Classify(request, timeout=0.05)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED
