"""The ADS server: hands the rendered configuration to Envoy over one stream, and knows what Envoy made of it.

State-of-the-world protocol. An update travels in the order clusters, endpoints, listeners, routes, each part only after
Envoy has answered the one before; clusters that went away are kept until the routes have left them. What Envoy rejects
is recorded with its reason, and the last version that it accepted is what a new or restarted Envoy gets.
"""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

_PREFIX = "type.googleapis.com/"
CLUSTERS = _PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENERS = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTES = _PREFIX + "envoy.config.route.v3.RouteConfiguration"
ORDER = (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES)

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_AFTER_CLUSTERS = frozenset((LISTENERS, ROUTES))
_BY_NAME = frozenset((ENDPOINTS, ROUTES))  # asked for by name; the other two types are always sent whole

Named = Mapping[str, any_pb2.Any]


@dataclass(frozen=True, slots=True)
class Resources:
    """One immutable version of everything: type URL -> resource name -> packed resource."""

    by_type: Mapping[str, Named]

    @classmethod
    def of(
        cls,
        clusters: Iterable[Message] = (),
        endpoints: Iterable[Message] = (),
        listeners: Iterable[Message] = (),
        routes: Iterable[Message] = (),
    ) -> "Resources":
        """Pack typed Envoy resources; their names must be unique within a type."""
        groups = zip(ORDER, (clusters, endpoints, listeners, routes), strict=True)
        return cls(MappingProxyType({url: _pack(messages) for url, messages in groups}))


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One resource type: the `published` version, the version Envoy last `accepted`, and why it `rejected` one ("")."""

    published: str
    accepted: str
    rejected: str


@dataclass(frozen=True, slots=True)
class AdsStatus:
    """What Envoy made of the configuration. `settled`: an Envoy is connected and has answered every part."""

    connected: int
    settled: bool
    types: Mapping[str, TypeStatus]

    @property
    def rejections(self) -> tuple[str, ...]:
        """Return "type: reason" for every part that Envoy refused."""
        names = {url: status.rejected for url, status in self.types.items() if status.rejected}
        return tuple(f"{url.rpartition('.')[2]}: {reason}" for url, reason in names.items())


@dataclass(slots=True)
class _Part:
    """One resource type on the server: what to serve now, and the last that was accepted."""

    serving: Named = field(default_factory=dict)
    version: str = ""
    good: Named | None = None
    good_version: str = ""
    accepted: str = ""
    rejected: str = ""


@dataclass(slots=True)
class _Subscription:
    """One resource type on one stream."""

    names: frozenset[str] = frozenset()
    nonce: str = ""
    sent: str = ""  # version of the last response
    waiting: bool = False  # that response has no answer yet
    due: bool = True  # send even if the version did not change


class AdsServer:
    """Serves AggregatedDiscoveryService on a grpc.aio server; one instance for all Envoys that connect."""

    def __init__(self) -> None:
        self._parts = {url: _Part() for url in ORDER}
        self._leaving: dict[str, any_pb2.Any] = {}
        self._streams: set[_Stream] = set()
        self._changed = asyncio.Condition()
        self._nonces = itertools.count(1)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to give to `server.add_generic_rpc_handlers`."""
        stream = grpc.stream_stream_rpc_method_handler(
            self._serve, discovery_pb2.DiscoveryRequest.FromString, discovery_pb2.DiscoveryResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(_SERVICE, {"StreamAggregatedResources": stream})

    async def publish(self, resources: Resources) -> None:
        """Make `resources` what every Envoy gets from now on; returns before they have it (see `settled`)."""
        clusters = self._parts[CLUSTERS].serving
        self._leaving |= {name: clusters[name] for name in clusters if name not in resources.by_type[CLUSTERS]}
        for name in resources.by_type[CLUSTERS]:
            self._leaving.pop(name, None)
        for url, named in resources.by_type.items():
            part = self._parts[url]
            part.serving, part.version, part.rejected = named, _version(named), ""
        if self._parts[ROUTES].version == self._parts[ROUTES].accepted:
            self._leaving.clear()  # the routes in use are the new ones already
        await self._wake()

    def status(self) -> AdsStatus:
        """Return what is published, accepted and rejected."""
        types = {url: TypeStatus(part.version, part.accepted, part.rejected) for url, part in self._parts.items()}
        settled = any(stream.settled() for stream in self._streams)
        return AdsStatus(len(self._streams), settled, MappingProxyType(types))

    async def settled(self) -> AdsStatus:
        """Wait until an Envoy has answered everything published; bound it with `asyncio.timeout`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.status().settled)
        return self.status()

    def part(self, url: str) -> tuple[Named, str]:
        """Return what to serve of a type, and its version."""
        part = self._parts[url]
        if url == CLUSTERS and self._leaving:
            both = {**self._leaving, **part.serving}
            return both, _version(both)
        return part.serving, part.version

    def has_listener(self) -> bool:
        """Say whether a listener was published and accepted."""
        part = self._parts[LISTENERS]
        return bool(part.serving) and part.accepted == part.version

    def accepted(self, url: str, version: str) -> None:
        """Record that an Envoy accepted `version` of a type."""
        part = self._parts[url]
        part.accepted = version
        if version == self.part(url)[1]:
            part.good, part.good_version = part.serving, part.version
        if url == ROUTES and version == part.version and self._leaving:
            self._leaving.clear()

    def rejected(self, url: str, version: str, reason: str) -> None:
        """Record why an Envoy refused `version` of a type, and serve the last accepted one to those that come."""
        part = self._parts[url]
        if version != self.part(url)[1]:
            return
        part.rejected = reason
        if part.good is not None and part.good_version != part.version:
            part.serving, part.version = part.good, part.good_version

    async def _wake(self) -> None:
        for stream in self._streams:
            stream.wake.set()
        async with self._changed:
            self._changed.notify_all()

    async def _serve(
        self, requests: AsyncIterator[Any], _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        stream = _Stream(self)
        self._streams.add(stream)
        reader = asyncio.create_task(self._read(stream, requests))
        try:
            while not reader.done():
                await stream.wake.wait()
                stream.wake.clear()
                while (response := stream.next_response(str(next(self._nonces)))) is not None:
                    yield response
        finally:
            reader.cancel()
            self._streams.discard(stream)
            await self._wake()

    async def _read(self, stream: "_Stream", requests: AsyncIterator[Any]) -> None:
        try:
            async for request in requests:
                stream.hear(request)
                await self._wake()
        finally:
            stream.wake.set()


class _Stream:
    """One Envoy's stream: what it subscribed to and what it has answered."""

    def __init__(self, server: AdsServer) -> None:
        self._server = server
        self._subscriptions: dict[str, _Subscription] = {}
        self.wake = asyncio.Event()

    def settled(self) -> bool:
        """Say whether Envoy has answered the newest of everything it needs."""
        needed = {LISTENERS, *self._subscriptions}
        # Routes are asked for because a listener names them; when it is refused, their answer never comes.
        (needed.add if self._server.has_listener() else needed.discard)(ROUTES)
        return all(url in self._subscriptions and not self._pending(url, self._subscriptions[url]) for url in needed)

    def hear(self, request: Any) -> None:
        """Take a subscription, an ACK or a NACK."""
        url = request.type_url
        if url not in ORDER:
            return
        known = self._subscriptions.get(url)
        if known is not None and request.response_nonce != known.nonce:
            return  # about a response that a newer one has replaced
        subscription = known or self._subscriptions.setdefault(url, _Subscription())
        names = frozenset(request.resource_names)
        refused = request.HasField("error_detail")
        # Without the version that was sent it is no answer: Envoy subscribes anew, and wants to be told again.
        answered = subscription.waiting and (refused or request.version_info == subscription.sent)
        subscription.waiting = False
        if answered and refused:
            self._server.rejected(url, subscription.sent, request.error_detail.message.strip())
            # Envoy still has the last good one; sending that again would say nothing new.
            subscription.sent = self._server.part(url)[1]
        elif answered:
            self._server.accepted(url, subscription.sent)
        if names != subscription.names or not answered:
            subscription.names, subscription.due = names, True

    def next_response(self, nonce: str) -> Any | None:
        """Return what to send now, None while Envoy owes an answer or has everything."""
        for url in ORDER:
            subscription = self._subscriptions.get(url)
            if subscription is None:
                continue
            if subscription.waiting:
                if url == CLUSTERS:
                    continue  # Envoy answers only when changed clusters have their endpoints
                return None
            if url in _AFTER_CLUSTERS and self._owes(CLUSTERS):
                return None
            if self._pending(url, subscription):
                return self._respond(url, subscription, nonce)
        return None

    def _owes(self, url: str) -> bool:
        subscription = self._subscriptions.get(url)
        return subscription is not None and subscription.waiting

    def _pending(self, url: str, subscription: _Subscription) -> bool:
        version = self._server.part(url)[1]
        return bool(version) and (subscription.waiting or subscription.due or subscription.sent != version)

    def _respond(self, url: str, subscription: _Subscription, nonce: str) -> Any:
        named, version = self._server.part(url)
        if url == CLUSTERS and ENDPOINTS in self._subscriptions:
            # A changed cluster warms up until its endpoints are sent again, even if they are the same.
            self._subscriptions[ENDPOINTS].due = True
        subscription.nonce, subscription.sent = nonce, version
        subscription.waiting, subscription.due = True, False
        wanted = subscription.names if url in _BY_NAME else named.keys()
        chosen = [named[name] for name in sorted(wanted) if name in named]
        return discovery_pb2.DiscoveryResponse(version_info=version, resources=chosen, type_url=url, nonce=nonce)


def _pack(messages: Iterable[Message]) -> Named:
    packed: dict[str, any_pb2.Any] = {}
    for message in messages:
        name = str(getattr(message, "name", "") or getattr(message, "cluster_name", ""))
        if not name or name in packed:
            raise ValueError(f"{message.DESCRIPTOR.name}: the name {name!r} is empty or used twice")
        value = any_pb2.Any()
        value.Pack(message, deterministic=True)
        packed[name] = value
    return MappingProxyType(packed)


def _version(named: Named) -> str:
    digest = hashlib.sha256()
    for name in sorted(named):
        digest.update(len(named[name].value).to_bytes(8, "big") + named[name].value)
    return digest.hexdigest()[:16]
