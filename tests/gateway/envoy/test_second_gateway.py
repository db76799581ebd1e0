"""A second gateway on the same machine, with a bound on its connections."""

import tempfile
from http import client as http_client
from pathlib import Path

import grpc
import pytest

from gateway.topology import Edge
from headrace.vision.v1 import vision_pb2
from tests.gateway.envoy.harness import Mesh, http, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_run_side_by_side_and_connections_are_bounded(mesh: Mesh) -> None:
    edge = Edge(listen="127.0.0.1:0", max_connections=2)
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder:
        async with running_mesh(Path(folder), edge) as second:
            assert second.port != mesh.port
            await second.vision().Classify(vision_pb2.ClassifyRequest())
            # One connection is the mesh's own channel, one more may come; each channel below has its own.
            async with grpc.aio.insecure_channel(
                second.address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as one:
                await second.vision(one).Classify(vision_pb2.ClassifyRequest())
                with pytest.raises((ConnectionError, http_client.RemoteDisconnected)):
                    await http(second.port, "GET", "/healthz")
                await second.vision(one).Classify(vision_pb2.ClassifyRequest())


async def test_a_taken_port_is_refused_not_shared(mesh: Mesh) -> None:
    taken = Edge(listen=mesh.address)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-test-") as folder,
        pytest.raises(AssertionError, match="Address already in use"),
    ):
        async with running_mesh(Path(folder), taken):
            pass
    assert (await http(mesh.port, "GET", "/healthz")).status == 200
