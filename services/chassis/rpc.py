"""A call's life, in one place: `_Unary.handle` and `_Stream.handle` read as its table of contents.

Handlers wrap servicer methods once, at registration; there are no interceptors, which cost more than all of this. They
take raw bytes, since grpc.aio answers UNKNOWN to bytes that its own deserializer refuses.

    unary     async def Method(self, request, call: Call) -> Response
    stream    def Method(self, requests: AsyncIterator, call: Call) -> AsyncIterator[Response]     (an async generator)
"""

import asyncio
import inspect
import logging
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from services.chassis import errors
from services.chassis.call import Call
from services.chassis.drain import Gate
from services.chassis.errors import ServiceError
from services.chassis.metrics import Metrics
from services.chassis.requests import Requests
from services.chassis.telemetry import Telemetry

#: Request header (over REST too) that sets the deadline of a unary call in seconds: "2.5", "2.5s" or "250ms".
TIMEOUT_HEADER: Final = "headrace-timeout"

_TIMEOUT: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(s|ms)?")

Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may ask for.

    `default_deadline` and `max_deadline` (seconds) bound unary calls. A stream lives as long as its caller wants; each
    of its items gets the default deadline (`Call.item_deadline`). `max_message_bytes`: size of one request message.
    """

    default_deadline: float = 30.0
    max_deadline: float = 300.0
    max_message_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Policy:
    """What every rpc of a process shares.

    `receipt_headers`: answer unary calls with the receipt as initial metadata, where the servicer recorded one.
    """

    limits: Limits = field(default_factory=Limits)
    receipt_headers: bool = True
    telemetry: Telemetry = field(default_factory=lambda: Telemetry("headrace", Metrics()))
    gate: Gate = field(default_factory=Gate)


def handlers(service: ServiceDescriptor, servicer: object, policy: Policy, *, name: str = "") -> grpc.GenericRpcHandler:
    """Wrap the methods of `service` that `servicer` has; the others are answered UNIMPLEMENTED.

    `name`: serve them under another full name than the service's own.
    """
    table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        behaviour = getattr(servicer, method.name, None)
        if behaviour is None:
            continue
        if method.client_streaming or method.server_streaming:
            stream = _Stream(method, behaviour, policy)
            table[method.name] = grpc.stream_stream_rpc_method_handler(stream.handle)
        else:
            unary = _Unary(method, behaviour, policy)
            table[method.name] = grpc.unary_unary_rpc_method_handler(unary.handle)
    return grpc.method_handlers_generic_handler(name or service.full_name, table)


class _Rpc:
    """What unary calls and streams have in common."""

    def __init__(self, method: MethodDescriptor, policy: Policy) -> None:
        self._method = f"{method.containing_service.full_name}/{method.name}"
        self._request_type: type[Message] = message_factory.GetMessageClass(method.input_type)
        self._parse_bytes = self._request_type.FromString
        self._receipt_headers = policy.receipt_headers
        self.gate = policy.gate
        self._telemetry = policy.telemetry
        self._limits = policy.limits

    def _open(self, context: Context) -> Call:
        """Read the call's headers, begin its trace and count it in."""
        call = Call(self._method, observer=self._telemetry.computed, item_timeout=self._limits.default_deadline)
        metadata = context.invocation_metadata()
        if metadata:
            call.metadata = headers = dict(metadata)
            traceparent = headers.get("traceparent")
            if isinstance(traceparent, str):
                call.trace = self._telemetry.begin(self._method, traceparent)
        self.gate.active += 1
        return call

    def parse(self, raw: bytes) -> Message:
        """The request message of these bytes. Raises ServiceError when they are too many, or no such message."""
        if len(raw) > self._limits.max_message_bytes:
            raise errors.message_too_large(len(raw), self._limits.max_message_bytes)
        try:
            return self._parse_bytes(raw)
        except DecodeError:
            raise errors.malformed_message(self._method, self._request_type.DESCRIPTOR.full_name) from None

    def _declared(self, call: Call, error: BaseException) -> ServiceError:
        """The error as the caller may know it. Undeclared ones go to the log."""
        if isinstance(error, ServiceError):
            return error
        if isinstance(error, asyncio.CancelledError):
            return errors.deadline_exceeded(self._method, call.deadline - call.started)
        trace_id = call.trace_id or new_trace_id()
        _log.error("%s failed", self._method, exc_info=error, extra={"trace_id": trace_id})
        return errors.internal(trace_id)

    async def _fail(self, call: Call, context: Context, error: BaseException) -> None:
        """End the call with `error`: a caller who has gone hears nothing, any other gets status and details."""
        if isinstance(error, grpc.aio.InternalError):
            # gRPC core could not send: the caller went while the answer was made.
            call.status = "CANCELLED"
            raise asyncio.CancelledError from None
        if isinstance(error, asyncio.CancelledError):
            if not call.expired:
                call.status = "CANCELLED"
                raise error
            if call.task is not None:
                call.task.uncancel()
        declared = self._declared(call, error)
        call.status, call.reason = declared.code.name, declared.reason
        self._telemetry.metrics.refused(declared.metadata.get("model", ""), declared.reason)
        try:
            await context.abort(declared.code, declared.message, declared.trailers())
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None

    def _close(self, call: Call) -> None:
        """Count the call out and write down how long it took and how it ended."""
        self.gate.leave()
        if call.timer is not None:
            call.timer.cancel()
        call.task = call.timer = None
        self._telemetry.metrics.call_ended(self._method, call.status, time.monotonic() - call.started)
        if call.trace is not None:
            self._telemetry.end(call)

    def _expire_at_deadline(self, call: Call, remaining: float) -> None:
        """Cancel the handler when its deadline passes: nobody else does for a caller that does not watch the clock."""
        call.task = asyncio.current_task()
        call.timer = asyncio.get_running_loop().call_later(max(remaining, 0.0), _expire, call)


