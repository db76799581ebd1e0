"""The model repository as one service sees it: which folders are its own, and which have changed since it looked."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from engines.repository import Entry, Repository
from engines.strict_toml import ConfigError
from services.chassis import model_folders
from services.chassis.model_folders import Fingerprint
from services.chassis.model_table import LoadedModel


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


class RepositoryView:
    """Looks at the repository in other threads: at names and dates at once, into manifests in `pool`."""

    def __init__(self, repository: Repository, options: HostOptions, pool: ThreadPoolExecutor) -> None:
        self._repository = repository
        self._options = options
        self._pool = pool
        self._prints: dict[str, Fingerprint] = {}
        self.seen: frozenset[str] = frozenset()

    async def look(self) -> frozenset[str]:
        """Read the folders' names into `seen`; return those that were not there before."""
        seen = await asyncio.to_thread(model_folders.names, self._repository.path)
        fresh, self.seen = seen - self.seen, seen
        return fresh

    async def changed(self, names: Collection[str]) -> set[str]:
        """Those of `names` whose files have changed since their manifests were read."""
        prints = await asyncio.to_thread(model_folders.fingerprints, self._repository.path, names)
        return {name for name, found in prints.items() if found != self._prints.get(name)}

    async def entries(self, names: Iterable[str]) -> list[Entry]:
        """The folders of these names that are this service's, or could be: a broken manifest does not say whose it is.

        Raises ConfigError when the repository cannot be read.
        """
        chosen, options = set(names), self._options
        # Their files' state before they are read: what is written meanwhile is a change.
        self._prints |= await asyncio.to_thread(model_folders.fingerprints, self._repository.path, chosen)
        found = await asyncio.get_running_loop().run_in_executor(self._pool, self._repository.scan)
        wanted = set(options.models) & chosen if options.models else chosen
        return [
            entry
            for entry in found
            if entry.name in wanted and (entry.manifest is None or entry.manifest.service == options.service)
        ]

    def missing(self, known: Collection[str]) -> list[Entry]:
        """An entry for each model that the settings name and that is not among the `known`."""
        return [_missing(self._repository, name) for name in self._options.models if name not in known]

    def version(self, entry: Entry, version: str) -> LoadedModel:
        """A version that is to be loaded, with the files that it is made of."""
        files = model_folders.of_version(self._prints.get(entry.name, ()), version)
        return LoadedModel(entry.name, version, entry.manifest, files=files)

    def versions(self, entry: Entry) -> list[str]:
        """The version folders with files in them, rising; they are there even where the manifest is broken."""
        return sorted(model_folders.versions(self._prints.get(entry.name, ())), key=int)

    def size(self, name: str) -> int:
        """Bytes of a model's files."""
        return sum(size for _, size, _, _ in self._prints.get(name, ()))


def _missing(repository: Repository, name: str) -> Entry:
    error = ConfigError(repository.path, name, "there is no such model", "pull it or drop it from models")
    return Entry(name, repository.path / name, None, (), error)
