"""Updates while calls run: what changes often must neither drain connections nor break streams."""

import asyncio
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.ads import ROUTES
from gateway.topology import ServiceNode
from headrace.inference import open_inference_pb2 as oip
from headrace.vision.v1 import vision_pb2
from tests.gateway.envoy.harness import VISION, Mesh, failure, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_new_routes_and_ratios_break_nothing_that_runs(mesh: Mesh) -> None:
    health = health_pb2_grpc.HealthStub(mesh.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    stream = mesh.inference().ModelStreamInfer()
    await stream.write(oip.ModelInferRequest(model_name="double"))
    await stream.read()
    connections = await mesh.stat("http.edge.downstream_cx_total")
    for step in range(3):
        models = {**mesh.snapshot.models, f"new-{step}": "speech"}
        await mesh.publish(mesh.changed(models=models, sample_ratio=0.1 * step))
        found = await mesh.inference().ModelInfer(oip.ModelInferRequest(model_name=f"new-{step}"))
        assert found.id == "speech-0"
        await stream.write(oip.ModelInferRequest(model_name="double"))
        assert (await stream.read()).infer_response.model_name == "double"
    async with mesh.healths["control"].changed:
        mesh.healths["control"].changed.notify_all()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    assert await mesh.stat("http.edge.downstream_cx_total") == connections
    assert await mesh.stat("listener_manager.total_listeners_draining") == 0
    watch.cancel()
    await stream.done_writing()


async def test_a_removed_model_is_not_found(mesh: Mesh) -> None:
    await mesh.publish(mesh.changed(models={"whisper": "speech"}))
    call = failure(mesh.inference().ModelInfer(oip.ModelInferRequest(model_name="double")))
    assert (await call).code is grpc.StatusCode.NOT_FOUND


async def test_a_service_that_leaves_takes_nobody_along(mesh: Mesh) -> None:
    vision, _ = mesh.snapshot.services
    await mesh.publish(mesh.changed(services=(vision,), models={"double": "vision"}))
    await mesh.vision().Classify(vision_pb2.ClassifyRequest())

    async def gone() -> bool:
        return "speech::" not in await mesh.admin("/clusters")

    await until(gone)
    assert mesh.ads.status().settled


async def test_a_bad_listener_is_refused_and_shown_and_the_old_one_serves(mesh: Mesh) -> None:
    taken = replace(mesh.snapshot.edge, listen="203.0.113.1:1")  # an address this machine does not have
    status = await mesh.publish(mesh.changed(edge=taken))
    assert len(status.rejections) == 1
    assert status.rejections[0].startswith("Listener: ")
    assert "203.0.113.1" in status.rejections[0]
    await mesh.vision().Classify(vision_pb2.ClassifyRequest())
    assert (await mesh.publish(mesh.snapshot)).rejections == ()


async def test_envoy_goes_on_without_its_control_process_and_finds_it_again(mesh: Mesh) -> None:
    await mesh.stop_control()
    await mesh.vision().Classify(vision_pb2.ClassifyRequest())
    await mesh.start_control()
    status = await mesh.publish(mesh.changed(models={"late": "speech"}))
    assert status.types[ROUTES].accepted == status.types[ROUTES].published
    answer = await mesh.inference().ModelInfer(oip.ModelInferRequest(model_name="late"))
    assert answer.id == "speech-0"


async def test_a_replica_that_stops_is_left_and_found_again_within_a_second(mesh: Mesh) -> None:
    await mesh.stop_backend("vision-0")
    for _ in range(20):  # a call that never started is tried on the other replica
        answer = await mesh.vision().Classify(vision_pb2.ClassifyRequest())
        assert answer.results[0].categories[0].label == "vision-1"
    await mesh.healthy("vision", 1)
    await mesh.start_backend("vision-0")
    started = asyncio.get_running_loop().time()
    await mesh.healthy("vision", 2)
    assert asyncio.get_running_loop().time() - started < 1.5


async def test_a_replica_that_is_not_serving_gets_no_calls(mesh: Mesh) -> None:
    mesh.healths["vision-0"].status = health_pb2.HealthCheckResponse.NOT_SERVING
    await mesh.healthy("vision", 1)

    async def only_the_other() -> bool:
        answers = [await mesh.vision().Classify(vision_pb2.ClassifyRequest()) for _ in range(6)]
        return {answer.results[0].categories[0].label for answer in answers} == {"vision-1"}

    await until(only_the_other)


async def test_replicas_over_tcp_and_by_name(mesh: Mesh) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    health_pb2_grpc.add_HealthServicer_to_server(mesh.healths["vision-0"], server)

    async def embed(request: bytes, context: object) -> bytes:
        return b""

    handler = grpc.unary_unary_rpc_method_handler(embed)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(VISION, {"Embed": handler}),))
    await server.start()
    try:
        for host in ("127.0.0.1", "localhost"):
            node = ServiceNode("vision", (VISION,), (f"{host}:{port}",))
            await mesh.publish(mesh.changed(services=(node, mesh.snapshot.services[1])))
            await mesh.answering(f"/{VISION}/Embed")
    finally:
        await server.stop(0)
