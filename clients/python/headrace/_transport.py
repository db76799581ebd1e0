"""Channels and calls: the only module where the blocking and the asyncio client differ."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from headrace._errors import from_rpc_error
from headrace._results import Receipt

DEFAULT_TARGET = "127.0.0.1:8080"
DEFAULT_TIMEOUT = 30.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The gateway's own default cap of one message."""

RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Four attempts at most while few calls fail; none any more once half of them do.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}

Response = TypeVar("Response", bound=Message)
Response_co = TypeVar("Response_co", bound=Message, covariant=True)
Result = TypeVar("Result")


class Parsable(Protocol[Response_co]):
    """The class of a message, as a parser of it."""

    def FromString(self, s: bytes, /) -> Response_co:  # noqa: N802 - protobuf's name
        """Parse one message."""


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Response, Result]):
    """One method of the API: its path, its response's class, and how a response becomes the typed result."""

    path: str
    response: Parsable[Response]
    parse: Callable[[Response, Receipt | None], Result]


@dataclass(frozen=True, slots=True)
class StreamRpc(Generic[Response, Result]):
    """One method of the API that takes and gives streams; `parse` makes the typed result of each response."""

    path: str
    response: Parsable[Response]
    parse: Callable[[Response], Result]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What may differ from call to call: the time allowed, seconds, and metadata such as `traceparent`."""

    timeout: float | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a client connects to and with what; the arguments of both clients.

    Raises:
        ValueError: the target is a URL, or a number is not positive.
    """

    target: str
    api_key: str | None
    timeout: float
    credentials: grpc.ChannelCredentials | None
    max_message_bytes: int

    def __post_init__(self) -> None:
        if not self.target or "//" in self.target:
            raise ValueError(f'target: {self.target!r} is not an address, write "host:port" without a scheme')
        _positive("timeout", self.timeout)
        _positive("max_message_bytes", self.max_message_bytes)

    def arguments(self) -> list[tuple[str, Any]]:
        """The channel arguments of gRPC."""
        return [
            ("grpc.service_config", json.dumps(RETRIES)),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            # A request larger than this buffer (256 KiB by default) would not be tried again.
            ("grpc.per_rpc_retry_buffer_size", self.max_message_bytes),
            # A dead peer is noticed within 80 s; pings without calls would make strict servers hang up.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # By default a channel may wait up to 2 minutes before it looks for a restarted gateway.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]

    def timeout_for(self, options: CallOptions) -> float:
        """Seconds that a call may take."""
        if options.timeout is None:
            return self.timeout
        return _positive("timeout", options.timeout)

    def metadata_for(self, options: CallOptions) -> tuple[tuple[str, str], ...]:
        """The metadata of a call, the key included; the caller's own entries win."""
        entries = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        entries |= {key.lower(): value for key, value in (options.metadata or {}).items()}
        return tuple(entries.items())


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name}: {value!r} is not a positive number")
    return value


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


class Caller:
    """Makes blocking calls over one channel; safe to share between threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        arguments, credentials = connection.arguments(), connection.credentials
        if credentials is None:
            self._channel = grpc.insecure_channel(connection.target, arguments)
        else:
            self._channel = grpc.secure_channel(connection.target, credentials, arguments)

    def unary(self, rpc: Rpc[Response, Result], request: Message, options: CallOptions) -> Result:
        """Call once; raises HeadraceError."""
        method = self._channel.unary_unary(rpc.path, _serialize, rpc.response.FromString)
        timeout, metadata = self._connection.timeout_for(options), self._connection.metadata_for(options)
        try:
            response, call = method.with_call(request, timeout, metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return rpc.parse(response, Receipt.from_metadata(call.initial_metadata() or ()))

    def stream(
        self, rpc: StreamRpc[Response, Result], requests: Iterator[Message], options: CallOptions
    ) -> "Responses[Result]":
        """Open a stream, without a deadline unless the options name one. `requests` are taken in another thread."""
        method = self._channel.stream_stream(rpc.path, _serialize, rpc.response.FromString)
        call = method(requests, timeout=options.timeout, metadata=self._connection.metadata_for(options))
        return Responses(call, rpc.parse)

    def close(self) -> None:
        """Close the channel; calls in flight end CANCELLED."""
        self._channel.close()


class AsyncCaller:
    """Makes asyncio calls over one channel, which belongs to the event loop of the first call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opened: grpc.aio.Channel | None = None

    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            # Not in the constructor: a client may be made before its event loop runs.
            arguments, credentials = self._connection.arguments(), self._connection.credentials
            if credentials is None:
                self._opened = grpc.aio.insecure_channel(self._connection.target, arguments)
            else:
                self._opened = grpc.aio.secure_channel(self._connection.target, credentials, arguments)
        return self._opened

    async def unary(self, rpc: Rpc[Response, Result], request: Message, options: CallOptions) -> Result:
        """Call once; raises HeadraceError. Cancelling the task cancels the call."""
        method = self._channel().unary_unary(rpc.path, _serialize, rpc.response.FromString)
        timeout, metadata = self._connection.timeout_for(options), self._connection.metadata_for(options)
        call = method(request, timeout=timeout, metadata=metadata)
        try:
            response = await call
            initial = await call.initial_metadata()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return rpc.parse(response, Receipt.from_metadata(initial))

    def stream(
        self, rpc: StreamRpc[Response, Result], requests: AsyncIterator[Message], options: CallOptions
    ) -> "AsyncResponses[Result]":
        """Open a stream, without a deadline unless the options name one."""
        method = self._channel().stream_stream(rpc.path, _serialize, rpc.response.FromString)
        call = method(requests, timeout=options.timeout, metadata=self._connection.metadata_for(options))
        return AsyncResponses(call, rpc.parse)

    async def close(self) -> None:
        """Close the channel; calls in flight end CANCELLED."""
        if self._opened is not None:
            await self._opened.close()


class Responses(Iterator[Result], Generic[Result]):
    """The answers of a stream, as they come; `receipt` is there after the last one. Raises HeadraceError."""

    def __init__(self, call: Any, parse: Callable[[Any], Result]) -> None:
        self._call, self._parse = call, parse
        self.receipt: Receipt | None = None

    def __next__(self) -> Result:
        try:
            return self._parse(next(self._call))
        except StopIteration:
            self.receipt = Receipt.from_metadata(self._call.trailing_metadata() or ())
            raise
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def cancel(self) -> None:
        """End the stream now; nothing more is to come."""
        self._call.cancel()


class AsyncResponses(AsyncIterator[Result], Generic[Result]):
    """The answers of a stream, as they come; `receipt` is there after the last one. Raises HeadraceError."""

    def __init__(self, call: Any, parse: Callable[[Any], Result]) -> None:
        self._call, self._parse = call, parse
        self.receipt: Receipt | None = None

    async def __anext__(self) -> Result:
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        if response is grpc.aio.EOF:
            self.receipt = Receipt.from_metadata(await self._call.trailing_metadata())
            raise StopAsyncIteration
        return self._parse(response)

    def cancel(self) -> None:
        """End the stream now; nothing more is to come."""
        self._call.cancel()
