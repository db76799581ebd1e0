"""The one thread that owns one engine: it warms it up, runs every batch and closes it."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np

from engines.base import Array, Engine, EngineError, Tensors
from engines.signatures import check_outputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a batch: checked outputs, or an error. Monotonic seconds. `died`: the thread runs no more."""

    started: float
    ended: float
    outputs: dict[str, Array] = field(default_factory=dict)
    error: EngineError | None = None
    died: bool = False


@dataclass(frozen=True, slots=True)
class _Job:
    members: Sequence[Tensors]
    rows: int
    done: Callable[[Ran], None]


class EngineWorker:
    """Runs batches on `engine`, one at a time, and calls back on the event loop that called `start`.

    Inputs are joined here, in the thread; results are split by the receiver, outside it.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    async def start(self) -> None:
        """Start the thread and wait for the engine's warm-up. Raises EngineError."""
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._warm: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        await self._warm

    def run(self, members: Sequence[Tensors], rows: int, done: Callable[[Ran], None]) -> None:
        """Hand over a batch of `rows` rows in all; `done` is called once on the loop, whatever happens."""
        self._jobs.put(_Job(members, rows, done))

    async def close(self, grace: float) -> bool:
        """Close the engine after the current run; False when that takes longer than `grace` seconds.

        The thread is a daemon: an engine that never returns cannot keep the process alive.
        """
        if self._thread.ident is None:
            self._engine.close()
            return True
        self._jobs.put(None)
        try:
            async with asyncio.timeout(grace):
                await self._stopped.wait()
        except TimeoutError:
            return False
        self._thread.join()
        return True

    def _serve(self) -> None:
        try:
            if self._warm_up():
                while (job := self._jobs.get()) is not None:
                    ran = self._compute(job)
                    self._post(job.done, ran)
                    if ran.died:
                        return
                    del job, ran  # A waiting worker holds no tensors.
        finally:
            self._close_engine()
            self._post(self._stopped.set)

    def _warm_up(self) -> bool:
        try:
            self._engine.warm_up()
        except BaseException as error:  # noqa: BLE001 - the thread ends here; whoever awaits the start gets the reason.
            self._post(self._fail_start, error if isinstance(error, EngineError) else _unexpected(error))
            return False
        self._post(self._pass_start)
        return True

    def _pass_start(self) -> None:
        if not self._warm.done():
            self._warm.set_result(None)

    def _fail_start(self, error: EngineError) -> None:
        if not self._warm.done():
            self._warm.set_exception(error)

    def _compute(self, job: _Job) -> Ran:
        started = time.monotonic()
        try:
            outputs = self._engine.run(_joined(job.members))
            check_outputs(self._engine.signature, outputs, job.rows)
        except EngineError as error:
            return Ran(started, time.monotonic(), error=error)
        except Exception as error:  # noqa: BLE001 - an engine is foreign code: whatever it raises fails this batch only.
            return Ran(started, time.monotonic(), error=_unexpected(error))
        except BaseException as error:  # noqa: BLE001 - reported, then the thread ends as it was told to.
            return Ran(started, time.monotonic(), error=_unexpected(error), died=True)
        return Ran(started, time.monotonic(), outputs)

    def _close_engine(self) -> None:
        try:
            self._engine.close()
        except Exception:
            logger.exception("closing the engine of %s failed", self._thread.name)

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop has been closed: nobody is left to tell.
            logger.debug("the event loop of %s has gone", self._thread.name)


def _joined(members: Sequence[Tensors]) -> Tensors:
    if len(members) == 1:
        return members[0]
    return {name: np.concatenate([member[name] for member in members]) for name in members[0]}


def _unexpected(error: BaseException) -> EngineError:
    wrapped = EngineError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
