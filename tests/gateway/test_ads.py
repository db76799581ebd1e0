"""The ADS server's side of the protocol, with a client that plays Envoy."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2

from gateway.ads import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, AdsServer, Resources

pytestmark = pytest.mark.asyncio(loop_scope="session")

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


def resources(*clusters: str, listener: str = "first", route: str = "first") -> Resources:
    """Return a complete configuration; `listener` and `route` tell its versions apart."""
    return Resources.of(
        clusters=[cluster_pb2.Cluster(name=name) for name in clusters],
        endpoints=[endpoint_pb2.ClusterLoadAssignment(cluster_name=name) for name in clusters],
        listeners=[listener_pb2.Listener(name="edge", stat_prefix=listener)],
        routes=[route_pb2.RouteConfiguration(name="routes", request_headers_to_remove=[route])],
    )


class Player:
    """Envoy's side of one stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = channel.stream_stream(
            METHOD,
            request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
        )()

    async def ask(self, url: str, *names: str) -> None:
        await self.call.write(discovery_pb2.DiscoveryRequest(type_url=url, resource_names=names))

    async def hear(self, url: str) -> Any:
        async with asyncio.timeout(5):
            response = await self.call.read()
        assert response.type_url == url
        return response

    async def answer(self, response: Any, *names: str, refused: str = "") -> None:
        request = discovery_pb2.DiscoveryRequest(
            type_url=response.type_url,
            response_nonce=response.nonce,
            version_info="" if refused else response.version_info,
            resource_names=names,
        )
        if refused:
            request.error_detail.message = refused
        await self.call.write(request)

    async def take(self, url: str, *names: str) -> Any:
        """Subscribe, take the answer and accept it."""
        await self.ask(url, *names)
        response = await self.hear(url)
        await self.answer(response, *names)
        return response

    async def take_all(self, *clusters: str) -> None:
        await self.take(CLUSTERS)
        await self.take(ENDPOINTS, *clusters)
        await self.take(LISTENERS)
        await self.take(ROUTES, "routes")

    async def silent(self) -> None:
        """Assert that nothing more comes; only a round trip later than everything sent so far can tell."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await self.call.read()


def names(response: Any) -> list[str]:
    found = []
    for resource in response.resources:
        message = cluster_pb2.Cluster() if response.type_url == CLUSTERS else endpoint_pb2.ClusterLoadAssignment()
        resource.Unpack(message)
        found.append(message.name if response.type_url == CLUSTERS else message.cluster_name)
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def ads() -> AdsServer:
    return AdsServer()


@pytest_asyncio.fixture(loop_scope="session")
async def channel(ads: AdsServer) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((ads.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(0)


@pytest_asyncio.fixture(loop_scope="session")
async def player(channel: grpc.aio.Channel) -> Player:
    return Player(channel)


async def test_everything_is_served_and_settles(ads: AdsServer, player: Player) -> None:
    await ads.publish(resources("a", "b"))
    assert not ads.status().settled
    await player.take_all("a", "b")
    async with asyncio.timeout(5):
        status = await ads.settled()
    assert status.connected == 1
    assert status.rejections == ()
    assert all(part.accepted == part.published for part in status.types.values())


async def test_a_subscription_before_the_first_publication_waits(ads: AdsServer, player: Player) -> None:
    await player.ask(CLUSTERS)
    await ads.publish(resources("a"))
    assert names(await player.hear(CLUSTERS)) == ["a"]


async def test_only_named_endpoints_are_sent(ads: AdsServer, player: Player) -> None:
    await ads.publish(resources("a", "b"))
    await player.take(CLUSTERS)
    assert names(await player.take(ENDPOINTS, "b")) == ["b"]


async def test_an_update_travels_in_order_and_only_what_changed(ads: AdsServer, player: Player) -> None:
    await ads.publish(resources("a"))
    await player.take_all("a")
    await ads.publish(resources("a", "b", listener="second", route="second"))
    response = await player.hear(CLUSTERS)
    await player.answer(response)
    await player.answer(await player.hear(ENDPOINTS), "a", "b")
    response = await player.hear(ENDPOINTS)  # the names changed
    assert names(response) == ["a", "b"]
    await player.answer(response, "a", "b")
    await player.answer(await player.hear(LISTENERS))
    await player.answer(await player.hear(ROUTES), "routes")
    await ads.publish(resources("a", "b", listener="second", route="third"))
    await player.answer(await player.hear(ROUTES), "routes")
    await ads.publish(resources("a", "b", listener="second", route="third"))
    await player.silent()


async def test_listeners_wait_for_the_answer_about_clusters(ads: AdsServer, player: Player) -> None:
    await ads.publish(resources("a"))
    await player.ask(CLUSTERS)
    await player.ask(LISTENERS)
    clusters = await player.hear(CLUSTERS)
    await player.answer(clusters)
    await player.hear(LISTENERS)


async def test_a_cluster_stays_until_the_routes_have_left_it(ads: AdsServer, player: Player) -> None:
    await ads.publish(resources("a", "b"))
    await player.take_all("a", "b")
    await ads.publish(resources("a", route="second"))
    await player.answer(await player.hear(ENDPOINTS), "a", "b")
    await player.answer(await player.hear(ROUTES), "routes")
    response = await player.hear(CLUSTERS)
    assert names(response) == ["a"]


async def test_a_refusal_is_recorded_and_the_last_good_one_serves(
    ads: AdsServer, player: Player, channel: grpc.aio.Channel
) -> None:
    await ads.publish(resources("a"))
    await player.take_all("a")
    good = ads.status().types[LISTENERS].published
    await ads.publish(resources("a", listener="bad"))
    await player.answer(await player.hear(LISTENERS), refused="port in use")
    async with asyncio.timeout(5):
        status = await ads.settled()
    assert status.rejections == ("Listener: port in use",)
    restarted = Player(channel)
    await restarted.take(CLUSTERS)
    assert (await restarted.take(LISTENERS)).version_info == good
    await ads.publish(resources("a", listener="better"))
    assert ads.status().rejections == ()


async def test_a_stale_nonce_is_ignored(ads: AdsServer, player: Player) -> None:
    await ads.publish(resources("a"))
    await player.take(CLUSTERS)
    await player.call.write(
        discovery_pb2.DiscoveryRequest(type_url=CLUSTERS, response_nonce="from before", version_info="x")
    )
    await player.silent()


async def test_a_reconnecting_envoy_gets_everything_again(
    ads: AdsServer, player: Player, channel: grpc.aio.Channel
) -> None:
    await ads.publish(resources("a"))
    await player.take_all("a")
    player.call.cancel()
    await Player(channel).take_all("a")


async def test_routes_of_a_refused_listener_are_sent_again_to_its_successor(ads: AdsServer, player: Player) -> None:
    await ads.publish(resources("a", listener="bad"))
    await player.take(CLUSTERS)
    await player.ask(LISTENERS)
    listener = await player.hear(LISTENERS)
    await player.ask(ROUTES, "routes")
    await player.answer(listener, refused="port in use")
    routes = await player.hear(ROUTES)  # which Envoy, without a listener that wants them, never answers
    async with asyncio.timeout(5):
        assert (await ads.settled()).rejections == ("Listener: port in use",)
    await ads.publish(resources("a", listener="good"))
    await player.call.write(
        discovery_pb2.DiscoveryRequest(type_url=ROUTES, resource_names=["routes"], response_nonce=routes.nonce)
    )
    await player.answer(await player.hear(LISTENERS))
    await player.hear(ROUTES)


async def test_unknown_types_are_ignored(ads: AdsServer, player: Player) -> None:
    await ads.publish(resources("a"))
    await player.ask("type.googleapis.com/envoy.service.runtime.v3.Runtime")
    await player.take(CLUSTERS)


@pytest.mark.parametrize("clusters", [("a", "a"), ("",)])
async def test_names_must_be_unique_and_given(clusters: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="Cluster: the name"):
        Resources.of(clusters=[cluster_pb2.Cluster(name=name) for name in clusters])
