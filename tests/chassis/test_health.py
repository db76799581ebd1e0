import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis import health

STATUS = health_pb2.HealthCheckResponse


async def test_check_by_name(serve):
    async with serve() as running:
        stub = health_pb2_grpc.HealthStub(running.channel())
        for service in ("", "inference.GRPCInferenceService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == STATUS.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_list_tells_every_service(serve):
    async with serve() as running:
        running.process.health.set("engine", well=False, services=["inference.GRPCInferenceService"])
        running.process.health.add(["other.Service"])
        call = running.channel().unary_unary(
            "/grpc.health.v1.Health/List", response_deserializer=health.ListResponse.FromString
        )
        answer = await call(b"")
        assert {name: entry.status for name, entry in answer.statuses.items()} == {
            "": STATUS.NOT_SERVING,
            "inference.GRPCInferenceService": STATUS.NOT_SERVING,
            "other.Service": STATUS.SERVING,
        }


async def test_watch_tells_changes_and_ends_with_the_process(serve):
    async with serve() as running:
        stub = health_pb2_grpc.HealthStub(running.channel())
        known = stub.Watch(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
        later = stub.Watch(health_pb2.HealthCheckRequest(service="later.Service"))
        assert (await known.read()).status == STATUS.SERVING
        assert (await later.read()).status == STATUS.SERVICE_UNKNOWN
        running.process.health.set("engine", well=False)
        assert (await known.read()).status == STATUS.NOT_SERVING
        running.process.health.set("engine", well=True)
        assert (await known.read()).status == STATUS.SERVING
        running.process.health.set("ready", well=True, services=["later.Service"])
        assert (await later.read()).status == STATUS.SERVING
        running.process.stop()
        assert (await known.read()).status == STATUS.NOT_SERVING
        assert await known.read() is grpc.aio.EOF
        await asyncio.wait_for(running.run, 5)


async def test_components_hide_each_other_not():
    state = health.Health(["a", "b"])
    state.set("one", well=False, services=["a"])
    state.set("two", well=False, services=["a"])
    state.set("one", well=True, services=["a"])
    assert [state.status(name) for name in ("", "a", "b")] == [STATUS.NOT_SERVING, STATUS.NOT_SERVING, STATUS.SERVING]
    state.set("two", well=True, services=["a"])
    assert state.status("") == STATUS.SERVING
    state.drain()
    assert [state.status(name) for name in ("", "a", "b")] == [STATUS.NOT_SERVING] * 3
