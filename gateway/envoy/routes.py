"""Routes: which cluster answers which path or model, for how long, and with what share of traces.

They travel by RDS, so that a new model or a new sampling ratio neither drains a connection nor breaks a stream.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from gateway.envoy.clusters import has_alternatives
from gateway.envoy.descriptors import OPEN_INFERENCE, model_fields, rest_paths, streams, typed_services
from gateway.envoy.local_reply import json_body
from gateway.envoy.tracing import MODEL_HEADER, sampled_caller, sampling
from gateway.envoy.wire import duration, packed
from gateway.topology import CONTROL, Edge, Snapshot
from services.chassis.errors import from_gateway

HEALTH_PATH = "/healthz"
"""Answers 200 as long as the gateway takes requests."""

ROUTES = "headrace"
"""Name of the public port's route configuration."""

INTERNAL_ROUTES = "headrace-internal"
"""Name of the internal listener's."""

CORS_FILTER = "envoy.filters.http.cors"
FIELD_FILTER = "envoy.filters.http.grpc_field_extraction"
LUA_FILTER = "envoy.filters.http.lua"
BODY_FILTER = "envoy.filters.http.body_size_limit"

_STREAM_IDLE = 3600.0
_DEADLINE_LEAD = 0.005
_SLACK = 5.0  # the deadline fires first, the idle timeout only where there is none
_GRPC = string_pb2.StringMatcher(prefix="application/grpc")  # gRPC-Web too: routes are chosen before it is translated
_COMPRESSED = route_components_pb2.HeaderMatcher(
    name="grpc-encoding",
    string_match=string_pb2.StringMatcher(exact="identity"),
    invert_match=True,
    treat_missing_header_as_empty=False,
)
_EVERYWHERE = ("RepositoryModelLoad", "RepositoryModelUnload")  # about one model, on every replica of its service
_STANDING = (  # control's streams that live as long as their caller
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
)


@dataclass(frozen=True, slots=True)
class _Lane:
    """One gRPC route before it is written down: exact `path` or `prefix`, perhaps one `model`, its cluster."""

    name: str
    cluster: str
    path: str = ""
    prefix: str = ""
    model: str = ""
    streaming: bool = False
    compressed: bool = False
    idle: float = _STREAM_IDLE


#: Set by Envoy itself, read by no service; in Python each header of a call costs about a microsecond.
_UNREAD_HEADERS = ("x-forwarded-proto", "x-envoy-external-address", "x-request-id")


def route_configuration(snapshot: Snapshot) -> route_pb2.RouteConfiguration:
    """Return the route table of the public port."""
    host = route_components_pb2.VirtualHost(name="mesh", domains=["*"], request_headers_to_remove=_UNREAD_HEADERS)
    host.typed_per_filter_config[CORS_FILTER].CopyFrom(packed(_cors(snapshot.edge)))
    host.routes.append(_preflight())
    host.routes.extend(_grpc_routes(snapshot, snapshot.sample_ratio))
    host.routes.extend(_plain_http(snapshot))
    return _configuration(ROUTES, host)


def internal_route_configuration(snapshot: Snapshot) -> route_pb2.RouteConfiguration:
    """Return the route table of the internal listener, where no trace begins: it follows the caller's."""
    host = route_components_pb2.VirtualHost(name="mesh", domains=["*"], request_headers_to_remove=_UNREAD_HEADERS)
    host.routes.extend(_grpc_routes(snapshot, 0.0))
    host.routes.append(_refusal(_prefix("/"), "UNKNOWN_METHOD"))
    return _configuration(INTERNAL_ROUTES, host)


def _grpc_routes(snapshot: Snapshot, ratio: float) -> Iterator[route_components_pb2.Route]:
    replicated = {service.name for service in snapshot.services if has_alternatives(service)}
    for lane in _lanes(snapshot):
        route = _grpc_route(lane, snapshot.edge)
        if lane.cluster in replicated:
            route.route.retry_policy.CopyFrom(_retries())
        yield from _twice(route, ratio)


def _configuration(name: str, host: route_components_pb2.VirtualHost) -> route_pb2.RouteConfiguration:
    return route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=[host],
        # The routes come by RDS and the clusters by CDS; a route may name a cluster that is on its way.
        validate_clusters=BoolValue(value=False),
        ignore_port_in_host_matching=True,
    )