def _expire(call: Call) -> None:
    if call.task is not None:
        call.expired = True
        call.task.cancel()


class _Unary(_Rpc):
    """One request, one response."""

    def __init__(
        self, method: MethodDescriptor, behaviour: Callable[[Any, Call], Awaitable[Message]], policy: Policy
    ) -> None:
        super().__init__(method, policy)
        self._behaviour = behaviour

    async def handle(self, raw: bytes, context: Context) -> bytes:
        """The life of a unary call."""
        call = self._open(context)
        try:
            self.gate.admit()
            self._set_deadline(call, context)
            request = self.parse(raw)
            response = await self._behaviour(request, call)
            answer = response.SerializeToString()
            if call.receipt is not None and self._receipt_headers:
                await context.send_initial_metadata(call.receipt.metadata())
            return answer
        except BaseException as error:
            await self._fail(call, context, error)
            raise
        finally:
            self._close(call)

    def _set_deadline(self, call: Call, context: Context) -> None:
        """The earliest of the caller's gRPC deadline, its header and the maximum; the default when it set neither."""
        remaining = context.time_remaining()
        header = call.metadata.get(TIMEOUT_HEADER)
        if remaining is None and header is None:
            remaining = self._limits.default_deadline
        else:
            asked = parse_timeout(header) if header is not None else math.inf
            remaining = min(self._limits.max_deadline, asked, math.inf if remaining is None else remaining)
        call.deadline = call.started + remaining
        self._expire_at_deadline(call, remaining)


class _Stream(_Rpc):
    """Requests in, responses out, in an order that the servicer decides."""

    def __init__(
        self,
        method: MethodDescriptor,
        behaviour: Callable[[AsyncIterator[Any], Call], AsyncIterator[Message]],
        policy: Policy,
    ) -> None:
        super().__init__(method, policy)
        if not inspect.isasyncgenfunction(behaviour):
            raise TypeError(f"{self._method}: a streaming method is an async generator")
        self._behaviour = behaviour

    async def handle(self, _requests: object, context: Context) -> None:
        """The life of a stream."""
        call = self._open(context)
        try:
            self.gate.admit()
            remaining = context.time_remaining()
            if remaining is not None:
                call.deadline = call.started + remaining
                self._expire_at_deadline(call, remaining)
            requests = Requests(context, self.parse, self.gate)
            responses = self._behaviour(requests, call)
            try:
                async for response in responses:
                    await context.write(response.SerializeToString())
            finally:
                requests.close()
                await responses.aclose()
            if requests.interrupted:
                raise errors.draining()
            if call.receipt is not None:
                context.set_trailing_metadata(call.receipt.metadata())
        except BaseException as error:
            await self._fail(call, context, error)
            raise
        finally:
            self._close(call)


class UnknownMethods(grpc.GenericRpcHandler):
    """Answers what no other handler knows; add it last."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """A handler that refuses without reading a request, so that it suits unary calls and streams."""
        error = errors.unknown_method(handler_call_details.method)

        async def refuse(_requests: object, context: Context) -> None:
            await context.abort(error.code, error.message, error.trailers())

        return grpc.stream_stream_rpc_method_handler(refuse)


def parse_timeout(text: str | bytes) -> float:
    """Seconds of a `headrace-timeout` header. Raises ServiceError INVALID_ARGUMENT."""
    match = _TIMEOUT.fullmatch(text) if isinstance(text, str) else None
    seconds = float(match[1]) * (1e-3 if match[2] == "ms" else 1.0) if match else 0.0
    if seconds <= 0.0:
        raise errors.invalid_argument(
            TIMEOUT_HEADER, f"is {errors.quote(str(text))}, must be a time above 0 such as '2.5s' or '250ms'"
        )
    return seconds


def new_trace_id() -> str:
    """32 random hex digits, for an error of a caller without trace context."""
    return secrets.token_hex(16)
