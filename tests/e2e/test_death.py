"""Processes that die under load: which calls fail, how, and how soon the mesh is whole again."""

import asyncio
import os
import re
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest

from headrace.inference import open_inference_pb2 as oip
from headrace.inference import open_inference_pb2_grpc as oip_grpc
from tests.mesh import RunningMesh, running_mesh, wait_until

#: What an interrupted or refused call may end with; anything else, a hang included, is a bug.
INTERRUPTED = {grpc.StatusCode.UNAVAILABLE}
BACK_WITHIN = 5.0


@pytest.fixture(scope="module")
def mortal(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh of its own with two replicas, since its processes are killed."""
    settings = {"services.vision": {"cores": 1, "replicas": 2, "models": ["double"]}}
    with running_mesh(tmp_path_factory.mktemp("mortal"), zoo, settings) as running:
        yield running


@dataclass(slots=True)
class Load:
    """Callers that go on until `stop` is set; how their calls ended, and when the last failure was."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    codes: Counter[grpc.StatusCode] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    wrong_answers: int = 0
    last_failure: float = 0.0

    async def call(self, stub: oip_grpc.GRPCInferenceServiceStub, number: int) -> None:
        given = np.full((1, 16), number, np.float32)
        request = oip.ModelInferRequest(model_name="double", id=str(number))
        request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
        request.raw_input_contents.append(given.tobytes())
        while not self.stop.is_set():
            try:
                answer = await stub.ModelInfer(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                self.codes[error.code()] += 1
                self.words[error.details() or ""] += 1
                self.last_failure = time.monotonic()
                await asyncio.sleep(0.02)
            else:
                self.codes[grpc.StatusCode.OK] += 1
                self.wrong_answers += answer.raw_output_contents[0] != (2 * given).tobytes()

    async def until(self, calls: int) -> None:
        """Wait until so many more calls have succeeded."""
        goal = self.codes[grpc.StatusCode.OK] + calls
        async with asyncio.timeout(30):
            while self.codes[grpc.StatusCode.OK] < goal:
                await asyncio.sleep(0.01)


def healthy_replicas(mesh: RunningMesh) -> int:
    """How many replicas of the vision service the gateway sends calls to."""
    with urllib.request.urlopen(mesh.metrics, timeout=10) as page:  # noqa: S310  # http on loopback
        found = re.search(r'membership_healthy\{[^}]*cluster_name="vision"[^}]*\} (\d+)', page.read().decode())
    return int(found[1]) if found else 0


async def under_load(mesh: RunningMesh, name: str, number: signal.Signals) -> tuple[Load, float]:
    """Signal the process `name` while 16 callers call; return the load and the seconds until the last failure."""
    load = Load()
    wait_until(lambda: healthy_replicas(mesh) == 2, 15, "both replicas serve")
    before = mesh.pids()[name]
    async with grpc.aio.insecure_channel(mesh.gateway) as channel, asyncio.TaskGroup() as group:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        for caller in range(16):
            group.create_task(load.call(stub, caller))
        await load.until(200)
        os.kill(before, number)
        killed = time.monotonic()
        async with asyncio.timeout(15):
            while mesh.pids().get(name, before) == before:
                await asyncio.sleep(0.02)
        await load.until(200)
        load.stop.set()
    return load, max(0.0, load.last_failure - killed)


@pytest.mark.parametrize("name", ["vision-0", "envoy"])
async def test_a_killed_process_fails_its_own_calls_only(mortal: RunningMesh, name: str) -> None:
    load, seconds = await under_load(mortal, name, signal.SIGKILL)
    assert load.wrong_answers == 0
    assert set(load.codes) <= INTERRUPTED | {grpc.StatusCode.OK}, load.codes
    assert seconds < BACK_WITHIN
    if name == "vision-0":
        # What was in flight on the dead replica, and what reached it before the gateway knew.
        assert load.codes[grpc.StatusCode.UNAVAILABLE] <= 32, load.words


async def test_a_killed_control_process_fails_no_call(mortal: RunningMesh) -> None:
    load, _ = await under_load(mortal, "control", signal.SIGKILL)
    assert set(load.codes) == {grpc.StatusCode.OK}, load.codes


async def test_a_draining_replica_loses_nothing_in_flight(mortal: RunningMesh) -> None:
    load, seconds = await under_load(mortal, "vision-1", signal.SIGTERM)
    assert load.wrong_answers == 0
    assert set(load.codes) <= INTERRUPTED | {grpc.StatusCode.OK}, load.codes
    assert seconds < BACK_WITHIN
