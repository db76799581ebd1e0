"""The models of one process: loaded behind serving, found by name, and run with errors that callers understand.

Models and versions may come while the process serves: a folder that appears in the repository is loaded within a second
or so, and one that could not be loaded is tried again when its files change. A new version takes the calls that name
none once it is loaded, checked and warm; until then, and when it fails, the one before answers. A version leaves when
its folder does, if another serves, or when a caller asks for it; calls in flight end on the version they began with.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from engines.manifest import MODEL_NAME
from engines.repository import Entry, Repository
from engines.strict_toml import ConfigError
from engines.work import BatcherError, EnginesLost, Outcome, Work
from services.chassis import errors
from services.chassis.batcher_errors import translated
from services.chassis.model_loading import Departures, Loader, ObserverFactory, give_up
from services.chassis.model_table import LOADING, LoadedModel, ModelTable, State
from services.chassis.repository_view import HostOptions, RepositoryView

__all__ = ["HostOptions", "LoadedModel", "ModelHost", "ObserverFactory", "State"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.5

Result = TypeVar("Result")
#: A version to be loaded, and the folder that it is in.
Pending = tuple[Entry, LoadedModel]


class ModelHost:
    """Loads the models of a service in the background and runs work on them. Belongs to one event loop."""

    def __init__(self, repository: Repository, options: HostOptions, observer: ObserverFactory | None = None) -> None:
        self._options = options
        self._loader = Loader(options.cores, observer)
        self._view = view = RepositoryView(repository, options, self._loader.pool)
        self._table = ModelTable(options.defaults, lambda name: name in options.awaited and name not in view.seen)
        self._departures = Departures()
        self._gone: set[tuple[str, str]] = set()
        self._touched: set[str] = set()
        self._arrived: Callable[[LoadedModel], None] = lambda _model: None
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        # Whoever changes which versions serve holds it.
        self._changing = asyncio.Lock()

    async def start(self, arrived: Callable[[LoadedModel], None] | None = None) -> None:
        """List the models and begin to load them, small ones first; then look for changes until `close`.

        `arrived` is told of each version that begins to serve. Raises ConfigError: no such repository.
        """
        if arrived is not None:
            self._arrived = arrived
        entries = await self._view.entries(await self._view.look())
        entries += self._view.missing({entry.name for entry in entries})
        self._begin(self._run(self._take(entries)))

    async def loaded(self) -> None:
        """Wait until every model that was there at the start has been loaded or given up."""
        if self._tasks:
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

        It keeps serving until the running asyncio task, the rpc, has ended, whatever takes its place meanwhile.
        Raises ServiceError: NOT_FOUND, UNAVAILABLE (loading, broken, unloaded or still to be fetched), INVALID_ARGUMENT
        (no default, or not its task).
        """
        found = self._table.resolve(model, task, role)
        found.hold()
        return found

    def serves(self, model: str) -> bool:
        """True when the model called "name" or "name@version" is one of this process, in whatever state."""
        return not model or model.partition("@")[0] in self._table

    def find(self, name: str, version: str) -> list[LoadedModel]:
        """The version of a model in whatever state, or all its versions ("", highest last). Raises NOT_FOUND."""
        return self._table.find(name, version)

    def meant(self, name: str, version: str = "") -> LoadedModel:
        """The version that a call naming these would get, in whatever state. Raises NOT_FOUND."""
        return self._table.meant(name, version)

    async def load(self, name: str, version: str = "") -> LoadedModel:
        """Have a version serve, "" being the highest folder; return it once it does.

        One whose files have changed since it was loaded is loaded anew, behind the calls. It goes on when the caller
        goes away. Raises ServiceError: NOT_FOUND, FAILED_PRECONDITION with the reason for which it cannot be loaded.
        """
        return await asyncio.shield(self._begin(self._load(name, version)))

    async def unload(self, name: str, version: str = "") -> None:
        """Have a version, or all of them, take no new calls; return when those in flight have ended.

        It goes on when the caller goes away. Raises NOT_FOUND.
        """
        await asyncio.shield(self._begin(self._unload(name, version)))

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
                give_up(model, "its engines have stopped; the service must be restarted")
                self._table.choose(model.name)
            raise translated(error, model, work, started) from error
        model.stats.answered(outcome)
        return outcome

    async def drain(self) -> None:
        """Wait until no model has work queued or running."""
        await asyncio.gather(*(model.batcher.drain() for model in self.index() if model.batcher is not None))

    async def close(self) -> None:
        """Stop loading, fail what waits and give the engines back. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._departures.close()
        await asyncio.gather(*(model.batcher.close() for model in self.index() if model.batcher is not None))
        self._loader.close()

    async def _run(self, queue: list[Pending]) -> None:
        try:
            async with self._changing:
                await self._load_all(queue)
        finally:
            self._settled.set()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                async with self._changing:
                    await self._load_all(await self._look())
                    self._let_go()
            except ConfigError as error:
                logger.warning("the repository cannot be read: %s", error)

    def _begin(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load(self, name: str, version: str) -> LoadedModel:
        async with self._changing:
            known = {name} & self._table.names
            if not MODEL_NAME.fullmatch(name):
                self._table.missing(name)
            # What else has changed in the folder is not seen as a change any more.
            self._touched |= known
            found = [entry for entry in await self._view.entries({name}) if entry.manifest is not None or known]
            if not found:
                self._table.missing(name)
            entry = found[0]
            if entry.error is not None:
                raise errors.model_load_failed(name, version, str(entry.error))
            there = [str(number) for number in entry.versions]
            if version and version not in there:
                raise errors.not_found("model version", f"{name}@{version}", [f"{name}@{each}" for each in there])
            model = self._view.version(entry, version or there[-1])
            before = next((one for one in self._table.versions(name) if one.version == model.version), None)
            if before is not None and before.state == "READY" and before.files == model.files:
                return before
            if not await self._swap(entry, model, before):
                raise errors.model_load_failed(name, model.version, model.reason)
            return model

    async def _unload(self, name: str, version: str) -> None:
        reason = f"it was unloaded; `headrace models load {name}` or ModelService.LoadModel loads it again"
        leaving = []
        async with self._changing:
            for model in self._table.find(name, version):
                model.unloaded = True
                leaving.append(self._departures.begin(model, reason))
            self._table.choose(name)
        await asyncio.gather(*leaving)

    async def _look(self) -> list[Pending]:
        """What to load now: folders that have appeared, new versions, and what is broken and has changed."""
        fresh = await self._view.look()
        table, seen = self._table, self._view.seen
        for name in table.names - seen - set(self._options.models):
            if all(model.state == "UNAVAILABLE" for model in table.versions(name)):
                self._drop(name)
        changed = await self._view.changed(table.names & seen) | (self._touched & table.names & seen)
        self._touched.clear()
        anew = (fresh - table.names) | {name for name in changed if self._broken(name)}
        if not anew | changed:
            return []
        entries = {entry.name: entry for entry in await self._view.entries(anew | changed)}
        for name in anew:
            self._drop(name)
        queue = [pending for name in changed - anew if name in entries for pending in self._follow(entries[name])]
        return self._take([entry for name, entry in entries.items() if name in anew]) + queue

    def _drop(self, name: str) -> None:
        for model in self._table.versions(name):
            self._part(model, "its folder has changed")
        self._table.drop(name)

    def _part(self, model: LoadedModel, reason: str) -> None:
        """Give back what a version that nobody finds any more may still have."""
        if model.batcher is not None and model.state != "UNLOADING":
            self._departures.begin(model, reason)

    def _broken(self, name: str) -> bool:
        """Whether nothing of a model serves, is on its way, or waits for a caller to load it."""
        return all(model.state == "UNAVAILABLE" and not model.unloaded for model in self._table.versions(name))

    def _follow(self, entry: Entry) -> list[Pending]:
        """The versions to be loaded of a model whose others serve, since its folder has changed."""
        held = {model.version: model for model in self._table.versions(entry.name)}
        queue = []
        for version in self._view.versions(entry):
            model, before = self._view.version(entry, version), held.get(version)
            if before is not None and (before.state != "UNAVAILABLE" or before.unloaded or before.files == model.files):
                continue
            if before is not None:
                self._part(before, "its files have changed")
            if entry.error is not None:
                give_up(model, str(entry.error))
            elif all(one.unloaded for one in held.values()):
                give_up(model, "its model was unloaded")
                model.unloaded = True
            else:
                queue.append((entry, model))
            self._table.take(model)
        if entry.error is None:
            there = {str(number) for number in entry.versions}
            self._gone -= {(entry.name, version) for version in there}
            self._gone |= {(entry.name, version) for version in held if version not in there}
        return queue

    def _let_go(self) -> None:
        """Part with versions whose folders have gone, as long as another of the model serves."""
        for name, version in sorted(self._gone):
            models = self._table.versions(name)
            staying = [model for model in models if model.state == "READY" and (name, model.version) not in self._gone]
            leaving = next((model for model in models if model.version == version), None)
            if leaving is not None and (staying or leaving.state != "READY") and len(models) > 1:
                self._table.remove(leaving)
                self._part(leaving, "its folder has left the repository")
                self._gone.discard((name, version))

    def _take(self, entries: Iterable[Entry]) -> list[Pending]:
        """Put the entries into the table; return what is to be loaded, small ones first, so that most serve soon."""
        queue: list[Pending] = []
        for entry in entries:
            if entry.error is not None:
                logger.error("model %s is not served: %s", entry.name, entry.error)
            versions = [self._view.version(entry, str(number)) for number in entry.versions]
            queue.extend((entry, model) for model in self._table.put(entry, versions))
        return sorted(queue, key=lambda pair: self._view.size(pair[1].name))

    async def _load_all(self, queue: list[Pending]) -> None:
        for entry, model in queue:
            if not any(known is model for known in self._table.versions(model.name)):
                continue  # A caller had it loaded meanwhile.
            if await self._loader.load(entry, model, beside=self._settled.is_set()):
                self._arrived(model)
            self._table.choose(model.name)

    async def _swap(self, entry: Entry, model: LoadedModel, before: LoadedModel | None) -> bool:
        """Load `model` behind `before`, an earlier state of the same version, and put it in its place if it serves."""
        serves = before is not None and before.state == "READY"
        if not serves:
            self._table.take(model)
        loaded = await self._loader.load(entry, model, beside=self._settled.is_set())
        if loaded:
            self._table.take(model)
            self._arrived(model)
            if before is not None:
                self._part(before, "its files were replaced")
        elif not serves:
            self._table.choose(model.name)
        return loaded
