"""One whole mesh on a free port: what `headrace up`, `trace`, `top` do, and how the mesh dies."""

import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.inference import open_inference_pb2 as pb
from headrace.inference import open_inference_pb2_grpc as pb_grpc
from tests.mesh import (
    MeshPlan,
    RunningMesh,
    alive,
    double_model,
    headrace,
    running_mesh,
    start_mesh,
    wait_until,
    write_settings,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return double_model(tmp_path_factory.mktemp("repository") / "models")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[RunningMesh]:
    with running_mesh(tmp_path_factory.mktemp("mesh"), models) as running:
        yield running


def double(gateway: str, traceparent: str = "", wait: bool = False) -> float:
    request = pb.ModelInferRequest(model_name="double")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16]).contents.fp32_contents.extend([1.5] * 16)
    metadata = [("traceparent", traceparent)] if traceparent else []
    with grpc.insecure_channel(gateway) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, timeout=10, metadata=metadata, wait_for_ready=wait)
    return float(memoryview(answer.raw_output_contents[0]).cast("f")[0])


def answers(gateway: str) -> bool:
    try:
        return double(gateway) == 3.0
    except grpc.RpcError:
        return False


def test_a_call_passes_through_the_whole_mesh_and_leaves_a_trace(mesh: RunningMesh) -> None:
    trace_id = os.urandom(16).hex()
    assert double(mesh.gateway, f"00-{trace_id}-{'1' * 16}-01") == 3.0
    shown = mesh.command("trace", trace_id[:12])
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].startswith(f"trace {trace_id}")
    labels = [line.lstrip(" │├└─").split("  ")[0] for line in lines[1:]]
    method = "inference.GRPCInferenceService/ModelInfer"
    assert labels[:2] == [method, method]
    assert {"queue", "engine", "batch of 1 row"} <= set(labels)
    document = json.loads(mesh.command("trace", trace_id, "--json").stdout)
    assert {span["service"] for span in document["spans"]} == {"headrace-gateway", "vision-0"}


def test_traces_are_listed_and_an_unknown_one_is_one_line(mesh: RunningMesh) -> None:
    double(mesh.gateway, f"00-{os.urandom(16).hex()}-{'1' * 16}-01")
    wait_until(lambda: "ModelInfer" in mesh.command("trace", "--last", "3").stdout, 10, "the trace is listed")
    unknown = mesh.command("trace", "f" * 32)
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("error: there is no trace ffff")
    assert unknown.stderr.count("\n") == 1


def test_top_shows_models_calls_and_processes(mesh: RunningMesh) -> None:
    double(mesh.gateway)
    view = json.loads(mesh.command("top", "--once", "--json", "--interval", "0.2").stdout)
    assert [model["name"] for model in view["models"]] == ["double@1"]
    assert "inference.GRPCInferenceService/ModelInfer" in {rpc["name"] for rpc in view["rpcs"]}
    assert {process["name"] for process in view["processes"]} == {"supervisor", "control", "envoy", "vision-0"}
    assert all(process["memory_mib"] > 1 for process in view["processes"])
    table = mesh.command("top", "--once", "--interval", "0.2").stdout
    assert "double@1" in table
    assert "vision-0" in table


def test_call_says_what_went_wrong_in_one_line(mesh: RunningMesh) -> None:
    photo = mesh.folder / "photo.jpg"
    photo.write_bytes(b"not a picture")
    unknown = mesh.command("call", "vision.classify", "photo.jpg", "--model", "nope")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("error: NOT_FOUND: there is no model 'nope'")
    assert "MODEL_NOT_FOUND" in unknown.stderr
    missing = mesh.command("call", "vision.classify", "nowhere.jpg")
    assert missing.stderr == "error: nowhere.jpg: there is no such file\n"
    away = mesh.command("call", "vision.embed", "photo.jpg", "--gateway", "127.0.0.1:1", "--timeout", "1")
    assert away.returncode == 1
    assert away.stderr.startswith("error: ")
    assert away.stderr.count("\n") == 1


