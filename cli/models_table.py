"""The table of `headrace models list`: what the repository holds, broken or not, and what the zoo has besides."""

from pathlib import Path
from typing import Final

from cli import table
from engines.backends import choose
from engines.base import EngineLoadError
from engines.repository import Entry, Repository
from engines.tuning.record import valid
from engines.zoo import registry
from engines.zoo.pull import read_stamp

_COLUMNS: Final = ("NAME", "VER", "SERVICE", "TASKS", "BACKEND", "LICENCE", "STATE", "REASON", "NOTICE")
_STATE: Final = _COLUMNS.index("STATE")
_NOT_PULLED: Final = "not pulled"


def show(directory: Path) -> None:
    """Print the models below `directory`. Raises ConfigError when it cannot be read."""
    entries = Repository(directory).scan() if directory.is_dir() else []
    tensors = {entry.name for entry in entries if entry.manifest is not None and entry.manifest.tasks == ("tensor",)}
    owners = {part: entry.name for entry in entries for part in _named(entry) & tensors}
    rows = [_row(entry, owners.get(entry.name, "")) for entry in entries]
    present = {entry.name for entry in entries}
    rows += [_offer(name) for name in registry.NAMES if name not in present]
    table.show(_COLUMNS, rows, [_style(row[_STATE]) for row in rows], below=2)


def _style(state: str) -> str:
    return "red" if state.startswith("broken") else "dim" if state == _NOT_PULLED else ""


def _named(entry: Entry) -> set[str]:
    """Whatever the sections that join networks name; the models among it are parts of this one."""
    manifest = entry.manifest
    sections = () if manifest is None else (manifest.reader, manifest.recognizer, manifest.recommender)
    values = (value for section in sections if section is not None for value in section.model_dump().values())
    return {value for value in values if isinstance(value, str)}


def _offer(name: str) -> tuple[str, ...]:
    recipe = registry.recipe(name)
    return (name, "-", "-", "-", "-", recipe.licence, _NOT_PULLED, "headrace models pull NAME", recipe.notice)


def _row(entry: Entry, owner: str) -> tuple[str, ...]:
    manifest = entry.manifest
    if manifest is None:
        return (entry.name, "?", "?", "?", "?", "?", f"broken: {entry.error}", "", "")
    state, backend, reason = "ready", str(manifest.backend), ""
    missing = [str(version) for version in entry.versions if not _has_model(entry, version)]
    if missing:
        state = f"broken: {entry.folder / missing[0] / 'model.onnx'} is missing"
    try:
        choice = choose(manifest, entry.folder / str(entry.versions[-1]))
        backend, reason = choice.backend, choice.reason
        if state == "ready" and backend == "onnxruntime" and valid(entry.folder / str(entry.versions[-1])) is not None:
            state = "ready, tuned"
    except EngineLoadError as error:
        state = f"broken: {error}"
    versions = ", ".join(map(str, entry.versions))
    tasks = f"part of {owner}" if owner else ", ".join(manifest.tasks)
    stamp = read_stamp(entry.folder)
    notice = registry.recipe(stamp.recipe).notice if stamp is not None and stamp.recipe in registry.NAMES else ""
    return (entry.name, versions, manifest.service, tasks, backend, manifest.licence or "?", state, reason, notice)


def _has_model(entry: Entry, version: int) -> bool:
    is_fake = entry.manifest is not None and entry.manifest.backend == "fake"
    return is_fake or (entry.folder / str(version) / "model.onnx").is_file()
