"""Puts a trained recommender's folders into a repository, whole or not at all."""

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from engines import manifest as manifests
from engines.manifest import MODEL_NAME
from engines.recommender.names import ORIGIN, retrieval_name
from engines.repository import Repository
from engines.strict_toml import ConfigError
from engines.zoo.errors import ZooError, cannot_write

_TEMPORARY: Final = ".train-"


def check_name(name: str, models: Path, *, replace: bool) -> None:
    """Refuse what `install` would refuse, before hours of training. Raises ZooError."""
    if not MODEL_NAME.fullmatch(name) or not MODEL_NAME.fullmatch(retrieval_name(name)):
        raise ZooError(
            f"'{name}' is no model name: at most 118 letters, digits, '_', '-' and '.'; give one with --name"
        )
    for folder in (models / name, models / retrieval_name(name)):
        if not folder.exists():
            continue
        if not replace:
            raise ZooError(f"{folder} exists already: choose another --name, or allow its replacement with --replace")
        if not _is_ours(folder):
            raise ZooError(f"{folder} was not made by 'headrace models train': choose another --name, or move it away")


def install(folders: Mapping[str, Mapping[str, bytes]], models: Path) -> None:
    """Write the folders beside their places, load each model, then rename all. Raises ZooError."""
    try:
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=models) as temporary:
            fresh = Path(temporary) / "fresh"
            for name, files in folders.items():
                for path, content in files.items():
                    (fresh / name / path).parent.mkdir(parents=True, exist_ok=True)
                    (fresh / name / path).write_bytes(content)
            _prove(fresh)
            _swap(fresh, Path(temporary), models)
    except OSError as error:
        raise cannot_write(models, error, "choose another models directory") from error


def _prove(fresh: Path) -> None:
    for entry in Repository(fresh).scan():
        for engine in entry.load().engines:
            engine.warm_up()
            engine.close()


def _swap(fresh: Path, temporary: Path, models: Path) -> None:
    """Old folders go into the temporary folder, and back when a new one cannot take its place."""
    with ExitStack() as undo:
        for folder in sorted(fresh.iterdir(), reverse=True):
            target, old = models / folder.name, temporary / f"old-{folder.name}"
            if target.exists():
                target.rename(old)
                undo.callback(_put_back, old, target)
            folder.rename(target)
        undo.pop_all()


def _put_back(old: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    old.rename(target)


def _is_ours(folder: Path) -> bool:
    try:
        return manifests.load(folder).origin == ORIGIN
    except ConfigError:
        return False
