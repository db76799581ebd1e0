"""The listener: one port for gRPC, gRPC-Web and REST/JSON, and what it does to every request before routing it."""

from collections.abc import Iterator

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.grpc_field_extraction.v3 import config_pb2 as extraction_pb2
from envoy.extensions.filters.http.grpc_json_transcoder.v3 import transcoder_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from gateway.envoy.descriptors import (
    OPEN_INFERENCE,
    model_fields,
    open_inference_descriptor_set,
    typed_descriptor_set,
    typed_services,
)
from gateway.envoy.local_reply import local_replies
from gateway.envoy.routes import BODY_FILTER, CORS_FILTER, FIELD_FILTER, LUA_FILTER, ROUTES
from gateway.envoy.tracing import MODEL_HEADER, tracer
from gateway.envoy.wire import duration, extension, over_ads, packed, packed_fields, socket_address
from gateway.topology import Address, Edge

LISTENER = "edge"

_MANAGER = http_connection_manager_pb2.HttpConnectionManager
_FRAME_HEADER = 5
_KIB = 1024

# Routes are chosen before any filter runs; setting a header here makes Envoy choose again, now knowing the model.
# A model may be named with its version ("name@version"); routing needs the name alone.
_LUA = f"""
function envoy_on_request(handle)
  local fields = handle:streamInfo():dynamicMetadata():get("{FIELD_FILTER}")
  local values = fields and (fields["model_name"] or fields["name"])
  local model = values and values[1]
  if model then
    handle:headers():replace("{MODEL_HEADER}", string.match(model, "^[^@]*"))
  end
end
"""


def edge_listener(edge: Edge) -> listener_pb2.Listener:
    """Return the one public listener."""
    manager = listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=packed(connection_manager(edge))
    )
    return listener_pb2.Listener(
        name=LISTENER,
        # What drains first when the mesh stops; the services' calls to each other end with those of the callers.
        traffic_direction=base_pb2.TrafficDirection.INBOUND,
        address=socket_address(Address.parse(edge.listen)),
        filter_chains=[listener_components_pb2.FilterChain(filters=[manager])],
        # With it (the default) a second gateway could bind the same port and silently take half of the calls.
        enable_reuse_port=BoolValue(value=False),
        # HTTP/1.1 bodies are buffered against this, HTTP/2's against the stream window.
        per_connection_buffer_limit_bytes=UInt32Value(value=_rest_limit(edge)),
    )


def connection_manager(edge: Edge) -> http_connection_manager_pb2.HttpConnectionManager:
    """Return what the public listener does with a connection."""
    manager = _MANAGER(
        stat_prefix=LISTENER,
        codec_type=_MANAGER.AUTO,
        rds=http_connection_manager_pb2.Rds(route_config_name=ROUTES, config_source=over_ads()),
        http_filters=list(_filters(edge)),
        tracing=tracer(),
        local_reply_config=local_replies(edge.max_message_bytes),
        server_name="headrace",
        use_remote_address=BoolValue(value=True),
        # What no service reads costs each of them more than it costs Envoy.
        skip_xff_append=True,
        normalize_path=BoolValue(value=True),
        merge_slashes=True,
        path_with_escaped_slashes_action=_MANAGER.REJECT_REQUEST,
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=duration(3600),
            # Legal in gRPC metadata and used (Triton's triton_grpc_error). Refusing would reset the stream without a
            # word, dropping would change what the call means; and nobody behind here reads "_" as "-".
            headers_with_underscores_action=protocol_pb2.HttpProtocolOptions.ALLOW,
        ),
        http2_protocol_options=_http2(edge),
        request_headers_timeout=duration(10),
        stream_idle_timeout=duration(300),
        early_header_mutation_extensions=[extension("strip", _strip_internal_headers())],
    )
    # Nobody is internal, not even loopback callers, who would be by default. An empty list would mean that default.
    manager.internal_address_config.cidr_ranges.add(address_prefix="255.255.255.255").prefix_len.value = 32
    return manager


