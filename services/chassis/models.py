"""The models of one process: loaded behind serving, found by name, and run with errors that callers understand."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from engines.base import EngineError, EngineLoadError, Signature
from engines.batcher import Batcher
from engines.manifest import Manifest
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
from services.chassis import errors
from services.chassis.errors import ServiceError
from services.chassis.model_stats import ModelStats
from services.chassis.tensors import TensorCodec

logger = logging.getLogger(__name__)

State = Literal["LOADING", "READY", "UNAVAILABLE"]
#: (model, version) -> what is told of each engine run.
ObserverFactory = Callable[[str, str], Callable[[BatchReport], None]]
#: What a caller's field is called by the task that it asks for; the typed services call it `model`.
_FIELD: Final = {"tensor": "model_name"}


@dataclass(slots=True)
class LoadedModel:
    """One version of a model in this process. What stands below `backend` is there from READY on."""

    name: str
    version: str
    manifest: Manifest | None
    state: State = "LOADING"
    reason: str = ""
    backend: str = ""
    signature: Signature = field(default_factory=lambda: Signature((), ()))
    labels: tuple[str, ...] = ()
    batcher: Batcher | None = None
    codec: TensorCodec | None = None
    engines: int = 0
    folder: Path | None = None
    stats: ModelStats = field(default_factory=ModelStats)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model answers beside Open Inference calls."""
        return self.manifest.tasks if self.manifest is not None else ()


@dataclass(frozen=True, slots=True)
class HostOptions:
    """Which models a process serves and how.

    `service`: the service whose models these are. `models`: their names, () = all of the service. `cores`: what engines
    may use when a manifest leaves their number open. `defaults`: task -> model for calls that name none.
    """

    service: str
    models: tuple[str, ...] = ()
    cores: int = 1
    defaults: Mapping[str, str] = field(default_factory=dict)


