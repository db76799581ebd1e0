"""Takes a user's own model into the repository: an .onnx file, for which a manifest is written, or a whole folder.

The folder is made beside its final place, loaded and run on zeros, and renamed into place only when all of that works.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engines import manifest as manifests
from engines.base import EngineError, EngineLoadError
from engines.manifest import MODEL_NAME
from engines.repository import Repository
from engines.strict_toml import ConfigError
from engines.zoo.errors import ZooError, cannot_write
from engines.zoo.inspection import Facts, inspect
from engines.zoo.manifest_text import Preprocessing, Reading, write
from engines.zoo.tokenizer_file import longest

_TASKS: Final = {"vision": ("classify", "embed", "tensor"), "nlp": ("classify", "embed", "rerank", "tensor")}
_TOKENIZER: Final = "tokenizer.json"
_TEMPORARY: Final = ".add-"


@dataclass(frozen=True, slots=True)
class Request:
    """What the user gave. `tasks` may be empty: classify where there are labels, else embed for texts, else tensor.

    `service`: "vision" or "nlp"; empty = nlp where there is a `tokenizer`. `image` and `text` say how its input is
    made; `text.max_tokens` 0 = what the tokenizer says, else 256.
    """

    path: Path
    name: str = ""
    service: str = ""
    tasks: tuple[str, ...] = ()
    labels: Path | None = None
    tokenizer: Path | None = None
    licence: str = ""
    image: Preprocessing = field(default_factory=Preprocessing)
    text: Reading = field(default_factory=Reading)


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
    service, tasks = _service_and_tasks(request)
    version = fresh / "1"
    version.mkdir(parents=True)
    shutil.copyfile(request.path, version / "model.onnx")
    for data in facts.external:
        shutil.copyfile(request.path.parent / data, version / data)
    for flag, file, target in (
        ("--labels", request.labels, "labels.txt"),
        ("--tokenizer", request.tokenizer, _TOKENIZER),
    ):
        if file is not None:
            if not file.is_file():
                raise ZooError(f"{flag} {file}: there is no such file")
            shutil.copyfile(file, fresh / target)
    how: Preprocessing | Reading = request.image
    if service == "nlp":
        known = longest(fresh / _TOKENIZER) if request.tokenizer is not None else 0
        how = Reading(request.text.max_tokens or known or 256, request.text.pooling)
    (fresh / manifests.FILE_NAME).write_text(write(fresh.name, tasks, facts, how, request.licence), encoding="utf-8")
    return _notes(tasks, facts, how)


def _service_and_tasks(request: Request) -> tuple[str, tuple[str, ...]]:
    service = request.service or ("nlp" if request.tokenizer is not None else "vision")
    if service not in _TASKS:
        raise ZooError(f"--service {service}: models are added to {' or '.join(_TASKS)}; others are added as a folder")
    usual = "classify" if request.labels else "embed" if request.tokenizer else "tensor"
    tasks = request.tasks or (usual,)
    for task in tasks:
        if task not in _TASKS[service]:
            raise ZooError(f"--task {task}: {service} has no such task, it has {', '.join(_TASKS[service])}")
    if "classify" in tasks and request.labels is None:
        raise ZooError("a classifier needs --labels FILE, the names of its classes, one a line")
    if request.labels is not None and "classify" not in tasks:
        raise ZooError("--labels goes with --task classify only")
    if service == "nlp" and tasks != ("tensor",) and request.tokenizer is None:
        raise ZooError("a text model needs --tokenizer FILE, the tokenizer.json that it was trained with")
    if request.tokenizer is not None and service != "nlp":
        raise ZooError("--tokenizer goes with --service nlp only")
    return service, tasks


def _notes(tasks: tuple[str, ...], facts: Facts, how: Preprocessing | Reading) -> tuple[str, ...]:
    if tasks == ("tensor",):
        return ("served through the Open Inference Protocol, as it is",)
    found = "its outputs end in an activation, so scores are passed on" if facts.activated else "softmax is applied"
    read = (
        f"texts are cut to {how.max_tokens} tokens; compare [text] in its model.toml with its training"
        if isinstance(how, Reading)
        else "the [image] numbers in its model.toml are common defaults where no flag set them:"
        " compare with its training"
    )
    return (*((found,) if "classify" in tasks else ()), read)


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