def _lanes(snapshot: Snapshot) -> Iterator[_Lane]:
    owners = {rpc: service.name for service in snapshot.services for rpc in service.rpc_services}
    descriptors = {descriptor.full_name: descriptor for descriptor in typed_services()}
    for rpc, owner in owners.items():
        if rpc in descriptors:
            for method in streams(descriptors[rpc]):
                yield _Lane(f"{owner}:{method}", owner, path=f"/{rpc}/{method}", streaming=True)
        yield _Lane(owner, owner, prefix=f"/{rpc}/")
    infer_stream = f"/{OPEN_INFERENCE}/ModelStreamInfer"
    holders = set(snapshot.models.values())
    # Envoy cannot look into a compressed message. With one service holding every model it need not.
    blind = holders.pop() if len(holders) == 1 else CONTROL
    yield _Lane("compressed:stream", blind, path=infer_stream, streaming=True, compressed=True)
    for method in _EVERYWHERE:
        yield _Lane(f"control:{method}", CONTROL, path=f"/{OPEN_INFERENCE}/{method}")
    for method in model_fields():
        yield _Lane("compressed", blind, path=f"/{OPEN_INFERENCE}/{method}", compressed=True)
    for model, owner in sorted(snapshot.models.items()):
        yield _Lane(f"model:{model}:stream", owner, path=infer_stream, model=model, streaming=True)
        yield _Lane(f"model:{model}", owner, prefix=f"/{OPEN_INFERENCE}/", model=model)
    yield _Lane("control:ModelStreamInfer", CONTROL, path=infer_stream, streaming=True)
    for prefix in _STANDING:
        yield _Lane(f"control:{prefix}", CONTROL, prefix=prefix, streaming=True, idle=0.0)
    yield _Lane(CONTROL, CONTROL, prefix="/")


def _twice(route: route_components_pb2.Route, ratio: float) -> Iterator[route_components_pb2.Route]:
    """Yield the route for requests whose caller samples them, always traced, then for all others."""
    sampled = route_components_pb2.Route()
    sampled.CopyFrom(route)
    sampled.name = f"{route.name}:sampled"
    sampled.match.headers.append(sampled_caller())
    sampled.tracing.CopyFrom(sampling(1.0))
    route.tracing.CopyFrom(sampling(ratio))
    yield from (sampled, route)


def _grpc_route(lane: _Lane, edge: Edge) -> route_components_pb2.Route:
    match = route_components_pb2.RouteMatch(path=lane.path) if lane.path else _prefix(lane.prefix)
    if lane.model:
        match.headers.append(_header_is(MODEL_HEADER, string_pb2.StringMatcher(exact=lane.model)))
    match.headers.append(_header_is("content-type", _GRPC))
    route = route_components_pb2.Route(name=lane.name, match=match, route=_action(lane, edge))
    if lane.compressed:
        route.match.headers.append(_COMPRESSED)
        route.typed_per_filter_config[FIELD_FILTER].CopyFrom(_switch(disabled=True))
    if lane.streaming:  # the limit is one message's, which only the service can see inside a stream
        route.typed_per_filter_config[BODY_FILTER].CopyFrom(_switch(disabled=True))
    return route


def _action(lane: _Lane, edge: Edge) -> route_components_pb2.RouteAction:
    lifetime = route_components_pb2.RouteAction.MaxStreamDuration(
        # A stream may live as long as its caller's deadline says; a unary call is capped. Without a deadline none is
        # set here: Envoy would pass it on as the caller's own, and the service could not apply its default.
        grpc_timeout_header_max=duration(0 if lane.streaming else edge.max_deadline_seconds),
        max_stream_duration=duration(0),
        # Just before the service's and the caller's own timers, whose answers have no details.
        grpc_timeout_header_offset=duration(_DEADLINE_LEAD),
    )
    idle = lane.idle if lane.streaming else edge.max_deadline_seconds + _SLACK
    return route_components_pb2.RouteAction(
        cluster=lane.cluster,
        timeout=duration(0),
        idle_timeout=duration(idle),
        max_stream_duration=lifetime,
    )


def _retries() -> route_components_pb2.RetryPolicy:
    """Retry only what never started, on another replica; everything else is the client's to decide.

    A retry needs a copy of the request (7 us a call, 35 us for 100 kB), so routes with nowhere else to go have none.
    """
    policy = route_components_pb2.RetryPolicy(
        retry_on="connect-failure,refused-stream",
        num_retries=UInt32Value(value=2),
        # Each draws anew; that a dead replica, which is always the idlest, is drawn every time becomes unlikely.
        host_selection_retry_max_attempts=30,
    )
    predicate = policy.retry_host_predicate.add(name="envoy.retry_host_predicates.previous_hosts")
    predicate.typed_config.CopyFrom(packed(previous_hosts_pb2.PreviousHostsPredicate()))
    return policy


