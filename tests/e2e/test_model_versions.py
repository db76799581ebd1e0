"""Versions swapped in a running mesh of two replicas, under calls of real clients and from every door that it has."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import headrace
from headrace.inference import open_inference_pb2 as oip
from headrace.inference import open_inference_pb2_grpc as oip_grpc
from headrace.model.v1 import model_pb2, model_pb2_grpc
from tests.chassis.multiples import add_version, network, remove_version
from tests.mesh import RunningMesh, running_mesh, wait_until

REQUEST = oip.ModelInferRequest(model_name="times", raw_input_contents=[np.ones((1, 4), np.float32).tobytes()])
REQUEST.inputs.add(name="x", datatype="FP32", shape=[1, 4])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("versions") / "models"
    repository.mkdir()
    add_version(repository, 1)
    for name in ("other", "zebra"):
        add_version(repository, 1, name=name)
    return repository


@pytest.fixture(scope="module")
def mesh(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    settings = {"services.vision": {"cores": 1, "replicas": 2}}
    with running_mesh(tmp_path_factory.mktemp("versions-mesh"), models, settings) as running:
        yield running


@pytest.fixture
def client(mesh: RunningMesh) -> Iterator[headrace.Client]:
    with headrace.Client(mesh.gateway, timeout=20) as made:
        yield made


class Callers:
    """Threads with channels of their own that call without a pause; nothing is retried."""

    def __init__(self, gateway: str, count: int) -> None:
        self.seen: dict[str, int] = {}
        self.failures: list[str] = []
        self._gateway, self._stop = gateway, threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(self._gateway, options=options) as channel:
            stub = oip_grpc.GRPCInferenceServiceStub(channel)
            while not self._stop.is_set():
                try:
                    answer = stub.ModelInfer(REQUEST, timeout=10)
                except grpc.RpcError as error:
                    self.failures.append(str(error))
                    continue
                (value,) = set(np.frombuffer(answer.raw_output_contents[0], np.float32).tolist())
                if answer.model_version != str(int(value)):
                    self.failures.append(f"version {answer.model_version} answered {value}")
                self.seen[answer.model_version] = self.seen.get(answer.model_version, 0) + 1


def test_thirty_swaps_and_a_broken_version_fail_no_call(
    mesh: RunningMesh, models: Path, client: headrace.Client
) -> None:
    """Every third version is found by watching, the others are loaded by call; the one before is taken away."""
    with Callers(mesh.gateway, 3) as callers:
        for version in range(2, 32):
            add_version(models, version)
            if version % 3:
                assert client.models.load("times").default_version == str(version)
            else:
                wait_until(lambda: version in ready(client), 10, "both replicas have found the version")  # noqa: B023
            remove_version(models, version - 1)
        add_version(models, 32, b"no network")
        with pytest.raises(headrace.FailedPrecondition, match=r"cannot be loaded.*ONNX Runtime cannot load") as caught:
            client.models.load("times")
        assert caught.value.reason == "MODEL_LOAD_FAILED"
        broken = client.models.get("times")
        assert broken.default_version == "31"
        assert broken.versions[-1].state == "UNAVAILABLE"
        assert "cannot load" in broken.versions[-1].reason
        time.sleep(0.3)
    assert callers.failures == []
    assert len(callers.seen) > 20
    assert sum(callers.seen.values()) > 500
    wait_until(lambda: ready(client) == [31], 10, "the earlier versions have left")
    remove_version(models, 32)


def ready(client: headrace.Client) -> list[int]:
    """The versions of `times` that both replicas serve."""
    return [int(each.version) for each in client.models.get("times").versions if each.ready_replicas == 2]


async def test_models_are_listed_page_by_page(mesh: RunningMesh, client: headrace.Client) -> None:
    listed = list(client.models.list())
    assert [model.name for model in listed] == ["other", "times", "zebra"]
    other = listed[0]
    assert (other.service, other.tasks, other.platform) == ("vision", ("tensor",), "onnxruntime_onnx")
    assert other.versions == (headrace.ModelVersion("1", "READY", "", 2, 2),)
    async with headrace.AsyncClient(mesh.gateway) as aio:
        assert [model async for model in aio.models.list()] == listed
        assert await aio.models.get("other") == other
        assert await aio.models.load("other", "1") == other
        with pytest.raises(headrace.NotFound, match="did you mean other"):
            await aio.models.unload("othre")
    with grpc.insecure_channel(mesh.gateway) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        first = stub.ListModels(model_pb2.ListModelsRequest(page_size=2))
        rest = stub.ListModels(model_pb2.ListModelsRequest(page_size=2, page_token=first.next_page_token))
        assert [[model.name for model in page.models] for page in (first, rest)] == [["other", "times"], ["zebra"]]
        assert rest.next_page_token == ""
        for wrong, field in (
            (lambda: stub.ListModels(model_pb2.ListModelsRequest(page_size=-1)), "page_size"),
            (lambda: stub.GetModel(model_pb2.GetModelRequest()), "name"),
        ):
            with pytest.raises(grpc.RpcError, match=field) as caught:
                wrong()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "headrace.model.v1.ModelService" in ProtoReflectionDescriptorDatabase(channel).get_services()


def rest(mesh: RunningMesh, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"http://{mesh.gateway}{path}", body, {"content-type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  # http on loopback
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_rest_reaches_every_call(mesh: RunningMesh) -> None:
    status, listed = rest(mesh, "GET", "/v1/models?page_size=1")
    assert (status, listed["models"][0]["name"], listed["nextPageToken"]) == (200, "other", "other")
    status, got = rest(mesh, "GET", "/v1/models/other")
    assert (status, got["model"]["defaultVersion"]) == (200, "1")
    status, gone = rest(mesh, "POST", "/v1/models/other:unload", b"{}")
    assert (status, gone["model"]["versions"][0]["state"]) == (200, "MODEL_STATE_UNAVAILABLE")
    status, back = rest(mesh, "POST", "/v1/models/other:load", b'{"version": "1"}')
    assert (status, back["model"]["versions"][0]["readyReplicas"]) == (200, 2)
    status, refused = rest(mesh, "POST", "/v1/models/other:setTraffic", b"{}")
    assert status == 501
    assert "highest version that serves" in refused["message"]
    for path in ("/v1/models/nothing", "/v1/models/..%20x"):
        status, missing = rest(mesh, "GET", path)
        assert (status, missing["details"][0]["reason"]) == (404, "MODEL_NOT_FOUND")
    assert rest(mesh, "POST", "/v1/models/..x:load", b"{}")[0] == 404
    assert rest(mesh, "POST", "/v1/models/other:load", b'{"version": "9"}')[0] == 404
    assert rest(mesh, "DELETE", "/v1/models/other")[0] == 405


def test_tritons_client_and_the_command_line_load_and_unload_on_every_replica(mesh: RunningMesh, models: Path) -> None:
    x = triton.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.ones((1, 4), np.float32))
    calls = triton.InferenceServerClient(mesh.gateway)
    calls.unload_model("zebra")
    for _ in range(8):  # whichever replica it is
        with pytest.raises(triton.InferenceServerException, match="headrace models load zebra"):
            calls.infer("zebra", [x])
    calls.load_model("zebra")
    for _ in range(8):
        assert calls.infer("zebra", [x]).as_numpy("y")[0, 0] == 1.0
    with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
        calls.load_model("no such model")
    done = mesh.command("models", "unload", "zebra")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "zebra: no version answers")
    add_version(models, 2, name="zebra")
    done = mesh.command("models", "load", "zebra")
    assert (done.returncode, done.stderr) == (0, "")
    assert "zebra@2: ready, 2 of 2 replicas" in done.stdout
    assert done.stdout.splitlines()[-1] == "zebra: version 2 answers"
    assert calls.infer("zebra", [x]).as_numpy("y")[0, 0] == 2.0
    (models / "zebra/2/model.onnx").write_bytes(b"no network")
    done = mesh.command("models", "load", "zebra@2")
    assert done.returncode == 1
    assert "version 2 of model zebra cannot be loaded" in done.stderr
    assert calls.infer("zebra", [x]).as_numpy("y")[0, 0] == 2.0
    (models / "zebra/2/model.onnx").write_bytes(network(7))
    assert mesh.command("models", "load", "zebra@2").returncode == 0
    assert calls.infer("zebra", [x]).as_numpy("y")[0, 0] == 7.0
    calls.close()


def test_a_model_that_the_mesh_has_not_seen_yet_is_loaded_by_name(models: Path, client: headrace.Client) -> None:
    add_version(models, 4, name="yak")
    assert client.models.load("yak").default_version == "4"
