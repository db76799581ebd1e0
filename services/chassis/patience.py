"""What becomes of work that finds a queue full: it is refused, or waits, where refusing would waste what is done."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from services.chassis.errors import ServiceError

Result = TypeVar("Result")

#: Seconds between two attempts.
_LEAST: Final = 0.005
_MOST: Final = 1.0


async def patiently(attempt: Callable[[], Awaitable[Result]], may_wait: Callable[[], bool]) -> Result:
    """What `attempt` gives; after QUEUE_FULL, when `may_wait`, it is made again as soon as the queue suggests.

    Raises ServiceError: any other, and QUEUE_FULL when it may not wait.
    """
    while True:
        try:
            return await attempt()
        except ServiceError as error:
            if error.reason != "QUEUE_FULL" or not may_wait():
                raise
            retry_after = int(error.metadata["retry_after_ms"]) / 1e3
        await asyncio.sleep(min(max(retry_after, _LEAST), _MOST))


class Siblings:
    """The works of one call: a full queue refuses it, unless others of its works are inside: then the rest wait."""

    def __init__(self) -> None:
        self._inside = 0

    async def run(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """What `attempt` gives. Raises ServiceError, see `patiently`."""

        async def counted() -> Result:
            self._inside += 1
            try:
                return await attempt()
            finally:
                self._inside -= 1

        return await patiently(counted, lambda: self._inside > 0)
