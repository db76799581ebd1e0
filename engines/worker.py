"""The one thread that owns one engine: it warms it up, runs every batch and closes it."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final

import numpy as np

from engines.base import Array, Engine, EngineError, Tensors
from engines.preparing import Prepared, prepare
from engines.signatures import check_outputs, zeros
from engines.work import Work

logger = logging.getLogger(__name__)

_QUICK_SECONDS: Final = 50e-6
_TIMED_RUNS: Final = 5
_SLOW_SECONDS: Final = 1e-3
_SLOW_RUNS: Final = 8


@dataclass(slots=True)
class Ran:
    """What became of a batch: checked outputs, or an error. Monotonic seconds. `died`: the thread runs no more.

    `prepared`: what was computed, or would have been; nothing when no inputs could be made. `cost`: seconds of
    processor or device that the run took; it lasted longer where its thread waited for a core.
    """

    prepared: Prepared
    started: float
    ended: float
    outputs: dict[str, Array] = field(default_factory=dict)
    error: EngineError | None = None
    died: bool = False
    cost: float = 0.0


@dataclass(slots=True)
class _Job:
    works: Sequence[Work]
    done: Callable[[Ran], None]


class EngineWorker:
    """Runs batches of up to `max_rows` rows on `engine`, one at a time, for the event loop that called `start`.

    Inputs are made, where deferred, and joined here, in the thread; results are split by the receiver, outside it.
    `quick`: even the largest batch takes the engine less time than the hand-over to a thread and back would take the
    processor, and the engine may be called from any thread; then `run_here` is the way. `computes_in_caller`: the
    engine's own.
    """

    def __init__(self, engine: Engine, name: str, max_rows: int) -> None:
        self._engine = engine
        self._max_rows = max_rows
        self.quick = False
        self.computes_in_caller: bool = getattr(engine, "computes_in_caller", False)
        self._slow_runs = 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    async def start(self) -> None:
        """Start the thread and wait for the engine's warm-up. Raises EngineError."""
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._warm: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        await self._warm

    def run(self, works: Sequence[Work], done: Callable[[Ran], None]) -> None:
        """Hand over a batch; `done` is called once on the loop, whatever happens."""
        self._jobs.put(_Job(works, done))

    def run_here(self, works: Sequence[Work]) -> Ran:
        """Run a batch at once, in the calling thread, while none is handed over. Only while `quick`."""
        ran = self._compute(prepare(works))
        # Runs that prove slow after all would hold up the loop; a single one may be the system's doing.
        self._slow_runs = self._slow_runs + 1 if ran.ended - ran.started > _SLOW_SECONDS else 0
        if self._slow_runs >= _SLOW_RUNS:
            self.quick = False
        if ran.died:
            self._jobs.put(None)
        return ran

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
            if self._warmed_up():
                while (job := self._jobs.get()) is not None:
                    ran = self._measured(job)
                    self._post(job.done, ran)
                    if ran.died:
                        return
                    del job, ran  # A waiting worker holds no tensors.
        finally:
            self._close_engine()
            self._post(self._stopped.set)

    def _warmed_up(self) -> bool:
        try:
            self._engine.warm_up()
            self.quick = self._is_quick()
        except BaseException as error:  # noqa: BLE001 - the thread ends here; whoever awaits the start gets the reason.
            self._post(self._fail_start, error if isinstance(error, EngineError) else _unexpected(error))
            return False
        self._post(self._pass_start)
        return True

    def _is_quick(self) -> bool:
        signature = self._engine.signature
        sizes = [size for spec in signature.inputs for size in spec.shape[1 if signature.batchable else 0 :]]
        if not getattr(self._engine, "any_thread", False) or not all(isinstance(size, int) for size in sizes):
            return False
        return all(self._seconds(rows) < _QUICK_SECONDS for rows in (1, self._max_rows))

    def _seconds(self, rows: int) -> float:
        """Return the best time of a few runs of zeros."""
        batch = zeros(self._engine.signature, rows)
        best = math.inf
        for _ in range(_TIMED_RUNS):
            started = time.perf_counter()
            self._engine.run(batch)
            best = min(best, time.perf_counter() - started)
        return best

    def _pass_start(self) -> None:
        if not self._warm.done():
            self._warm.set_result(None)

    def _fail_start(self, error: EngineError) -> None:
        if not self._warm.done():
            self._warm.set_exception(error)

    def _measured(self, job: _Job) -> Ran:
        prepared = prepare(job.works)
        begun = time.thread_time()
        ran = self._compute(prepared)
        ran.cost = time.thread_time() - begun if self.computes_in_caller else ran.ended - ran.started
        return ran

    def _compute(self, batch: Prepared) -> Ran:
        started = time.monotonic()
        if not batch.inputs:
            return Ran(batch, started, started)
        try:
            outputs = self._engine.run(_joined(batch.inputs))
            check_outputs(self._engine.signature, outputs, batch.rows)
        except EngineError as error:
            return Ran(batch, started, time.monotonic(), error=error)
        except Exception as error:  # noqa: BLE001 - an engine is foreign code: whatever it raises fails this batch only.
            return Ran(batch, started, time.monotonic(), error=_unexpected(error))
        except BaseException as error:  # noqa: BLE001 - reported, then the thread ends as it was told to.
            return Ran(batch, started, time.monotonic(), error=_unexpected(error), died=True)
        return Ran(batch, started, time.monotonic(), outputs)

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
