"""How one version of a model comes to serve, and how it leaves: both without its callers noticing."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from engines.base import EngineError, EngineLoadError
from engines.batcher import Batcher
from engines.repository import Entry, LoadedEngines, NoSuchVersion
from engines.strict_toml import ConfigError
from engines.work import BatchReport
from services.chassis import memory
from services.chassis.model_table import LoadedModel
from services.chassis.tensors import TensorCodec

logger = logging.getLogger(__name__)

#: (model, version) -> what is told of each engine run.
ObserverFactory = Callable[[str, str], Callable[[BatchReport], None]]
#: Seconds that calls may go on using a version that has been replaced; no unary call lives longer by default.
_HOLD_SECONDS: Final = 300.0
_HOLD_POLL: Final = 0.02
#: What opening a network takes at its peak: the file and the engine's own copy of the weights.
_MEMORY_FOR_A_BYTE: Final = 2


class Loader:
    """Opens and warms up versions, one at a time, in a thread of its own. Belongs to one event loop."""

    def __init__(self, cores: int, observer: ObserverFactory | None) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="model-loader")
        self._cores = cores
        self._observer = observer

    async def load(self, entry: Entry, model: LoadedModel, *, beside: bool = False) -> bool:
        """Make `model` READY, or UNAVAILABLE with the reason; return which.

        `beside`: others serve already, so rather than have the process killed for want of memory it is refused.
        """
        try:
            if beside:
                _check_memory(model)
            await self._load(entry, model)
        except (ConfigError, EngineLoadError, EngineError, NoSuchVersion) as error:
            give_up(model, str(error))
        except Exception:
            logger.exception("loading model %s@%s failed", model.name, model.version)
            give_up(model, "loading failed unexpectedly; the log of the service says why")
        return model.state == "READY"

    def close(self) -> None:
        """Load nothing more. Idempotent."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def _load(self, entry: Entry, model: LoadedModel) -> None:
        """Open and warm up one version; both happen in other threads."""
        begun, loop = time.monotonic(), asyncio.get_running_loop()
        opened = loop.run_in_executor(self.pool, entry.load, model.version, self._cores)
        try:
            parts = await asyncio.shield(opened)
        except asyncio.CancelledError:
            # The thread goes on; what it opens after the end is given back by nobody but us.
            opened.add_done_callback(_discard)
            raise
        assert entry.manifest is not None  # noqa: S101  # Entries without one are never loaded.
        watch = self._observer(model.name, model.version) if self._observer is not None else None

        def ran(report: BatchReport) -> None:
            model.stats.ran(report)
            if watch is not None:
                watch(report)

        batcher = Batcher(parts.engines, entry.manifest.limits, ran)
        try:
            await batcher.start()
        except asyncio.CancelledError:
            await batcher.close()
            raise
        model.signature, model.labels, model.engines = parts.signature, parts.labels, len(parts.engines)
        model.backend, model.folder, model.batcher = parts.backend, entry.folder, batcher
        model.codec = TensorCodec(parts.signature)
        model.state, model.reason = "READY", ""
        seconds = time.monotonic() - begun
        message = "model %s@%s serves with %d engines of %s (%s) after %.2f s"
        logger.info(message, model.name, model.version, model.engines, parts.backend, parts.reason, seconds)


class Departures:
    """Versions that take no new calls and still answer those in flight. Belongs to one event loop."""

    def __init__(self) -> None:
        self._leaving: dict[asyncio.Task[None], LoadedModel] = {}

    def begin(self, model: LoadedModel, reason: str) -> "asyncio.Task[None]":
        """Let the calls that use `model` end, then give its engines back; afterwards it is UNAVAILABLE for `reason`."""
        model.state, model.reason = "UNLOADING", reason
        task = asyncio.create_task(_leave(model))
        self._leaving[task] = model
        task.add_done_callback(lambda done: self._leaving.pop(done, None))
        return task

    async def close(self) -> None:
        """Wait for nobody any more."""
        tasks, models = list(self._leaving), list(self._leaving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(model.batcher.close() for model in models if model.batcher is not None))


def give_up(model: LoadedModel, reason: str) -> None:
    """Note that a version does not serve, and why."""
    model.state, model.reason = "UNAVAILABLE", reason
    logger.error("model %s@%s is not served: %s", model.name, model.version, reason)


def _check_memory(model: LoadedModel) -> None:
    """Raise EngineLoadError where a version would not fit into what is left."""
    weights = sum(size for name, size, _, _ in model.files if "/" in name)
    needed, left = weights * _MEMORY_FOR_A_BYTE, memory.available()
    if needed > left:
        raise EngineLoadError(
            f"it needs about {needed / 1e6:.0f} MB of memory and {left / 1e6:.0f} MB are left; "
            f"unload a version that nobody calls, then load it"
        )


async def _leave(model: LoadedModel) -> None:
    batcher, until = model.batcher, time.monotonic() + _HOLD_SECONDS
    if batcher is not None:
        # A call that has resolved the version has perhaps not submitted its work yet.
        while model.held and time.monotonic() < until:  # noqa: ASYNC110  # An event would cost every call.
            await asyncio.sleep(_HOLD_POLL)
        await batcher.drain()
        model.batcher = None
        await batcher.close()
    model.state = "UNAVAILABLE"
    logger.info("model %s@%s has left: %s", model.name, model.version, model.reason)


def _discard(opened: "asyncio.Future[LoadedEngines]") -> None:
    if not opened.cancelled() and opened.exception() is None:
        for engine in opened.result().engines:
            engine.close()