def test_missing_models_arrive_behind_a_mesh_that_already_answers(tmp_path: Path) -> None:
    plan = {"models": {"directory": "models", "pull": ["nosuch", "double"]}}
    with running_mesh(tmp_path, settings=plan) as mesh, grpc.insecure_channel(mesh.gateway) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(pb.ServerReadyRequest(), timeout=5).ready
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(pb.ModelInferRequest(model_name="nosuch"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "headrace models pull nosuch" in caught.value.details()
        wait_until(lambda: answers(mesh.gateway), 20, "the model that was fetched answers")
        said = " ".join((tmp_path / "up.stderr").read_text().split())
        assert "could not fetch nosuch: the zoo has no model 'nosuch'" in said
        assert "headrace models pull nosuch" in said
        assert "fetched double (2 of 2)" in said


def test_stopping_ends_a_fetch_at_once(tmp_path: Path) -> None:
    # A pull that waits for the lock that we hold.
    (tmp_path / "models").mkdir()
    with (tmp_path / "models/.pull.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mesh = start_mesh(tmp_path, MeshPlan(settings={"models": {"directory": "models", "pull": ["double"]}}))
        log = tmp_path / ".headrace/logs/fetch.log"
        wait_until(lambda: log.exists() and "another pull is writing" in log.read_text(), 20, "the pull waits")
        assert "to come double" in " ".join((tmp_path / "up.stderr").read_text().split())
        assert mesh.stop() < 5


def test_a_second_mesh_in_the_same_folder_is_refused(mesh: RunningMesh) -> None:
    second = mesh.command("up")
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: a mesh already runs from {mesh.folder / '.headrace'} (process ")
    assert double(mesh.gateway) == 3.0


def test_killed_processes_come_back(mesh: RunningMesh) -> None:
    for name in ("vision-0", "envoy", "control"):
        before = mesh.pids()[name]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda name=name, before=before: mesh.pids().get(name, before) != before, 15, f"{name} is back")
        wait_until(lambda: answers(mesh.gateway), 15, f"the mesh answers after {name} died")


def test_calls_go_on_while_the_control_process_is_away(mesh: RunningMesh) -> None:
    os.kill(mesh.pids()["control"], signal.SIGKILL)
    assert double(mesh.gateway) == 3.0
    wait_until(lambda: mesh.command("trace", "--last", "1").returncode == 0, 15, "the control process answers again")


def test_a_burst_lowers_what_is_sampled_and_sampled_callers_are_kept(mesh: RunningMesh) -> None:
    def ratio() -> float:
        return float(json.loads((mesh.run_dir / "status.json").read_text())["sample_ratio"])

    def burst() -> bool:
        for _ in range(50):
            stub.ModelInfer(request, timeout=10)
        return ratio() < 0.75

    request = pb.ModelInferRequest(model_name="double")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16]).contents.fp32_contents.extend([1.5] * 16)
    with grpc.insecure_channel(mesh.gateway) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        wait_until(burst, 15, "the gateway samples less")
    trace_id = os.urandom(16).hex()
    double(mesh.gateway, f"00-{trace_id}-{'1' * 16}-01")
    assert mesh.command("trace", trace_id).returncode == 0


def test_a_second_signal_does_not_wait_for_an_open_stream(models: Path, tmp_path: Path) -> None:
    mesh = start_mesh(tmp_path, MeshPlan(models))
    try:
        with grpc.insecure_channel(mesh.gateway) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            mesh.supervisor.send_signal(signal.SIGINT)
            wait_until(lambda: "stopping" in (tmp_path / "up.stderr").read_text(), 5, "it says that it stops")
            mesh.supervisor.send_signal(signal.SIGINT)
            started = time.monotonic()
            mesh.supervisor.wait(10)
            assert time.monotonic() - started < 2
    finally:
        mesh.stop()


def test_two_meshes_run_side_by_side_and_sigterm_ends_one(mesh: RunningMesh, models: Path, tmp_path: Path) -> None:
    other = start_mesh(tmp_path, MeshPlan(models))
    try:
        assert other.gateway != mesh.gateway
        assert double(other.gateway) == double(mesh.gateway) == 3.0
    finally:
        assert other.stop(signal.SIGTERM) < 10
    assert not (tmp_path / ".headrace/mesh.json").exists()
    assert double(mesh.gateway) == 3.0


def test_a_killed_supervisor_takes_everything_along(models: Path, tmp_path: Path) -> None:
    mesh = start_mesh(tmp_path, MeshPlan(models))
    pids = mesh.descendants()
    assert len(pids) >= 4
    mesh.supervisor.kill()
    mesh.supervisor.wait()
    wait_until(lambda: not any(map(alive, pids)), 5, "nothing of the mesh is left")
    wait_until(lambda: not mesh.run_dir.exists(), 5, "the run folder is removed")
    stale = headrace("trace", folder=tmp_path)
    assert stale.stderr == f"error: no mesh is running from {tmp_path / '.headrace'}; start one with `headrace up`\n"


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        result = headrace("up", "--listen", listen, folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {listen} is in use by another program; change gateway.listen or pass --listen HOST:PORT\n"
    )
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gateway": {"envoy": "/nowhere/envoy"}}, "gateway.envoy: /nowhere/envoy is not an executable file"),
        ({"gateway": {"lissten": "x"}}, "did you mean 'listen'?"),
        ({"metrics": {"listen": "192.0.2.1:9"}}, "control could not start: "),
        ({"services.vision": {"listen": "127.0.0.1:0"}}, "services.vision.listen: '127.0.0.1:0' has no port"),
    ],
)
def test_a_wrong_setting_ends_up_with_one_line(
    tmp_path: Path, models: Path, settings: dict[str, dict[str, str]], words: str
) -> None:
    write_settings(tmp_path, MeshPlan(models, settings))
    result = headrace("up", folder=tmp_path)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