class ModelHost:
    """Loads the models of a service in the background and runs work on them. Belongs to one event loop."""

    def __init__(self, repository: Repository, options: HostOptions, observer: ObserverFactory | None = None) -> None:
        self._repository = repository
        self._options = options
        self._observer = observer
        self._models: dict[str, dict[str, LoadedModel]] = {}
        self._references: dict[str, LoadedModel] = {}
        self._loading: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="model-loader")
        self._closed = False

    async def start(self) -> None:
        """List the models and begin to load them, one after the other. Raises ConfigError: no such repository."""
        loop = asyncio.get_running_loop()
        entries = await loop.run_in_executor(self._pool, self._repository.scan)
        queue: list[tuple[Entry, LoadedModel]] = []
        for entry in self._chosen(entries):
            versions = {str(number): LoadedModel(entry.name, str(number), entry.manifest) for number in entry.versions}
            if entry.error is not None:
                versions = {"": LoadedModel(entry.name, "", None, "UNAVAILABLE", str(entry.error))}
                logger.error("model %s is not served: %s", entry.name, entry.error)
            self._models[entry.name] = versions
            self._references |= {f"{entry.name}@{version}": model for version, model in versions.items() if version}
            self._references[entry.name] = list(versions.values())[-1]
            if entry.error is None:
                queue.extend((entry, model) for model in reversed(versions.values()))
        self._loading = asyncio.create_task(self._load_all(queue))

    async def loaded(self) -> None:
        """Wait until every model has been loaded or given up."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    @property
    def ready(self) -> bool:
        """True when every model serves."""
        return self._loading is not None and all(model.state == "READY" for model in self.index())

    @property
    def settled(self) -> bool:
        """True when nothing is being loaded any more."""
        return self._loading is not None and self._loading.done()

    def index(self) -> list[LoadedModel]:
        """Every version of every model, in the order of the repository."""
        return [model for versions in self._models.values() for model in versions.values()]

    def resolve(self, model: str, task: str, role: str = "") -> LoadedModel:
        """The model called "name" or "name@version", "" being the default for `role`, else for `task`; it is READY.

        Raises ServiceError: NOT_FOUND, UNAVAILABLE (loading or broken), INVALID_ARGUMENT (no default, or not its task).
        """
        found = self._references.get(model)
        if found is None:
            found = self._default(task, role) if not model else self._missing(model)
        if found.state != "READY":
            raise errors.model_unavailable(found.name, found.reason or "it is still loading")
        if task != "tensor" and task not in found.tasks:
            problem = f"model {errors.quote(found.name)} does not {task}; {self._choices(task)}"
            raise errors.invalid_argument(_FIELD.get(task, "model"), problem)
        return found

    def serves(self, model: str) -> bool:
        """True when the model called "name" or "name@version" is one of this process, in whatever state."""
        return not model or model.partition("@")[0] in self._models

    def find(self, name: str, version: str) -> list[LoadedModel]:
        """The version of a model in whatever state, or all its versions ("", highest last). Raises NOT_FOUND."""
        if version:
            known = self._references.get(f"{name}@{version}")
            return [known if known is not None else self._missing(f"{name}@{version}")]
        if name not in self._models:
            self._missing(name)
        return list(self._models[name].values())

    async def infer(self, model: LoadedModel, work: Work) -> Outcome:
        """Run `work`; every way in which that fails becomes a ServiceError."""
        batcher, started = model.batcher, time.monotonic()
        if batcher is None:
            raise errors.model_unavailable(model.name, model.reason or "it is still loading")
        try:
            outcome = await batcher.submit(work)
        except BatcherError as error:
            model.stats.fail.add(time.monotonic() - started)
            if isinstance(error, EnginesLost) and model.state == "READY":
                self._give_up(model, "its engines have stopped; the service must be restarted")
            raise _translated(error, model, work, started) from error
        model.stats.answered(outcome)
        return outcome

    async def drain(self) -> None:
        """Wait until no model has work queued or running."""
        await asyncio.gather(*(model.batcher.drain() for model in self.index() if model.batcher is not None))

    async def close(self) -> None:
        """Stop loading, fail what waits and give the engines back. Idempotent."""
        self._closed = True
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        await asyncio.gather(*(model.batcher.close() for model in self.index() if model.batcher is not None))
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _chosen(self, entries: Iterable[Entry]) -> list[Entry]:
        """The entries of this service; a broken one belongs to it when it is asked for, or when nothing is."""
        options, by_name = self._options, {entry.name: entry for entry in entries}
        for name in options.models:
            if name not in by_name:
                error = ConfigError(
                    self._repository.path, name, "there is no such model", "pull it or drop it from models"
                )
                by_name[name] = Entry(name, self._repository.path / name, None, (), error)
        wanted = options.models or tuple(by_name)
        chosen = [by_name[name] for name in wanted]
        return [entry for entry in chosen if entry.manifest is None or entry.manifest.service == options.service]

    async def _load_all(self, queue: list[tuple[Entry, LoadedModel]]) -> None:
        for entry, model in queue:
            try:
                await self._load(entry, model)
            except (ConfigError, EngineLoadError, EngineError, NoSuchVersion) as error:
                self._give_up(model, str(error))
            except Exception:
                logger.exception("loading model %s@%s failed", model.name, model.version)
                self._give_up(model, "loading failed unexpectedly; the log of the service says why")

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

    def _give_up(self, model: LoadedModel, reason: str) -> None:
        model.state, model.reason = "UNAVAILABLE", reason
        logger.error("model %s@%s is not served: %s", model.name, model.version, reason)

    def _default(self, task: str, role: str) -> LoadedModel:
        defaults = self._options.defaults
        named = defaults.get(role) or defaults.get(task)
        if named is not None:
            return self._references.get(named) or self._missing(named)
        able = [name for name in self._models if task == "tensor" or task in self._references[name].tasks]
        if len(able) == 1:
            return self._references[able[0]]
        raise errors.invalid_argument(
            _FIELD.get(task, "model"), f"is empty and there is no default; {self._choices(task)}"
        )

    def _choices(self, task: str) -> str:
        able = [name for name in self._models if task == "tensor" or task in self._references[name].tasks]
        listed = ", ".join(able[:8]) + (", ..." if len(able) > 8 else "")
        return f"choose one of: {listed}" if able else f"no model of this service can {task}"

    def _missing(self, reference: str) -> LoadedModel:
        """Raise NOT_FOUND for a reference that is not in the table."""
        name, _, version = reference.partition("@")
        if name in self._models and version:
            known = [f"{name}@{known}" for known in self._models[name] if known]
            raise errors.not_found("model version", reference, known)
        raise errors.not_found("model", reference, self._models)


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
