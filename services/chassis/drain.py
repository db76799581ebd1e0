"""The door of a process: how many calls are inside, and whether new ones may enter."""

import asyncio
import time
from collections.abc import Callable

from services.chassis import errors


class Gate:
    """Counts the calls in progress. Belongs to one event loop.

    `active`: calls between `_open` and `_close` of rpc.py. After `close()` new calls are refused, and streams are told
    by their callbacks to take no more requests.
    """

    def __init__(self) -> None:
        self.active = 0
        self.closed = False
        self._refused = 0.0
        self._empty: asyncio.Event | None = None
        self._interrupts: set[Callable[[], None]] = set()

    def admit(self) -> None:
        """Raise the DRAINING error when the process is shutting down."""
        if self.closed:
            self._refused = time.monotonic()
            raise errors.draining()

    def leave(self) -> None:
        """Count a call out."""
        self.active -= 1
        if self._empty is not None and self.active == 0:
            self._empty.set()

    @property
    def waiting_streams(self) -> int:
        """Streams that take more requests."""
        return len(self._interrupts)

    def on_close(self, interrupt: Callable[[], None]) -> None:
        """Call `interrupt` once when the gate closes."""
        self._interrupts.add(interrupt)

    def forget(self, interrupt: Callable[[], None]) -> None:
        """Take back `on_close`."""
        self._interrupts.discard(interrupt)

    def close(self) -> None:
        """Refuse new calls from now on. Idempotent."""
        self.closed = True
        self._refused = time.monotonic()
        interrupts, self._interrupts = self._interrupts, set()
        for interrupt in interrupts:
            interrupt()

    async def emptied(self, within: float) -> bool:
        """Wait until no call is inside, at most `within` seconds; False when some still are."""
        if self.active == 0:
            return True
        self._empty = asyncio.Event()
        try:
            await asyncio.wait_for(self._empty.wait(), within)
        except TimeoutError:
            return False
        return True

    async def quiet(self, gap: float, within: float) -> None:
        """Wait until nobody has been refused for `gap` seconds, at most `within` seconds."""
        ends = time.monotonic() + within
        while (now := time.monotonic()) < min(self._refused + gap, ends):  # noqa: ASYNC110  # No event: time has to pass.
            await asyncio.sleep(min(self._refused + gap, ends) - now)
