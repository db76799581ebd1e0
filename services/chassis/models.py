"""The models of one process: loaded behind serving, found by name, and run with errors that callers understand.

Models may come while the process serves: a folder that appears in the repository is loaded within a second or so, and
one that could not be loaded is tried again when its files change. What serves is never replaced or taken away.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from engines.base import EngineError, EngineLoadError
from engines.batcher import Batcher
from engines.repository import Entry, LoadedEngines, NoSuchVersion, Repository
from engines.strict_toml import ConfigError
from engines.work import (
    BatcherClosed,
    BatcherError,
    BatchReport,
    DeadlineExpired,
    EnginesLost,
    ItemFailed,
    Outcome,
    QueueFull,
    Work,
)
from services.chassis import errors, model_folders
from services.chassis.errors import ServiceError
from services.chassis.model_folders import Fingerprint
from services.chassis.model_table import LOADING, LoadedModel, ModelTable, State
from services.chassis.tensors import TensorCodec

__all__ = ["HostOptions", "LoadedModel", "ModelHost", "ObserverFactory", "State"]

logger = logging.getLogger(__name__)

#: (model, version) -> what is told of each engine run.
ObserverFactory = Callable[[str, str], Callable[[BatchReport], None]]
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class HostOptions:
    """Which models a process serves and how.

    `service`: the service whose models these are. `models`: their names, () = all of the service. `cores`: what engines
    may use when a manifest leaves their number open. `defaults`: task or role -> model for calls that name none.
    `awaited`: models that are fetched into the repository while the process runs.
    """

    service: str
    models: tuple[str, ...] = ()
    cores: int = 1
    defaults: Mapping[str, str] = field(default_factory=dict)
    awaited: frozenset[str] = frozenset()


class ModelHost:
    """Loads the models of a service in the background and runs work on them. Belongs to one event loop."""

    def __init__(self, repository: Repository, options: HostOptions, observer: ObserverFactory | None = None) -> None:
        self._repository = repository
        self._options = options
        self._observer = observer
        self._table = ModelTable(options.defaults, lambda name: name in options.awaited and name not in self._seen)
        self._seen: frozenset[str] = frozenset()
        self._fingerprints: dict[str, Fingerprint] = {}
        self._arrived: Callable[[LoadedModel], None] = lambda _model: None
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="model-loader")

    async def start(self, arrived: Callable[[LoadedModel], None] | None = None) -> None:
        """List the models and begin to load them, small ones first; then look for new ones until `close`.

        `arrived` is told of each model that begins to serve. Raises ConfigError: no such repository.
        """
        if arrived is not None:
            self._arrived = arrived
        path = self._repository.path
        self._seen = await asyncio.to_thread(model_folders.names, path)
        entries = await self._scan(self._seen)
        known = {entry.name for entry in entries}
        entries += [_missing(self._repository, name) for name in self._options.models if name not in known]
        queue = self._take(entries)
        self._task = asyncio.create_task(self._run(queue))

    async def loaded(self) -> None:
        """Wait until every model that was there at the start has been loaded or given up."""
        if self._task is not None:
            await self._settled.wait()

    @property
    def settled(self) -> bool:
        """True when every model that was there at the start has been loaded or given up."""
        return self._settled.is_set()

    def index(self) -> list[LoadedModel]:
        """Every version of every model, by name."""
        return self._table.index()

    def resolve(self, model: str, task: str, role: str = "") -> LoadedModel:
        """The model called "name" or "name@version", "" being the default for `role`, else for `task`; it is READY.

        Raises ServiceError: NOT_FOUND, UNAVAILABLE (loading, broken or still to be fetched), INVALID_ARGUMENT (no
        default, or not its task).
        """
        return self._table.resolve(model, task, role)

    def serves(self, model: str) -> bool:
        """True when the model called "name" or "name@version" is one of this process, in whatever state."""
        return not model or model.partition("@")[0] in self._table

    def find(self, name: str, version: str) -> list[LoadedModel]:
        """The version of a model in whatever state, or all its versions ("", highest last). Raises NOT_FOUND."""
        return self._table.find(name, version)

    async def infer(self, model: LoadedModel, work: Work) -> Outcome:
        """Run `work`; every way in which that fails becomes a ServiceError."""
        batcher, started = model.batcher, time.monotonic()
        if batcher is None:
            raise errors.model_unavailable(model.name, model.reason or LOADING)
        try:
            outcome = await batcher.submit(work)
        except BatcherError as error:
            model.stats.fail.add(time.monotonic() - started)
            if isinstance(error, EnginesLost) and model.state == "READY":
                _give_up(model, "its engines have stopped; the service must be restarted")
            raise _translated(error, model, work, started) from error
        model.stats.answered(outcome)
        return outcome

    async def drain(self) -> None:
        """Wait until no model has work queued or running."""
        await asyncio.gather(*(model.batcher.drain() for model in self.index() if model.batcher is not None))

    async def close(self) -> None:
        """Stop loading, fail what waits and give the engines back. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(model.batcher.close() for model in self.index() if model.batcher is not None))
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, queue: list[tuple[Entry, LoadedModel]]) -> None:
        try:
            await self._load_all(queue)
        finally:
            self._settled.set()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._load_all(await self._look())
            except ConfigError as error:
                logger.warning("the repository cannot be read: %s", error)

    async def _look(self) -> list[tuple[Entry, LoadedModel]]:
        """What to load now: folders that have appeared, and those of broken models whose files have changed."""
        path = self._repository.path
        seen = await asyncio.to_thread(model_folders.names, path)
        fresh, self._seen = seen - self._seen, seen
        models = self.index()
        broken = {model.name for model in models} - {model.name for model in models if model.state != "UNAVAILABLE"}
        for name in broken - seen - set(self._options.models):
            await self._forget(name)
        prints = await asyncio.to_thread(model_folders.fingerprints, path, broken & seen)
        fresh |= {name for name, found in prints.items() if found != self._fingerprints.get(name)}
        return self._take(await self._scan(fresh)) if fresh else []

    async def _scan(self, names: Iterable[str]) -> list[Entry]:
        """The entries of these folders that belong to this service, with their files' state before they were read."""
        chosen, options = set(names), self._options
        self._fingerprints |= await asyncio.to_thread(model_folders.fingerprints, self._repository.path, chosen)
        entries = await asyncio.get_running_loop().run_in_executor(self._pool, self._repository.scan)
        for entry in entries:
            if entry.name in chosen and entry.name in self._table:
                await self._forget(entry.name)
        wanted = set(options.models) & chosen if options.models else chosen
        return [
            entry
            for entry in entries
            # One without a manifest could be anyone's.
            if entry.name in wanted and (entry.manifest is None or entry.manifest.service == options.service)
        ]

    async def _forget(self, name: str) -> None:
        models = self._table.versions(name)
        self._table.drop(name)
        await asyncio.gather(*(model.batcher.close() for model in models if model.batcher is not None))

    def _take(self, entries: Iterable[Entry]) -> list[tuple[Entry, LoadedModel]]:
        """Put the entries into the table; return what is to be loaded, small ones first, so that most serve soon."""
        queue: list[tuple[Entry, LoadedModel]] = []
        for entry in entries:
            if entry.error is not None:
                logger.error("model %s is not served: %s", entry.name, entry.error)
            queue.extend((entry, model) for model in self._table.put(entry))
        return sorted(queue, key=lambda pair: self._bytes(pair[1].name))

    def _bytes(self, name: str) -> int:
        return sum(size for _, size, _, _ in self._fingerprints.get(name, ()))

    async def _load_all(self, queue: list[tuple[Entry, LoadedModel]]) -> None:
        for entry, model in queue:
            try:
                await self._load(entry, model)
            except (ConfigError, EngineLoadError, EngineError, NoSuchVersion) as error:
                _give_up(model, str(error))
            except Exception:
                logger.exception("loading model %s@%s failed", model.name, model.version)
                _give_up(model, "loading failed unexpectedly; the log of the service says why")
            else:
                self._arrived(model)

    async def _load(self, entry: Entry, model: LoadedModel) -> None:
        """Open and warm up one version; both happen in other threads."""
        begun, loop = time.monotonic(), asyncio.get_running_loop()
        opened = loop.run_in_executor(self._pool, entry.load, model.version, self._options.cores)
        try:
            parts = await asyncio.shield(opened)
        except asyncio.CancelledError:
            # The thread goes on; what it opens after the end is given back by nobody but us.
            opened.add_done_callback(_discard)
            raise
        assert entry.manifest is not None  # noqa: S101  # Entries without one are never queued.
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


def _missing(repository: Repository, name: str) -> Entry:
    error = ConfigError(repository.path, name, "there is no such model", "pull it or drop it from models")
    return Entry(name, repository.path / name, None, (), error)


def _give_up(model: LoadedModel, reason: str) -> None:
    model.state, model.reason = "UNAVAILABLE", reason
    logger.error("model %s@%s is not served: %s", model.name, model.version, reason)


def _translated(error: BatcherError, model: LoadedModel, work: Work, started: float) -> ServiceError:
    """The one table from the batcher's errors to the callers'."""
    match error:
        case QueueFull():
            return errors.queue_full(model.name, error.retry_after)
        case DeadlineExpired():
            return errors.deadline_exceeded(f"model {model.name}", work.deadline - started)
        case ItemFailed():
            return errors.engine_failed(model.name)
        case EnginesLost():
            return errors.model_unavailable(model.name, model.reason)
        case BatcherClosed():
            return errors.draining()
        case _:
            return errors.internal("")


def _discard(opened: "asyncio.Future[LoadedEngines]") -> None:
    if not opened.cancelled() and opened.exception() is None:
        for engine in opened.result().engines:
            engine.close()
