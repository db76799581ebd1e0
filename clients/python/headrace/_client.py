"""The two clients: the same calls, blocking and for asyncio."""

from types import TracebackType
from typing import Self

import grpc

from headrace._models import AsyncModels, Models
from headrace._nlp import AsyncNlp, Nlp
from headrace._recommendation import AsyncRecommendation, Recommendation
from headrace._speech import AsyncSpeech, Speech
from headrace._transport import DEFAULT_TARGET, DEFAULT_TIMEOUT, MAX_MESSAGE_BYTES, AsyncCaller, Caller, Connection
from headrace._vision import AsyncVision, Vision


class Client:
    """A mesh, called from ordinary code. Make one and keep it: its channel is reused and shared between threads.

    `target`: the gateway's address, "host:port" or "unix:/path". `api_key`: sent as a bearer token. `timeout`: seconds
    allowed to a call that names none; retries count. `credentials`: for TLS, from `grpc.ssl_channel_credentials`.
    `max_message_bytes`: largest request and response; the gateway's cap is 16 MiB by default.

    A call that ends UNAVAILABLE is tried up to 4 times, with growing pauses or the pause that the server asks for.
    No other error is tried again.

    Raises:
        ValueError: `target` is a URL, or a number is not positive.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._caller = Caller(Connection(target, api_key, timeout, credentials, max_message_bytes))
        self.vision = Vision(self._caller)
        self.speech = Speech(self._caller)
        self.nlp = Nlp(self._caller)
        self.recommendation = Recommendation(self._caller)
        self.models = Models(self._caller)

    def close(self) -> None:
        """Close the channel; calls in flight end."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """A mesh, called from asyncio. Make one for each event loop and keep it; the arguments are those of `Client`."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._caller = AsyncCaller(Connection(target, api_key, timeout, credentials, max_message_bytes))
        self.vision = AsyncVision(self._caller)
        self.speech = AsyncSpeech(self._caller)
        self.nlp = AsyncNlp(self._caller)
        self.recommendation = AsyncRecommendation(self._caller)
        self.models = AsyncModels(self._caller)

    async def close(self) -> None:
        """Close the channel; calls in flight end."""
        await self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
