"""The floors: a bare grpc.aio echo, a bare Envoy, a bare loop of decode and engine."""

import argparse
import json
import threading
import time
from pathlib import Path

import grpc
import uvloop
from grpc import aio

from engines.base import Engine
from engines.repository import Repository
from services.vision.transforms import ImageSpec, load_image

ECHO_METHOD = "/bare.Echo/Echo"


async def echo(socket: str) -> None:
    """Serve an echo of raw bytes on `unix:socket`: the least that a Python gRPC service can cost."""

    async def answer(request: bytes, _: object) -> bytes:
        return request

    server = aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Echo", {"Echo": handler}),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


def envoy_configuration(port: int, upstream: str) -> str:
    """A static Envoy that only forwards HTTP/2 from `port` to the UNIX socket `upstream`: no filter but the router."""
    v3 = "type.googleapis.com/envoy.extensions"
    router = {"name": "router", "typed_config": {"@type": f"{v3}.filters.http.router.v3.Router"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
    manager = {
        "@type": f"{v3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    http2 = {
        "@type": f"{v3}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": upstream}}}}
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def classify_loop(models: Path, photographs: list[bytes], lanes: int, seconds: float) -> float:
    """Images per second of `lanes` threads that each decode and classify in a bare loop with the mesh's own parts."""
    entry = next(each for each in Repository(models).scan() if each.name == "efficientnet_lite0")
    image = entry.manifest.image if entry.manifest else None
    if image is None:
        raise ValueError(f"{entry.name} is no image model")
    loaded = entry.load(cores=lanes)
    spec = ImageSpec(**image.model_dump(exclude={"input"}))
    counts = [0] * lanes
    begin = threading.Barrier(lanes + 1)
    stop = threading.Event()

    def lane(index: int, engine: Engine) -> None:
        engine.warm_up()
        begin.wait()
        while not stop.is_set():
            engine.run({image.input: load_image(photographs[counts[index] % len(photographs)], spec)})
            counts[index] += 1

    threads = [threading.Thread(target=lane, args=pair) for pair in enumerate(loaded.engines)]
    for thread in threads:
        thread.start()
    begin.wait()
    started = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    elapsed = time.perf_counter() - started
    for thread in threads:
        thread.join()
    return sum(counts) / elapsed


def main() -> None:
    """`python -m benchmarks.bare SOCKET` serves the echo until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    uvloop.run(echo(parser.parse_args().socket))


if __name__ == "__main__":
    main()
