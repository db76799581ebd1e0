"""Pulls a model: fetch, convert, and put the finished folder in place with one rename.

`models/<name>/.zoo.json` records the recipe's revision and what was written, so that a second pull takes milliseconds
and a check can tell a damaged file from an edited manifest. When a newer recipe replaces a folder, an edited manifest
and whatever the user put beside the recipe's files (another version, notes) are kept.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.zoo.artifacts import Artifacts
from engines.zoo.errors import ZooError, cannot_write
from engines.zoo.locks import held
from engines.zoo.progress import Progress, Report, silent
from engines.zoo.recipe import Recipe

STAMP: Final = ".zoo.json"
REPORT: Final = "REPORT.txt"
_MANIFEST: Final = "model.toml"
_TEMPORARY: Final = ".pull-"
_STATIC: Final = Path(__file__).parent / "files"


class Written(BaseModel):
    """One file as the recipe wrote it; `size` in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str
    size: int


class Stamp(BaseModel):
    """What `.zoo.json` holds; `files` by path relative to the model's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    recipe: str
    revision: int
    files: dict[str, Written]


@dataclass(frozen=True, slots=True)
class Pulled:
    """The outcome of a pull: `present` when nothing had to be done. `report`: what a training said, or nothing."""

    name: str
    folder: Path
    outcome: Literal["present", "pulled"]
    seconds: float
    report: str = ""


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp of a model's folder; None where there is none that can be read."""
    try:
        return Stamp.model_validate_json((folder / STAMP).read_bytes())
    except (OSError, ValidationError):
        return None


def pull(recipe: Recipe, models: Path, artifacts: Artifacts, report: Report = silent) -> Pulled:
    """Make `models/<name>` hold what `recipe` describes. Idempotent; processes may race. Raises ZooError."""
    started = time.perf_counter()
    folder = models / recipe.name
    outcome: Literal["present", "pulled"] = "present"
    if not _is_current(folder, recipe):
        _refuse_foreign(folder, recipe)
        files = _convert(recipe, artifacts, report)
        try:
            models.mkdir(parents=True, exist_ok=True)
            with held(models / ".pull.lock", lambda: report(Progress(recipe.name, "wait", "another pull is writing"))):
                if not _is_current(folder, recipe):
                    report(Progress(recipe.name, "write"))
                    _install(folder, recipe, files)
                    outcome = "pulled"
        except OSError as error:
            raise cannot_write(folder, error, "choose another models directory") from error
    seconds = time.perf_counter() - started
    report(Progress(recipe.name, "done" if outcome == "pulled" else "present"))
    said = folder / REPORT
    words = said.read_text(encoding="utf-8") if outcome == "pulled" and said.is_file() else ""
    return Pulled(recipe.name, folder, outcome, seconds, words)


def is_present(recipe: Recipe, models: Path) -> bool:
    """Whether `models/<name>` holds what `recipe` describes, so that a pull has nothing to do."""
    return _is_current(models / recipe.name, recipe)


def _is_current(folder: Path, recipe: Recipe) -> bool:
    stamp = read_stamp(folder)
    if stamp is None or stamp.recipe != recipe.name or stamp.revision != recipe.revision:
        return False
    return all(_unchanged(folder / path, written, path) for path, written in stamp.files.items())


def _unchanged(path: Path, written: Written, name: str) -> bool:
    try:
        return path.stat().st_size == written.size or name == _MANIFEST
    except OSError:
        return False


def _refuse_foreign(folder: Path, recipe: Recipe) -> None:
    if folder.exists() and read_stamp(folder) is None:
        raise ZooError(f"{folder} exists and was not made by the zoo: move it away, then pull '{recipe.name}' again")


def _convert(recipe: Recipe, artifacts: Artifacts, report: Report) -> dict[str, bytes]:
    def meter(package: str, done: int, total: int) -> None:
        report(Progress(recipe.name, "fetch", package, done, total))

    fetched = artifacts.files(recipe, meter, lambda: report(Progress(recipe.name, "wait", "another fetch is running")))
    report(Progress(recipe.name, "convert"))

    def step(what: str, done: int, total: int) -> None:
        report(Progress(recipe.name, "convert", what, done, total))

    static = {path.name: path.read_bytes() for path in sorted((_STATIC / recipe.name).glob("*"))}
    return {**static, **recipe.build(fetched, step)}


def _install(folder: Path, recipe: Recipe, files: Mapping[str, bytes]) -> None:
    for leftover in folder.parent.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder.parent))
    try:
        fresh = temporary / recipe.name
        for path, data in files.items():
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            (fresh / path).write_bytes(data)
        written = {
            path: Written(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for path, data in files.items()
        }
        stamp = Stamp(recipe=recipe.name, revision=recipe.revision, files=written)
        (fresh / STAMP).write_text(json.dumps(stamp.model_dump(), indent=2) + "\n")
        if folder.exists():
            _keep_edited_manifest(folder, fresh)
            _keep_additions(folder, fresh)
            folder.rename(temporary / "old")
        fresh.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep_edited_manifest(folder: Path, fresh: Path) -> None:
    stamp, manifest = read_stamp(folder), folder / _MANIFEST
    if stamp is None or not manifest.is_file():
        return
    original = stamp.files.get(_MANIFEST)
    if original is not None and hashlib.sha256(manifest.read_bytes()).hexdigest() != original.sha256:
        shutil.copyfile(manifest, fresh / _MANIFEST)


def _keep_additions(folder: Path, fresh: Path) -> None:
    for path in folder.iterdir():
        target = fresh / path.name
        if path.is_dir() and not target.exists():
            shutil.copytree(path, target)
        elif path.is_file() and not target.exists():
            shutil.copyfile(path, target)
