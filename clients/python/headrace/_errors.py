"""Errors of calls and of single items, translated from gRPC in one place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing wrong with a request: the field's path, such as `images[3].content`, and what to change."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Details:
    """What an error says to programs.

    `reason` (UPPER_SNAKE_CASE) with `domain` is stable, `metadata` holds the values named in the message, `retry_after`
    is how long to wait before trying again, in seconds, or None where the server did not say.
    """

    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None


class HeadraceError(Exception):
    """Anything that a call, or one item of a call, can fail with.

    HeadraceError
    ├── Cancelled            somebody else ended the call
    ├── Unknown              no usable code was sent
    ├── InvalidArgument      the request is wrong: `violations` names the fields
    ├── DeadlineExceeded     `timeout` passed first
    ├── NotFound             no such model, version, user or item
    ├── AlreadyExists        what should be made is there
    ├── PermissionDenied     the key does not allow this
    ├── ResourceExhausted    a full queue, a quota or a size limit: `retry_after` says when to try again, if ever
    ├── FailedPrecondition   the mesh is not in a state for this
    ├── Aborted              a conflict with another change
    ├── OutOfRange           past the end of something
    ├── Unimplemented        this mesh does not serve the method
    ├── Internal             a fault of the mesh
    ├── Unavailable          nobody answers now; the client tried again already
    ├── DataLoss             stored data is broken
    └── Unauthenticated      the key is missing, wrong or expired
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, details: Details | None = None) -> None:
        super().__init__(message, details)
        self.message = message
        self.details = details or Details()

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"

    @property
    def reason(self) -> str:
        """The stable machine-readable reason; "" when the error did not come from a mesh."""
        return self.details.reason

    @property
    def domain(self) -> str:
        """Who defines the reason; "headrace" for those of the mesh."""
        return self.details.domain

    @property
    def metadata(self) -> Mapping[str, str]:
        """The values that the message names."""
        return self.details.metadata

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The fields that are wrong, with what to change."""
        return self.details.violations

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before trying again; None where the server did not say."""
        return self.details.retry_after


class Cancelled(HeadraceError):
    """The call was ended by somebody else than its caller."""

    code = grpc.StatusCode.CANCELLED


class Unknown(HeadraceError):
    """No usable status was sent."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(HeadraceError):
    """The request is wrong; `violations` names the fields."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(HeadraceError):
    """The timeout passed before the answer."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(HeadraceError):
    """There is no such model, version, user or item."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(HeadraceError):
    """What should be made is there."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(HeadraceError):
    """The key does not allow this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(HeadraceError):
    """A queue, a quota or a size limit is full; `retry_after` says when to try again, if that can help."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(HeadraceError):
    """The mesh is not in a state for this."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(HeadraceError):
    """A conflict with another change."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(HeadraceError):
    """Past the end of something."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(HeadraceError):
    """This mesh does not serve the method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(HeadraceError):
    """A fault of the mesh."""

    code = grpc.StatusCode.INTERNAL


class Unavailable(HeadraceError):
    """Nobody answers now, though the client tried again."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLoss(HeadraceError):
    """Stored data is broken."""

    code = grpc.StatusCode.DATA_LOSS


class Unauthenticated(HeadraceError):
    """The key is missing, wrong or expired."""

    code = grpc.StatusCode.UNAUTHENTICATED


ERRORS: Mapping[int, type[HeadraceError]] = {kind.code.value[0]: kind for kind in HeadraceError.__subclasses__()}
"""The one table: every code except OK (0) to its class."""


def from_status(status: Any) -> HeadraceError:
    """The error that a `google.rpc.Status` (not OK) describes."""
    return ERRORS.get(status.code, Unknown)(status.message, _details(status.details))


def from_rpc_error(error: grpc.RpcError) -> HeadraceError:
    """The error behind what a sync or asyncio call raised, with the rich details of its trailers if there are any."""
    rich = status_pb2.Status()
    # Plain pairs with asyncio, pairs with names in blocking calls; the published types know only the latter.
    trailers = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            _parse(rich, value)
    return ERRORS.get(error.code().value[0], Unknown)(error.details() or "", _details(rich.details))


def _parse(message: Message, data: bytes) -> None:
    """Fill the message; details that a proxy broke must not hide the status itself."""
    try:
        message.ParseFromString(data)
    except DecodeError:
        message.Clear()


def _details(packed: Iterable[Any]) -> Details:
    """Read the kinds of detail that the mesh sends; others are passed over."""
    info, request, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_after = None
    for detail in packed:
        for known in (info, request, retry):
            if detail.Is(known.DESCRIPTOR):
                _parse(known, detail.value)
        if detail.Is(retry.DESCRIPTOR):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    violations = tuple(FieldViolation(item.field, item.description) for item in request.field_violations)
    return Details(info.reason, info.domain, dict(info.metadata), violations, retry_after)
