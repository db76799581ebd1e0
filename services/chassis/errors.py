"""Every error a caller can meet, in one table: those born in a service, and those born in Envoy before or after it.

    ServiceError            raised by servicers and the chassis; speaks to the client
    anything else           is logged with its traceback; the client hears "internal error" and a trace id

A row of `TABLE` fixes reason, gRPC code, HTTP status and words. A service fills the template of its row when it raises;
the gateway renders the rows that have a `gateway` text into Envoy's local replies: `from_gateway(reason)`.
Details (google.rpc): ErrorInfo always, and BadRequest, RetryInfo, QuotaFailure or ResourceInfo where they apply.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from services.chassis.error_table import HTTP_STATUS, TABLE, Row

__all__ = [
    "DOMAIN",
    "HTTP_STATUS",
    "TABLE",
    "Row",
    "ServiceError",
    "clip",
    "deadline_exceeded",
    "deadline_unmeetable",
    "draining",
    "engine_failed",
    "from_gateway",
    "idle_timeout",
    "internal",
    "invalid_argument",
    "invalid_arguments",
    "malformed_message",
    "message_too_large",
    "model_load_failed",
    "model_unavailable",
    "not_found",
    "queue_full",
    "quota_exceeded",
    "quote",
    "relayed",
    "to_item_status",
    "too_many_streams",
    "unknown_method",
]

DOMAIN: Final = "headrace"

#: Bytes of UTF-8 kept of a message and of one quoted value: details travel in metadata, which peers cap at 8 KiB.
MAX_MESSAGE_BYTES: Final = 640
MAX_VALUE_BYTES: Final = 160
_MAX_VIOLATIONS: Final = 4
_EXTRA: Final[tuple[Any, ...]] = (
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.QuotaFailure,
    error_details_pb2.ResourceInfo,
)


class ServiceError(Exception):
    """An error that speaks to the client. Make one with the functions below, not by hand.

    `metadata` holds the values used in the message (ErrorInfo.metadata); `extra` further google.rpc details.
    """

    def __init__(self, row: Row, metadata: Mapping[str, str], *, message: str = "", extra: Sequence[Any] = ()) -> None:
        self.row = row
        self.metadata = {key: clip(value, MAX_VALUE_BYTES) for key, value in metadata.items()}
        self.message = clip(message or row.template.format_map(metadata), MAX_MESSAGE_BYTES)
        self._extra = tuple(extra)
        super().__init__(self.message)

    @property
    def code(self) -> grpc.StatusCode:
        """The canonical status code."""
        return self.row.code

    @property
    def reason(self) -> str:
        """The machine-readable reason: with the domain `headrace` it is stable API."""
        return self.row.reason

    def details(self) -> status_pb2.Status:
        """The google.rpc.Status that travels as `grpc-status-details-bin` and as an item's error."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        parts = [info, *self._extra]
        if self.row.retry_after and not any(isinstance(part, error_details_pb2.RetryInfo) for part in parts):
            parts.append(_retry_info(self.row.retry_after))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for part in parts:
            packed = any_pb2.Any()
            packed.Pack(part)
            status.details.append(packed)
        return status

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """Trailing metadata that carries the details."""
        return (("grpc-status-details-bin", self.details().SerializeToString()),)


def from_gateway(reason: str, metadata: Mapping[str, str] | None = None) -> ServiceError:
    """The error as Envoy words it; `metadata` holds what is static there, such as `limit_bytes`.

    Raises ValueError for a reason that only services know.
    """
    row = TABLE[reason]
    if not row.gateway:
        raise ValueError(f"{reason} is not born in the gateway")
    values = dict(metadata or {})
    return ServiceError(row, values, message=row.gateway.format_map(values))


def relayed(error: grpc.aio.AioRpcError, model: str) -> ServiceError:
    """The error that another process of the mesh answered, for a caller who knows only this one.

    `model`: what could not be reached when the error is not of the mesh's making, such as a broken connection.
    """
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    status = status_pb2.Status.FromString(raw if isinstance(raw, bytes) else raw.encode())
    info = error_details_pb2.ErrorInfo()
    if not any(part.Unpack(info) for part in status.details) or info.domain != DOMAIN or info.reason not in TABLE:
        return model_unavailable(model, error.details() or error.code().name)
    extra = [kind.FromString(part.value) for kind in _EXTRA for part in status.details if part.Is(kind.DESCRIPTOR)]
    return ServiceError(TABLE[info.reason], dict(info.metadata), message=status.message, extra=extra)


def to_item_status(error: BaseException, trace_id: str = "") -> status_pb2.Status:
    """The `error` of one item of a batch answer; what is not a ServiceError is an internal error."""
    return (error if isinstance(error, ServiceError) else internal(trace_id)).details()


def clip(text: str, limit: int) -> str:
    """`text` cut to `limit` bytes of UTF-8, with an ellipsis; lone surrogates, which UTF-8 lacks, become `?`."""
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "…"