def _plain_http(snapshot: Snapshot) -> Iterator[route_components_pb2.Route]:
    """Yield the routes of requests that are not gRPC: REST calls before they are translated, and refusals."""
    alive = route_components_pb2.DirectResponseAction(status=200, body=base_pb2.DataSource(inline_string="ok\n"))
    health = route_components_pb2.RouteMatch(path=HEALTH_PATH)
    yield route_components_pb2.Route(name="health", match=health, direct_response=alive, tracing=sampling(0.0))
    for path, method in rest_paths().items():
        # The transcoder rewrites the path and Envoy chooses again, but CORS and tracing are settled by this route.
        match = _rest(path)
        match.headers.append(_header_is(":method", string_pb2.StringMatcher(exact=method)))
        action = _action(_Lane("rest", CONTROL), snapshot.edge)
        route = route_components_pb2.Route(name=f"rest:{path}", match=match, route=action)
        yield from _twice(route, snapshot.sample_ratio)
        yield _refusal(_rest(path), "HTTP_METHOD_NOT_ALLOWED", {"allowed": method}, {"allow": method})
    services = [descriptor.full_name for descriptor in typed_services()]
    for rpc in (*services, OPEN_INFERENCE):
        yield _refusal(_prefix(f"/{rpc}/"), "UNSUPPORTED_CONTENT_TYPE")
    yield _refusal(_prefix("/"), "UNKNOWN_METHOD")


def _refusal(
    match: route_components_pb2.RouteMatch,
    reason: str,
    metadata: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> route_components_pb2.Route:
    error = from_gateway(reason, metadata)
    response = route_components_pb2.DirectResponseAction(
        status=error.row.http, body=base_pb2.DataSource(inline_string=json_body(error))
    )
    route = route_components_pb2.Route(
        name=f"refuse:{reason}", match=match, direct_response=response, tracing=sampling(0.0)
    )
    for key, value in {"content-type": "application/json", **(headers or {})}.items():
        option = route.response_headers_to_add.add(header=base_pb2.HeaderValue(key=key, value=value))
        option.append_action = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return route


def _preflight() -> route_components_pb2.Route:
    """Return the route of CORS preflights, which the CORS filter answers by itself wherever they lead."""
    match = _prefix("/")
    match.headers.append(_header_is(":method", string_pb2.StringMatcher(exact="OPTIONS")))
    match.headers.append(route_components_pb2.HeaderMatcher(name="access-control-request-method", present_match=True))
    action = route_components_pb2.RouteAction(cluster=CONTROL)
    return route_components_pb2.Route(name="preflight", match=match, route=action, tracing=sampling(0.0))


def _rest(path: str) -> route_components_pb2.RouteMatch:
    if "{" not in path:
        return route_components_pb2.RouteMatch(path=path)
    parts = re.split(r"\{[^}]*\}", path)
    pattern = regex_pb2.RegexMatcher(regex="[^/:]+".join(re.escape(part) for part in parts))
    return route_components_pb2.RouteMatch(safe_regex=pattern)


def _header_is(name: str, value: string_pb2.StringMatcher) -> route_components_pb2.HeaderMatcher:
    return route_components_pb2.HeaderMatcher(name=name, string_match=value)


def _prefix(prefix: str) -> route_components_pb2.RouteMatch:
    return route_components_pb2.RouteMatch(prefix=prefix)


def _switch(*, disabled: bool) -> object:
    return packed(route_components_pb2.FilterConfig(disabled=disabled))


def _cors(edge: Edge) -> cors_pb2.CorsPolicy:
    """Return what browsers are told; no cookies are used, so no credentials are allowed."""
    origins = [
        string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=".*"))
        if origin == "*"
        else string_pb2.StringMatcher(exact=origin)
        for origin in edge.cors_origins
    ]
    return cors_pb2.CorsPolicy(
        allow_origin_string_match=origins,
        allow_methods="GET, POST, PUT, DELETE, PATCH, OPTIONS",
        allow_headers="content-type,x-grpc-web,x-user-agent,grpc-timeout,headrace-timeout,authorization,traceparent,"
        "tracestate",
        expose_headers="grpc-status,grpc-message,grpc-status-details-bin,headrace-model,headrace-queue-ms,"
        "headrace-engine-ms,headrace-engine-share-ms,headrace-batch-rows,headrace-padding-ratio",
        max_age="86400",
        forward_not_matching_preflights=BoolValue(value=False),
    )
