"""The table of errors as data: one row a kind, for those born in a service and those born in Envoy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import grpc

#: The canonical translation of google.rpc.Code.
HTTP_STATUS: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of error.

    `template` is what services say, filled with the error's metadata; `gateway` what Envoy says by itself. Either is
    empty where the error is not born. `retry_after` (seconds) becomes RetryInfo unless the error brings a measured one;
    0 = none, since trying again cannot help or nothing is known.
    """

    reason: str
    code: grpc.StatusCode
    http: int
    template: str = ""
    gateway: str = ""
    retry_after: float = 0.0


def _row(  # A row has as many columns as it has.
    reason: str,
    code: grpc.StatusCode,
    template: str = "",
    *,
    http: int = 0,
    gateway: str = "",
    retry_after: float = 0.0,
) -> Row:
    return Row(reason, code, http or HTTP_STATUS[code], template, gateway, retry_after)


def _request_rows() -> Iterator[Row]:
    """What is wrong with the request itself, or with what it names."""
    code = grpc.StatusCode
    yield _row("INVALID_FIELD", code.INVALID_ARGUMENT, "{field}: {problem}")
    yield _row(
        "MALFORMED_MESSAGE",
        code.INVALID_ARGUMENT,
        "the request of {method} is not a valid {type} message: send protobuf bytes made from the published protos",
        gateway="the request is not a valid protobuf message of this method: send bytes made from the published protos",
    )
    yield _row(
        "MALFORMED_JSON",
        code.INVALID_ARGUMENT,
        gateway="the request body is not valid JSON for this method: check syntax and field names; bytes are base64",
    )
    yield _row(
        "UNSUPPORTED_CONTENT_TYPE",
        code.INVALID_ARGUMENT,
        http=415,
        gateway="no known content-type: use application/grpc, application/grpc-web or application/json",
    )
    yield _row(
        "BAD_HTTP_REQUEST",
        code.INVALID_ARGUMENT,
        gateway="the HTTP request is malformed: its headers, path or framing break the protocol",
    )
    yield _row(
        "HEADERS_TOO_LARGE",
        code.RESOURCE_EXHAUSTED,
        http=431,
        gateway="the request headers are larger than the gateway accepts: send fewer or shorter metadata entries",
    )
    yield _row(
        "MESSAGE_TOO_LARGE",
        code.RESOURCE_EXHAUSTED,
        "the request message has {size_bytes} bytes, at most {limit_bytes} are accepted: send fewer or smaller items",
        http=413,
        gateway="the request message is larger than the limit of {limit_bytes} bytes: send fewer or smaller items",
    )
    yield _row(
        "UNKNOWN_METHOD",
        code.UNIMPLEMENTED,
        "{method} is not served here: server reflection lists what is",
        http=404,
        gateway="no service of this mesh answers this path: server reflection lists the methods it has",
    )
    yield _row(
        "HTTP_METHOD_NOT_ALLOWED",
        code.UNIMPLEMENTED,
        http=405,
        gateway="this path answers {allowed} only",
    )
    yield _row(
        "MODEL_NOT_FOUND",
        code.NOT_FOUND,
        "there is no model {name}{hint}",
        gateway="no service of this mesh has the model that the request names: RepositoryIndex lists the models it has",
    )
    yield _row("MODEL_VERSION_NOT_FOUND", code.NOT_FOUND, "there is no model version {name}{hint}")
    yield _row(
        "MODEL_LOAD_FAILED", code.FAILED_PRECONDITION, "version {version} of model {model} cannot be loaded: {problem}"
    )
    yield _row("USER_NOT_FOUND", code.NOT_FOUND, "there is no user {name}{hint}")
    yield _row("ITEM_NOT_FOUND", code.NOT_FOUND, "there is no item {name}{hint}")
    yield _row("SERVICE_NOT_FOUND", code.NOT_FOUND, "there is no service {name}{hint}")
    yield _row("TRACE_NOT_FOUND", code.NOT_FOUND, "there is no trace {name}{hint}")


def _capacity_rows() -> Iterator[Row]:
    """Time and room."""
    code = grpc.StatusCode
    yield _row(
        "QUEUE_FULL",
        code.RESOURCE_EXHAUSTED,
        "the queue of model {model} is full: try again in {retry_after_ms} ms",
        retry_after=0.1,
    )
    yield _row(
        "DEADLINE_UNMEETABLE",
        code.RESOURCE_EXHAUSTED,
        "model {model} cannot answer before this call's deadline: try again in {retry_after_ms} ms or allow more time",
        retry_after=0.1,
    )
    yield _row("QUOTA_EXCEEDED", code.RESOURCE_EXHAUSTED, "{subject}: {problem}", retry_after=1.0)
    yield _row(
        "DEADLINE_EXCEEDED",
        code.DEADLINE_EXCEEDED,
        "the deadline of {deadline_s} s passed before {method} had its answer: allow more time or send less",
        gateway="the deadline passed before the service answered: allow more time or send less",
    )
    yield _row(
        "TOO_MANY_STREAMS",
        code.RESOURCE_EXHAUSTED,
        "{limit} live streams are open, which is as many as this process takes: try again in {retry_after_ms} ms",
    )
    yield _row(
        "IDLE_TIMEOUT",
        code.DEADLINE_EXCEEDED,
        "nothing came for {idle_s} s and the stream was closed: open a new one when there is data",
        gateway="the stream carried nothing for too long and was closed: open a new one when there is data",
    )


def _mesh_rows() -> Iterator[Row]:
    """The state of the mesh, and what is our own fault."""
    code = grpc.StatusCode
    yield _row(
        "DRAINING",
        code.UNAVAILABLE,
        "this process is shutting down and takes no new calls: try again, another one will answer",
        gateway="the gateway is shutting down and takes no new calls: connect again",
        retry_after=0.1,
    )
    yield _row("MODEL_UNAVAILABLE", code.UNAVAILABLE, "model {model} cannot answer now: {problem}", retry_after=1.0)
    yield _row(
        "NO_HEALTHY_UPSTREAM",
        code.UNAVAILABLE,
        gateway="no process of this service is ready: it is starting, restarting or not running; try again",
        retry_after=1.0,
    )
    yield _row(
        "UPSTREAM_CONNECT_FAILED",
        code.UNAVAILABLE,
        gateway="the service could not be reached: it is restarting or not running; nothing was started, try again",
        retry_after=0.5,
    )
    yield _row(
        "UPSTREAM_RESET",
        code.UNAVAILABLE,
        gateway="the service process ended before it answered: try again if the call may run twice",
        retry_after=0.5,
    )
    yield _row(
        "OVERLOADED",
        code.UNAVAILABLE,
        gateway="too many calls are in progress: try again later or send fewer at once",
        retry_after=0.5,
    )
    yield _row("ENGINE_FAILED", code.INTERNAL, "model {model} failed on this item; the log of the service says why")
    yield _row(
        "RESPONSE_TOO_LARGE",
        code.INTERNAL,
        gateway="the response is larger than the gateway can translate: ask for less in one call, or use gRPC",
    )
    yield _row(
        "INTERNAL",
        code.INTERNAL,
        "internal error; the log of the service has it under trace {trace_id}",
        gateway="internal error in the gateway",
    )


#: reason -> row.
TABLE: Final[Mapping[str, Row]] = {row.reason: row for row in (*_request_rows(), *_capacity_rows(), *_mesh_rows())}
