"""The folder of models: `<name>/model.toml` and `<name>/<version>/model.onnx`. A bad model never hides the others."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engines import backends, manifest_check
from engines import manifest as manifests
from engines.base import Engine, EngineError, EngineLoadError, Signature
from engines.manifest import Backend, Manifest
from engines.strict_toml import ConfigError
from engines.tuning import record

_VERSION = re.compile(r"[1-9][0-9]{0,17}")


class NoSuchVersion(LookupError):
    """The model has no such version; the message lists those it has."""


@dataclass(frozen=True, slots=True)
class LoadedEngines:
    """One version of a model, ready for a batcher: `engines` all have `signature`. `labels`: one a class, or empty."""

    version: int
    signature: Signature
    engines: tuple[Engine, ...]
    backend: Backend
    reason: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of the repository: a manifest and its versions in rising order, or the error that it has instead."""

    name: str
    folder: Path
    manifest: Manifest | None
    versions: tuple[int, ...]
    error: ConfigError | None

    def resolve(self, version: str = "") -> int:
        """Return the version of that number, "" being the highest. Raises NoSuchVersion."""
        if not version and self.versions:
            return self.versions[-1]
        if _VERSION.fullmatch(version) and int(version) in self.versions:
            return int(version)
        known = ", ".join(map(str, self.versions)) or "none"
        raise NoSuchVersion(f"model '{self.name}' has no version '{version}', known: {known}")

    def load(self, version: str = "", cores: int = 1) -> LoadedEngines:
        """Open the engines of one version and check the manifest against them; blocks while files are read.

        `cores` is what the service may use, for manifests that leave the number of engines open.
        Raises ConfigError, EngineLoadError, NoSuchVersion.
        """
        if self.error is not None or self.manifest is None:
            raise self.error or ConfigError(self.folder, "", "has no manifest")
        number = self.resolve(version)
        folder = self.folder / str(number)
        choice = backends.choose(self.manifest, folder)
        layout = record.layout(self.manifest, folder, cores)
        with ExitStack() as opened:
            engines: list[Engine] = []
            for _ in range(layout.instances):
                twin = backends.twin(engines[0]) if engines else None
                engine = twin or backends.open_engine(choice.backend, self.manifest, folder, layout.threads)
                opened.callback(engine.close)
                engines.append(engine)
            labels = self._checked_labels(self.manifest, folder, engines[0])
            opened.pop_all()
        reason = f"{choice.reason}; tuned for this machine" if layout.tuned else choice.reason
        return LoadedEngines(number, engines[0].signature, tuple(engines), choice.backend, reason, labels)

    def _checked_labels(self, manifest: Manifest, version_folder: Path, engine: Engine) -> tuple[str, ...]:
        try:
            return manifest_check.check(manifest, version_folder, engine)
        except EngineError as error:
            raise EngineLoadError(f"{version_folder}: the model fails on zeros: {error}") from error


class Repository:
    """The models below `path`. Nothing is kept: each scan reads the folder anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self) -> list[Entry]:
        """Return an entry for each model folder, by name. Raises ConfigError when there is no such repository."""
        try:
            folders = sorted(item for item in self.path.iterdir() if item.is_dir() and not item.name.startswith("."))
        except OSError as error:
            raise ConfigError(self.path, "", f"cannot be read as a model folder: {error.strerror}") from error
        return [_entry(folder) for folder in folders]


def _entry(folder: Path) -> Entry:
    try:
        manifest = manifests.load(folder)
        return Entry(folder.name, folder, manifest, _versions(manifest, folder), None)
    except ConfigError as error:
        return Entry(folder.name, folder, None, (), error)


def _versions(manifest: Manifest, folder: Path) -> tuple[int, ...]:
    try:
        names = sorted(item.name for item in folder.iterdir() if item.is_dir())
    except OSError as error:
        raise ConfigError(folder, "", f"cannot be read: {error.strerror}") from error
    versions = tuple(sorted(int(name) for name in names if _VERSION.fullmatch(name)))
    if versions or manifest.backend == "fake":
        return versions or (1,)
    raise ConfigError(folder, "", "has no version folder", _found(names))


def _found(names: Sequence[str]) -> str:
    found = f" (found '{names[0]}')" if names else ""
    return f"there must be one named 1, 2, ... with {backends.MODEL_FILE} inside{found}"
