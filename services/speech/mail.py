"""The protocol of a live stream: its requests in their order, and how many streams there may be."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

from headrace.speech.v1 import speech_pb2 as pb
from services.chassis import errors

#: Seconds after which a caller who met the limit of streams may try again.
_RETRY_AFTER: Final = 5.0


class Streams:
    """How many streams are open, and may be. `idle_seconds`: for which one may carry nothing."""

    def __init__(self, limit: int, idle_seconds: float = 60.0) -> None:
        self._limit = limit
        self.idle_seconds = idle_seconds
        self.open = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Have one open within the block. Raises ServiceError TOO_MANY_STREAMS."""
        if self.open >= self._limit:
            raise errors.too_many_streams(self._limit, _RETRY_AFTER)
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class Mail:
    """A stream's requests as the protocol orders them: the configuration once, then audio."""

    def __init__(self, requests: AsyncIterator[pb.StreamingRecognizeRequest], idle_seconds: float) -> None:
        self._requests = requests
        self._idle = idle_seconds

    async def config(self) -> pb.StreamingConfig:
        """The first message. Raises ServiceError when it is not the configuration or does not come."""
        request = await self._next()
        if request is None:
            raise errors.invalid_argument("config", "is missing: the stream ended before it; send it first")
        kind = request.WhichOneof("request")
        if kind != "config":
            was = "audio" if kind == "audio" else "nothing"
            raise errors.invalid_argument("config", f"is missing: the first message holds {was}; send it first, once")
        return request.config

    async def audio(self) -> bytes | None:
        """The bytes of the next message; None at the end. Raises ServiceError for anything but audio."""
        request = await self._next()
        if request is None:
            return None
        kind = request.WhichOneof("request")
        if kind == "config":
            raise errors.invalid_argument("config", "came again; it is sent once, first: open a stream for another one")
        if kind is None:
            raise errors.invalid_argument("request", "is empty; every message after the configuration holds audio")
        return request.audio

    async def _next(self) -> pb.StreamingRecognizeRequest | None:
        try:
            async with asyncio.timeout(self._idle):
                return await anext(self._requests, None)
        except TimeoutError:
            raise errors.idle_timeout(self._idle) from None