def quote(name: str) -> str:
    """A caller's value as a message shows it: quoted, on one line, clipped."""
    return repr(clip(name, 80))


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    nanos = max(0, round(seconds * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=nanos // 10**9, nanos=nanos % 10**9))


def invalid_argument(field: str, problem: str) -> ServiceError:
    """`field` is the path as the proto spells it (`images[3].content`); `problem`: what was wrong, what is allowed."""
    return invalid_arguments([(field, problem)])


def invalid_arguments(violations: Sequence[tuple[str, str]]) -> ServiceError:
    """Several wrong fields at once: (field, problem) pairs, at least one; the message speaks of the first."""
    field, problem = violations[0]
    bad = error_details_pb2.BadRequest()
    for name, text in violations[:_MAX_VIOLATIONS]:
        bad.field_violations.add(
            field=clip(name, MAX_VALUE_BYTES), description=clip(text, MAX_MESSAGE_BYTES // 2), reason="INVALID_FIELD"
        )
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return ServiceError(
        TABLE["INVALID_FIELD"],
        {"field": field},
        message=f"{clip(field, MAX_VALUE_BYTES)}: {problem}{more}",
        extra=[bad],
    )


def malformed_message(method: str, message_type: str) -> ServiceError:
    """Request bytes that do not parse as the method's request type."""
    return ServiceError(TABLE["MALFORMED_MESSAGE"], {"method": method, "type": message_type})


def message_too_large(size: int, limit: int) -> ServiceError:
    """A request message of `size` bytes where `limit` are accepted."""
    return ServiceError(TABLE["MESSAGE_TOO_LARGE"], {"size_bytes": str(size), "limit_bytes": str(limit)})


def unknown_method(method: str) -> ServiceError:
    """A path that no registered service has; `method` is `/package.Service/Method`."""
    return ServiceError(TABLE["UNKNOWN_METHOD"], {"method": quote(method)})


def not_found(kind: str, name: str, known: Iterable[str] = ()) -> ServiceError:
    """`kind` is model, model version, user, item or trace; the nearest `known` names are offered."""
    row = TABLE[kind.upper().replace(" ", "_") + "_NOT_FOUND"]
    names = list(known)
    near = difflib.get_close_matches(name[:80], names, n=1)
    listed = ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "")
    hint = (f", did you mean {near[0]}?" if near else "") + (f" (known: {listed})" if listed else "")
    resource = error_details_pb2.ResourceInfo(
        resource_type=f"headrace/{kind}", resource_name=clip(name, MAX_VALUE_BYTES)
    )
    message = row.template.format(name=quote(name), hint=hint)
    return ServiceError(row, {"name": name}, message=message, extra=[resource])


def queue_full(model: str, retry_after: float) -> ServiceError:
    """The queue of `model` has no room; `retry_after` in seconds, as the batcher estimates it."""
    return _retry_later("QUEUE_FULL", {"model": model}, retry_after)


def deadline_unmeetable(model: str, retry_after: float, message: str = "") -> ServiceError:
    """The work would expire before it is done; it is refused at once. `message`: better words than the table's."""
    return _retry_later("DEADLINE_UNMEETABLE", {"model": model}, retry_after, message)


def too_many_streams(limit: int, retry_after: float) -> ServiceError:
    """The process has `limit` streams open, which is its limit."""
    return _retry_later("TOO_MANY_STREAMS", {"limit": str(limit)}, retry_after)


def _retry_later(reason: str, values: Mapping[str, str], retry_after: float, message: str = "") -> ServiceError:
    values = {**values, "retry_after_ms": str(max(1, round(retry_after * 1000)))}
    return ServiceError(TABLE[reason], values, message=message, extra=[_retry_info(max(retry_after, 0.001))])


def quota_exceeded(subject: str, problem: str, retry_after: float) -> ServiceError:
    """A quota of `subject` (an account, a key) is used up; carries QuotaFailure and RetryInfo (seconds)."""
    failure = error_details_pb2.QuotaFailure()
    failure.violations.add(subject=clip(subject, MAX_VALUE_BYTES), description=clip(problem, MAX_MESSAGE_BYTES // 2))
    values = {"subject": subject, "problem": problem}
    return ServiceError(TABLE["QUOTA_EXCEEDED"], values, extra=[failure, _retry_info(retry_after)])


def deadline_exceeded(method: str, allowed: float) -> ServiceError:
    """The call's deadline, `allowed` seconds after its start, has passed."""
    return ServiceError(TABLE["DEADLINE_EXCEEDED"], {"method": method, "deadline_s": f"{max(allowed, 0.0):.3g}"})


def idle_timeout(allowed: float) -> ServiceError:
    """A stream carried nothing for `allowed` seconds."""
    return ServiceError(TABLE["IDLE_TIMEOUT"], {"idle_s": f"{allowed:.3g}"})


def draining() -> ServiceError:
    """The process is shutting down."""
    return ServiceError(TABLE["DRAINING"], {})


def model_unavailable(model: str, problem: str, retry_after: float = 0.0) -> ServiceError:
    """The model exists and cannot answer; `problem` says why in words for callers: it is loading, or failed to load.

    `retry_after`: seconds after which it may be otherwise, 0 = as the table says.
    """
    extra = [_retry_info(retry_after)] if retry_after else []
    return ServiceError(TABLE["MODEL_UNAVAILABLE"], {"model": model, "problem": problem}, extra=extra)


def model_load_failed(model: str, version: str, problem: str) -> ServiceError:
    """What a caller asked to load cannot be; `problem` says why. What served before still does."""
    return ServiceError(TABLE["MODEL_LOAD_FAILED"], {"model": model, "version": version or "(any)", "problem": problem})


def engine_failed(model: str) -> ServiceError:
    """The engine failed on this caller's rows, even alone."""
    return ServiceError(TABLE["ENGINE_FAILED"], {"model": model})


def internal(trace_id: str) -> ServiceError:
    """Anything undeclared; the words stay in the log, found by `trace_id`."""
    return ServiceError(TABLE["INTERNAL"], {"trace_id": trace_id or "unknown"})
