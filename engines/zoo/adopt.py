"""Takes a user's own model into the repository: an .onnx file, for which a manifest is written, or a whole folder.

The folder is made beside its final place, loaded and run on zeros, and renamed into place only when all of that works.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines import manifest as manifests
from engines.base import EngineError, EngineLoadError
from engines.manifest import MODEL_NAME
from engines.repository import Repository
from engines.strict_toml import ConfigError
from engines.zoo.errors import ZooError, cannot_write
from engines.zoo.inspection import Facts, inspect
from engines.zoo.manifest_text import Preprocessing, write

_TASKS: Final = ("classify", "embed", "tensor")
_TEMPORARY: Final = ".add-"


@dataclass(frozen=True, slots=True)
class Request:
    """What the user gave. `tasks` may be empty: classify where there are labels, else tensor. `size` 0 = the file's."""

    path: Path
    name: str = ""
    tasks: tuple[str, ...] = ()
    labels: Path | None = None
    size: int = 0
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    scale: tuple[float, float, float] = (58.395, 57.12, 57.375)
    crop: float = 0.875
    color: str = "RGB"
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A model that was taken in, and what the user should know about what was assumed."""

    name: str
    folder: Path
    notes: tuple[str, ...]


def adopt(request: Request, models: Path) -> Adopted:
    """Take the model in. Raises ZooError with one line, leaving the repository as it was."""
    name = request.name or (request.path.stem if request.path.is_file() else request.path.resolve().name)
    if not MODEL_NAME.fullmatch(name):
        raise ZooError(f"'{name}' is no model name: letters, digits, '_', '-' and '.' only; give one with --name")
    folder = models / name
    if folder.exists():
        raise ZooError(f"{folder} exists already: choose another --name, or move it away")
    if not request.path.exists():
        raise ZooError(f"{request.path}: there is no such file or folder")
    try:
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=models) as temporary:
            fresh = Path(temporary) / name
            notes = _fill(fresh, request)
            _prove(fresh, folder)
            fresh.rename(folder)
    except OSError as error:
        raise cannot_write(folder, error, "choose another models directory") from error
    return Adopted(name, folder, notes)


def _fill(fresh: Path, request: Request) -> tuple[str, ...]:
    if request.path.is_dir():
        if not (request.path / manifests.FILE_NAME).is_file():
            raise ZooError(f"{request.path} has no {manifests.FILE_NAME}: add one, or give the .onnx file itself")
        shutil.copytree(request.path, fresh)
        return ()
    facts = inspect(request.path)
    tasks = _tasks(request)
    version = fresh / "1"
    version.mkdir(parents=True)
    shutil.copyfile(request.path, version / "model.onnx")
    for data in facts.external:
        shutil.copyfile(request.path.parent / data, version / data)
    if request.labels is not None:
        if not request.labels.is_file():
            raise ZooError(f"--labels {request.labels}: there is no such file")
        shutil.copyfile(request.labels, fresh / "labels.txt")
    how = Preprocessing(request.size, request.mean, request.scale, request.crop, request.color)
    (fresh / manifests.FILE_NAME).write_text(write(fresh.name, tasks, facts, how, request.licence), encoding="utf-8")
    return _notes(tasks, facts)


def _tasks(request: Request) -> tuple[str, ...]:
    tasks = request.tasks or (("classify",) if request.labels else ("tensor",))
    for task in tasks:
        if task not in _TASKS:
            raise ZooError(f"--task {task}: there is no such task, there are {', '.join(_TASKS)}")
    if "classify" in tasks and request.labels is None:
        raise ZooError("a classifier needs --labels FILE, the names of its classes, one a line")
    if request.labels is not None and "classify" not in tasks:
        raise ZooError("--labels goes with --task classify only")
    return tasks


def _notes(tasks: tuple[str, ...], facts: Facts) -> tuple[str, ...]:
    if tasks == ("tensor",):
        return ("served through the Open Inference Protocol, as it is",)
    found = "its outputs end in an activation, so scores are passed on" if facts.activated else "softmax is applied"
    return (
        *((found,) if "classify" in tasks else ()),
        "the [image] numbers in its model.toml are common defaults where no flag set them: compare with its training",
    )


def _prove(fresh: Path, folder: Path) -> None:
    """Load the model as the repository would, and run it on zeros."""
    try:
        entry = next(entry for entry in Repository(fresh.parent).scan() if entry.name == fresh.name)
        loaded = entry.load()
        try:
            loaded.engines[0].warm_up()
        finally:
            for engine in loaded.engines:
                engine.close()
        tasks = () if entry.manifest is None else entry.manifest.tasks
        if not loaded.signature.batchable and set(tasks) - {"tensor"}:
            raise ZooError(
                f"{folder.name}: its batch size is fixed; export it with an open first dimension (dynamic axis 0)"
            )
    except (ConfigError, EngineLoadError, EngineError) as error:
        raise ZooError(str(error).replace(str(fresh), str(folder))) from error
