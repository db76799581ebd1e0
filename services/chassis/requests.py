"""What a servicer reads from a stream."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from services.chassis.drain import Gate


class Requests:
    """The request messages of a stream, parsed; ends early when the process drains (`interrupted`)."""

    def __init__(
        self, context: "grpc.aio.ServicerContext[Any, Any]", parse: Callable[[bytes], Message], gate: Gate
    ) -> None:
        self._context, self._parse, self._gate = context, parse, gate
        self._reader: asyncio.Task[Any] | None = None
        self.interrupted = False
        gate.on_close(self._interrupt)

    def __aiter__(self) -> "Requests":
        return self

    async def __anext__(self) -> Message:
        if self.interrupted:
            raise StopAsyncIteration
        self._reader = asyncio.current_task()
        try:
            raw = await self._context.read()
        except asyncio.CancelledError:
            # Drained while waiting; a caller who went away at the same moment has cancelled the task as well.
            if not self.interrupted or self._reader is None or self._reader.uncancel() > 0:
                raise
            raise StopAsyncIteration from None
        finally:
            self._reader = None
        if raw is grpc.aio.EOF:
            self.close()  # A caller who has said everything is not interrupted.
            raise StopAsyncIteration
        return self._parse(raw)

    def _interrupt(self) -> None:
        self.interrupted = True
        if self._reader is not None:
            self._reader.cancel()

    def close(self) -> None:
        """Forget the drain."""
        self._gate.forget(self._interrupt)
