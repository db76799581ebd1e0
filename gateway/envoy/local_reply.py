"""Errors born in Envoy, worded by the one error table: gRPC status with details, or a JSON google.rpc.Status.

A reply's mapper runs before Envoy fills in `grpc-status` and `grpc-message` itself; what it set stays.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import json_format

from services.chassis.errors import ServiceError, from_gateway

_MAPPER = http_connection_manager_pb2.ResponseMapper


@dataclass(frozen=True, slots=True)
class _Case:
    """When Envoy's reply is this error: one of its response flags (as in access logs), or its HTTP status."""

    reason: str
    flags: tuple[str, ...] = ()
    status: int = 0


# First match wins.
_CASES = (
    _Case("MESSAGE_TOO_LARGE", status=413),
    _Case("HEADERS_TOO_LARGE", status=431),
    _Case("DEADLINE_EXCEEDED", flags=("DT", "UMSDR", "UT")),
    _Case("IDLE_TIMEOUT", flags=("SI",)),
    _Case("NO_HEALTHY_UPSTREAM", flags=("UH", "NC")),
    _Case("OVERLOADED", flags=("UO", "OM")),
    _Case("UPSTREAM_CONNECT_FAILED", flags=("UF",)),
    _Case("UPSTREAM_RESET", flags=("UC", "UR", "LR", "UPE")),
    _Case("DEADLINE_EXCEEDED", status=504),
    _Case("DEADLINE_EXCEEDED", status=408),
    _Case("OVERLOADED", status=503),
)
_WITH_LIMIT = frozenset(("MESSAGE_TOO_LARGE",))
_OK = 200
_BAD_REQUEST = 400
_UNQUOTED = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")  # gRPC leaves printable ASCII alone


def local_replies(max_message_bytes: int) -> http_connection_manager_pb2.LocalReplyConfig:
    """Return the mappers of every error that Envoy answers by itself."""
    config = http_connection_manager_pb2.LocalReplyConfig()
    for case in _CASES:
        values = {"limit_bytes": str(max_message_bytes)} if case.reason in _WITH_LIMIT else {}
        config.mappers.extend(_mappers(case, from_gateway(case.reason, values)))
    config.mappers.extend(_bad_requests())
    return config


def json_body(error: ServiceError) -> str:
    """Return the error as a JSON google.rpc.Status, as REST callers get it."""
    return json.dumps(_fields(error), ensure_ascii=False)


def _mappers(case: _Case, error: ServiceError) -> Iterator[http_connection_manager_pb2.ResponseMapper]:
    """Yield the three forms of one error: to a REST call that was translated to gRPC, to gRPC, to anyone else."""
    yield _json_reply(_all(_when(case), _TRANSLATED), error)
    yield _grpc_reply(_when(case), error)
    yield _json_reply(_when(case), error)


def _bad_requests() -> Iterator[http_connection_manager_pb2.ResponseMapper]:
    """Yield what a 400 is: JSON that the transcoder refused (it says why), an unreadable message, or broken HTTP."""
    when = _when(_Case("", status=_BAD_REQUEST))
    refused = from_gateway("MALFORMED_JSON")
    reply = _json_reply(_all(when, _TRANSLATED), refused)
    fields = {**_fields(refused), "message": f"{refused.message} (%LOCAL_REPLY_BODY%)"}
    reply.body_format_override.Clear()
    reply.body_format_override.json_format.update(fields)
    yield from (reply, _grpc_reply(when, from_gateway("MALFORMED_MESSAGE")))
    yield _json_reply(when, from_gateway("BAD_HTTP_REQUEST"))


def _grpc_reply(when: accesslog_pb2.AccessLogFilter, error: ServiceError) -> http_connection_manager_pb2.ResponseMapper:
    """Return the reply to gRPC and gRPC-Web: everything in the headers, no body.

    Envoy takes a gRPC-Web caller for a plain one here, and would derive another code from any status but 200.
    """
    reply = _MAPPER(filter=_all(when, _GRPC), body_format_override=_text(""))
    reply.body_format_override.content_type = "application/grpc-web+proto"
    reply.status_code.value = _OK
    details = base64.b64encode(error.details().SerializeToString()).decode().rstrip("=")
    reply.headers_to_add.append(_header("grpc-status", str(int(error.code.value[0]))))
    reply.headers_to_add.append(_header("grpc-message", quote(error.message, safe=_UNQUOTED)))
    reply.headers_to_add.append(_header("grpc-status-details-bin", details))
    return reply


def _json_reply(when: accesslog_pb2.AccessLogFilter, error: ServiceError) -> http_connection_manager_pb2.ResponseMapper:
    reply = _MAPPER(filter=when, body_format_override=_text(json_body(error)))
    reply.body_format_override.content_type = "application/json"
    reply.status_code.value = error.row.http
    return reply


def _when(case: _Case) -> accesslog_pb2.AccessLogFilter:
    if case.flags:
        return accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=case.flags))
    comparison = accesslog_pb2.ComparisonFilter(op=accesslog_pb2.ComparisonFilter.EQ)
    comparison.value.default_value = case.status
    comparison.value.runtime_key = "headrace.unset"
    return accesslog_pb2.AccessLogFilter(status_code_filter=accesslog_pb2.StatusCodeFilter(comparison=comparison))


def _has(name: str, value: string_pb2.StringMatcher) -> accesslog_pb2.AccessLogFilter:
    matcher = route_components_pb2.HeaderMatcher(name=name, string_match=value)
    return accesslog_pb2.AccessLogFilter(header_filter=accesslog_pb2.HeaderFilter(header=matcher))


def _all(*filters: accesslog_pb2.AccessLogFilter) -> accesslog_pb2.AccessLogFilter:
    return accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=filters))


_GRPC = _has("content-type", string_pb2.StringMatcher(prefix="application/grpc"))
_TRANSLATED = _has("x-envoy-original-path", string_pb2.StringMatcher(prefix="/"))


def _fields(error: ServiceError) -> dict[str, Any]:
    fields: dict[str, Any] = json_format.MessageToDict(error.details())
    return fields


def _text(text: str) -> substitution_format_string_pb2.SubstitutionFormatString:
    return substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(inline_string=text.replace("%", "%%"))
    )


def _header(key: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=key, value=value.replace("%", "%%")),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