def _http2(edge: Edge) -> protocol_pb2.Http2ProtocolOptions:
    window = _rest_limit(edge)  # the first message is buffered whole to read its model, so it must fit the window
    return protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams=UInt32Value(value=1024),
        # Under a storm of cancelled and expired calls the default codec fails now and then with an internal error and
        # hangs up, which ends every other call of the connection too (DECISIONS.md).
        use_oghttp2_codec=BoolValue(value=True),
        initial_stream_window_size=UInt32Value(value=window),
        initial_connection_window_size=UInt32Value(value=min(window * 2, (1 << 31) - 1)),
        connection_keepalive=protocol_pb2.KeepaliveSettings(interval=duration(30), timeout=duration(10)),
    )


def _rest_limit(edge: Edge) -> int:
    """Return the largest JSON body in bytes: a message of the greatest size, its bytes as base64, and some syntax."""
    return min(edge.max_message_bytes * 4 // 3 + 64 * _KIB, (1 << 31) - 1)


def _strip_internal_headers() -> header_mutation_pb2.HeaderMutation:
    """Return what happens before anything reads the headers: those that steer the mesh or Envoy are removed."""
    patterns = [string_pb2.StringMatcher(prefix=prefix) for prefix in ("x-headrace-", "x-envoy-")]
    removals = [mutation_rules_pb2.HeaderMutation.RemoveOnMatch(key_matcher=pattern) for pattern in patterns]
    return header_mutation_pb2.HeaderMutation(
        mutations=[mutation_rules_pb2.HeaderMutation(remove_on_match=removal) for removal in removals]
    )


def _filters(edge: Edge) -> Iterator[http_connection_manager_pb2.HttpFilter]:
    yield _filter(CORS_FILTER, cors_pb2.Cors())
    yield _filter("envoy.filters.http.grpc_web", grpc_web_pb2.GrpcWeb())
    yield _filter("envoy.filters.http.grpc_json_transcoder", _transcoder(edge))
    body_limit = packed_fields(
        "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit",
        {"max_request_bytes": edge.max_message_bytes + _FRAME_HEADER},
    )
    yield _typed_filter(BODY_FILTER, body_limit)
    yield _filter(FIELD_FILTER, _extraction())
    lua = lua_pb2.Lua(default_source_code=base_pb2.DataSource(inline_string=_LUA))
    yield _filter(LUA_FILTER, lua)
    yield _filter("envoy.filters.http.router", router_pb2.Router(suppress_envoy_headers=True))


def _filter(name: str, config: Message) -> http_connection_manager_pb2.HttpFilter:
    return _typed_filter(name, packed(config))


def _typed_filter(name: str, config: Any) -> http_connection_manager_pb2.HttpFilter:
    return http_connection_manager_pb2.HttpFilter(name=name, typed_config=config)


def _transcoder(edge: Edge) -> transcoder_pb2.GrpcJsonTranscoder:
    limit = UInt32Value(value=_rest_limit(edge))
    return transcoder_pb2.GrpcJsonTranscoder(
        proto_descriptor_bin=typed_descriptor_set(),
        # All published services, running or not: a stopped one then answers with words, not "unknown path".
        services=[descriptor.full_name for descriptor in typed_services()],
        convert_grpc_status=True,
        print_options=transcoder_pb2.GrpcJsonTranscoder.PrintOptions(always_print_primitive_fields=True),
        max_request_body_size=limit,
    )


def _extraction() -> extraction_pb2.GrpcFieldExtractionConfig:
    config = extraction_pb2.GrpcFieldExtractionConfig()
    config.descriptor_set.inline_bytes = open_inference_descriptor_set()
    for method, field in model_fields().items():
        wanted = config.extractions_by_method[f"{OPEN_INFERENCE}.{method}"]
        wanted.request_field_extractions[field].SetInParent()
    return config
