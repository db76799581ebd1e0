"""A user's own classifier works by manifest alone, beside models that are broken in every way a folder can be."""

import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from PIL import Image

import headrace
from headrace.inference import open_inference_pb2 as oip
from headrace.inference import open_inference_pb2_grpc as oip_grpc
from tests.mesh import RunningMesh, running_mesh, wait_until
from tests.vision.tiny_models import add_colours, add_double


def lying(models: Path, name: str, declared: str) -> None:
    """A copy of `double` whose manifest declares other tensors than its file has."""
    shutil.copytree(models / "double", models / name)
    manifest = models / name / "model.toml"
    text = manifest.read_text().replace('name = "double"', f'name = "{name}"')
    manifest.write_text(f'{text}\n[[tensors.inputs]]\nname = "x"\ndatatype = "FP32"\nshape = {declared}\n')


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("own") / "models"
    models.mkdir()
    add_double(models)
    add_colours(models)
    lying(models, "liar", "[-1, 17]")
    for name in ("corrupt", "absent", "typo"):
        shutil.copytree(models / "double", models / name)
        manifest = models / name / "model.toml"
        manifest.write_text(manifest.read_text().replace('name = "double"', f'name = "{name}"'))
    (models / "corrupt/1/model.onnx").write_bytes(b"no network at all")
    (models / "absent/1/model.onnx").unlink()
    (models / "typo/model.toml").write_text('name = "typo"\nservice = "vision"\ntaks = ["tensor"]\n')
    return models


@pytest.fixture(scope="module")
def own(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    with running_mesh(tmp_path_factory.mktemp("own-mesh"), repository) as running:
        yield running


def index(mesh: RunningMesh) -> dict[str, tuple[str, str]]:
    with grpc.insecure_channel(mesh.gateway) as channel:
        answer = oip_grpc.GRPCInferenceServiceStub(channel).RepositoryIndex(oip.RepositoryIndexRequest(), timeout=10)
    return {model.name: (model.state, model.reason) for model in answer.models}


def test_an_own_classifier_answers_typed_and_open_inference_calls(own: RunningMesh) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), (250, 10, 10)).save(picture, "PNG")
    with headrace.Client(own.gateway) as client:
        (result,) = client.vision.classify(picture.getvalue(), model="colours", top_k=1)
    assert result.categories[0].label == "red"
    with grpc.insecure_channel(own.gateway) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(oip.ModelReadyRequest(name="colours"), timeout=10).ready


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("liar", "is declared [-1, 17], but the file says [-1, 16]"),
        ("corrupt", "ONNX Runtime cannot load it"),
        ("absent", "model.onnx"),
        ("typo", "did you mean 'tasks'?"),
    ],
)
def test_a_broken_model_says_why_and_harms_nobody(own: RunningMesh, name: str, words: str) -> None:
    listed = wait_until(lambda: index(own).get(name), 10, f"{name} is listed")
    assert listed[0] == "UNAVAILABLE"
    assert words in listed[1]
    assert index(own)["double"] == ("READY", "")
    request = oip.ModelInferRequest(model_name=name)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16]).contents.fp32_contents.extend([1.0] * 16)
    with grpc.insecure_channel(own.gateway) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert words in caught.value.details()


def test_the_command_line_lists_the_broken_ones_too(own: RunningMesh) -> None:
    listed = own.command("models", "list")
    for name in ("colours", "liar", "corrupt", "absent", "typo"):
        assert name in listed.stdout + listed.stderr
    checked = own.command("config", "check")
    assert checked.returncode == 1
    assert "did you mean 'tasks'?" in checked.stdout + checked.stderr


def test_models_added_to_a_running_mesh_serve_after_a_restart_of_the_service(own: RunningMesh) -> None:
    """The mesh follows what its services load; a service loads its models when it starts."""
    add_colours(own.folder / "more", name="tints")
    source = next((own.folder / "more").iterdir())
    added = own.command("models", "add", str(source))
    assert added.returncode == 0, added.stderr
    assert "tints" not in index(own)
    before = own.pids()["vision-0"]
    os.kill(before, signal.SIGTERM)
    wait_until(lambda: own.pids().get("vision-0", before) != before, 15, "the service is back")
    wait_until(lambda: index(own).get("tints", ("", ""))[0] == "READY", 15, "the new model serves")
    assert json.loads(own.command("top", "--once", "--json", "--interval", "0.1").stdout)["models"]
