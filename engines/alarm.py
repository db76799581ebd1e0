"""One timer for the earliest of many deadlines."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

#: Seconds by which it may ring late: a timer for each deadline would cost more than the work it watches over.
_GRAIN: Final = 0.005


class Alarm:
    """Calls `ring` on the loop when the earliest deadline noted has passed; `ring` then calls `reset`."""

    __slots__ = ("_at", "_ring", "_timer")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf

    def note(self, deadline: float, now: float) -> None:
        """Ring for this deadline too. Both in monotonic seconds."""
        if deadline < self._at - _GRAIN:
            self.reset(deadline, now)

    def reset(self, deadline: float = math.inf, now: float = 0.0) -> None:
        """Forget all that was noted but this deadline; infinity: ring no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._at = deadline
        if deadline < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - now), self._ring)
