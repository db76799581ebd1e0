"""Errors born in Envoy, worded by the one error table: gRPC status with details, or a JSON google.rpc.Status.

Envoy lets a local reply's mapper add headers before it fills in `grpc-status` and `grpc-message` itself: a status set
here stays, and the body becomes the message. REST calls that were already translated get their JSON from the
transcoder, which reads the same `grpc-status-details-bin`.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import json_format

from services.chassis.errors import ServiceError, from_gateway

_MAPPER = http_connection_manager_pb2.ResponseMapper
_GRPC = route_components_pb2.HeaderMatcher(
    name="content-type", string_match=string_pb2.StringMatcher(prefix="application/grpc")
)


@dataclass(frozen=True, slots=True)
class _Case:
    """When Envoy's reply is this error: one of its response flags, or its HTTP status."""

    reason: str
    flags: tuple[str, ...] = ()
    status: int = 0


# First match wins. Flags are those of Envoy's access log.
_CASES = (
    _Case("MESSAGE_TOO_LARGE", status=413),
    _Case("HEADERS_TOO_LARGE", status=431),
    _Case("DEADLINE_EXCEEDED", flags=("DT", "UMSDR", "UT")),
    _Case("IDLE_TIMEOUT", flags=("SI",)),
    _Case("NO_HEALTHY_UPSTREAM", flags=("UH", "NC")),
    _Case("OVERLOADED", flags=("UO", "OM")),
    _Case("UPSTREAM_CONNECT_FAILED", flags=("UF",)),
    _Case("UPSTREAM_RESET", flags=("UC", "UR", "LR", "UPE")),
    _Case("MALFORMED_MESSAGE", status=400),
)


def local_replies(max_message_bytes: int) -> http_connection_manager_pb2.LocalReplyConfig:
    """Return the mappers of every error that Envoy answers by itself."""
    values = {"limit_bytes": str(max_message_bytes)}
    config = http_connection_manager_pb2.LocalReplyConfig()
    config.mappers.extend(_mappers(values))
    return config


def json_body(error: ServiceError) -> str:
    """Return the error as a JSON google.rpc.Status, as REST callers get it."""
    return str(json_format.MessageToJson(error.details(), preserving_proto_field_name=True, indent=None))


def _mappers(values: Mapping[str, str]) -> Iterator[http_connection_manager_pb2.ResponseMapper]:
    for case in _CASES:
        error = from_gateway(case.reason, values)
        yield _grpc_mapper(case, error)
        yield _json_mapper(case, error)


def _grpc_mapper(case: _Case, error: ServiceError) -> http_connection_manager_pb2.ResponseMapper:
    grpc_only = accesslog_pb2.AccessLogFilter(header_filter=accesslog_pb2.HeaderFilter(header=_GRPC))
    mapper = _MAPPER(filter=_both(_when(case), grpc_only), body_format_override=_text(error.message))
    code = int(error.code.value[0])
    details = base64.b64encode(error.details().SerializeToString()).decode().rstrip("=")
    mapper.headers_to_add.extend((_header("grpc-status", str(code)), _header("grpc-status-details-bin", details)))
    return mapper


def _json_mapper(case: _Case, error: ServiceError) -> http_connection_manager_pb2.ResponseMapper:
    mapper = _MAPPER(filter=_when(case), body_format_override=_text(json_body(error)))
    mapper.body_format_override.content_type = "application/json"
    mapper.status_code.value = error.row.http
    return mapper


def _when(case: _Case) -> accesslog_pb2.AccessLogFilter:
    if case.flags:
        return accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=case.flags))
    comparison = accesslog_pb2.ComparisonFilter(op=accesslog_pb2.ComparisonFilter.EQ)
    comparison.value.default_value = case.status
    comparison.value.runtime_key = "headrace.unset"
    return accesslog_pb2.AccessLogFilter(status_code_filter=accesslog_pb2.StatusCodeFilter(comparison=comparison))


def _both(*filters: accesslog_pb2.AccessLogFilter) -> accesslog_pb2.AccessLogFilter:
    return accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=filters))


def _text(text: str) -> substitution_format_string_pb2.SubstitutionFormatString:
    return substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(inline_string=text.replace("%", "%%"))
    )


def _header(key: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=key, value=value.replace("%", "%%")),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
