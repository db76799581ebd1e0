"""ModelService of a control process over two real hosts of models, each with a repository of its own."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from engines.repository import Repository
from gateway.control import Control
from headrace.model.v1 import model_pb2 as pb
from headrace.model.v1 import model_pb2_grpc
from services.chassis import health, rpc
from services.chassis.models import HostOptions, ModelHost
from services.chassis.open_inference import SERVICE as INFERENCE
from services.chassis.open_inference import OpenInferenceServicer
from services.chassis.settings import ServiceSettings, Settings
from tests.chassis.multiples import add_version
from tests.gateway.test_control import VISION, reason, until

TWO = Settings(services={"vision": ServiceSettings(replicas=2)})


@contextlib.asynccontextmanager
async def replica(address: str, models: Path) -> AsyncIterator[ModelHost]:
    """A service's Open Inference door over the models of a folder, served on `address`."""
    host, state, policy, server = (
        ModelHost(Repository(models), HostOptions("vision")),
        health.Health([VISION]),
        rpc.Policy(),
        grpc.aio.server(),
    )
    await host.start()
    await host.loaded()
    servicer = OpenInferenceServicer(host)
    server.add_generic_rpc_handlers(
        (rpc.handlers(INFERENCE, servicer, policy), rpc.handlers(health.SERVICE, state, policy))
    )
    server.add_insecure_port(address)
    await server.start()
    try:
        yield host
    finally:
        state.close()
        await server.stop(0)
        await host.close()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    made = (tmp_path / "left", tmp_path / "right")
    for folder in made:
        folder.mkdir()
        add_version(folder, 1)
    return made


@pytest.fixture
async def run_dir() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        yield Path(folder)


@pytest.fixture
async def control(run_dir: Path) -> AsyncIterator[Control]:
    made = Control(TWO, run_dir)
    async with made.serving():
        yield made


@pytest.fixture
async def stub(control: Control, run_dir: Path) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"unix:{run_dir}/control.sock") as channel:
        yield model_pb2_grpc.ModelServiceStub(channel)


async def refused(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def both(control: Control) -> bool:
    held = control.state.held("times")
    return held is not None and all(held.replicas.values()) and all(map(control.state.reached, held.replicas))


async def test_a_version_that_one_replica_cannot_load_is_said_and_the_others_have_it(
    control: Control, stub: Any, run_dir: Path, folders: tuple[Path, Path]
) -> None:
    left, right = folders
    async with replica(f"unix:{run_dir}/vision-0.sock", left), replica(f"unix:{run_dir}/vision-1.sock", right):
        await until(lambda: both(control))
        add_version(left, 2)
        add_version(right, 2, b"no network")
        error = await refused(stub.LoadModel(pb.LoadModelRequest(name="times", version="2")))
        assert (error.code(), reason(error).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
        model = (await stub.GetModel(pb.GetModelRequest(name="times"))).model
        second = model.versions[1]
        assert (second.version, second.state) == ("2", pb.MODEL_STATE_READY)
        assert (second.ready_replicas, second.replicas) == (1, 2)
        assert "cannot load it" in second.reason
        assert (model.versions[0].ready_replicas, model.versions[0].reason) == (2, "")
        await stub.UnloadModel(pb.UnloadModelRequest(name="times", version="2"))
        assert (await stub.GetModel(pb.GetModelRequest(name="times"))).model.default_version == "1"


async def test_a_replica_that_is_away_is_passed_over_and_none_is_unavailable(
    control: Control, stub: Any, run_dir: Path, folders: tuple[Path, Path]
) -> None:
    async with replica(f"unix:{run_dir}/vision-0.sock", folders[0]) as host:
        await until(lambda: control.state.models() == {"times": "vision"})
        await until(control.state.all_serving)
        model = (await stub.UnloadModel(pb.UnloadModelRequest(name="times"))).model
        assert (model.default_version, model.versions[0].state) == ("", pb.MODEL_STATE_UNAVAILABLE)
        assert host.meant("times").unloaded
        loading = [stub.LoadModel(pb.LoadModelRequest(name="times")) for _ in range(5)]  # at once: it is loaded once
        assert {answer.model.default_version for answer in await asyncio.gather(*loading)} == {"1"}
        assert not host.meant("times").unloaded
    await until(lambda: not control.state.all_serving())
    away = await refused(stub.LoadModel(pb.LoadModelRequest(name="times")))
    assert (away.code(), reason(away).reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE")


@pytest.mark.parametrize("name", ["tines", "../left/times", "", "a\0b", "x" * 5000])
async def test_names_that_are_no_models(
    name: str,
    control: Control,
    stub: Any,
    run_dir: Path,
    folders: tuple[Path, Path],
) -> None:
    async with replica(f"unix:{run_dir}/vision-0.sock", folders[0]):
        await until(lambda: control.state.models() == {"times": "vision"})
        await until(control.state.all_serving)
        for call in (
            stub.LoadModel(pb.LoadModelRequest(name=name)),
            stub.UnloadModel(pb.UnloadModelRequest(name=name)),
            stub.GetModel(pb.GetModelRequest(name=name)),
        ):
            code = (await refused(call)).code()
            assert code is (grpc.StatusCode.NOT_FOUND if name else grpc.StatusCode.INVALID_ARGUMENT)
        for version in ("0", "01", "-1", "9" * 400, "../1"):
            error = await refused(stub.LoadModel(pb.LoadModelRequest(name="times", version=version)))
            assert error.code() is grpc.StatusCode.NOT_FOUND
