"""What tuning found for one version of a model on one machine: `tuning.toml` beside its `model.onnx`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from engines import strict_toml
from engines.manifest import Manifest
from engines.sections.base import Positive, Section, Text
from engines.strict_toml import ConfigError
from engines.zoo.errors import cannot_write

FILE_NAME: Final = "tuning.toml"
_MODEL: Final = "model.onnx"


class Tuning(Section):
    """The best arrangement of `cores` cores: engines side by side, threads of each, and rows of a batch.

    `machine` and `model_bytes` say what it holds for; `rate` is rows a second, as measured.
    """

    machine: Text
    model_bytes: Positive
    cores: Positive
    instances: Positive
    threads: Positive
    rows: Positive
    rate: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Layout:
    """`instances` engines of `threads` threads each; `tuned`: measured on this machine, not the usual default."""

    instances: int
    threads: int
    tuned: bool = False


def layout(manifest: Manifest, version_folder: Path, cores: int) -> Layout:
    """How many engines of how many threads serve the version on `cores` cores.

    What the manifest says wins: a number of engines, or more than one thread. Where it leaves both open, a tuning for
    this machine and as many cores decides, else there is one engine a core.
    """
    wished = manifest.instances
    if wished.count:
        return Layout(wished.count, wished.threads)
    found = None if wished.threads > 1 else valid(version_folder)
    if found is not None and found.cores == cores:
        return Layout(found.instances, found.threads, tuned=True)
    return Layout(max(1, cores // wished.threads), wished.threads)


def valid(version_folder: Path) -> Tuning | None:
    """The tuning of the version, if there is one for this machine and this file. A file that cannot be read is none."""
    path = version_folder / FILE_NAME
    if not path.is_file():
        return None
    # Costs the import of ONNX Runtime, which a model without a tuning on another backend need not pay.
    from engines.tuning.machine import fingerprint  # noqa: PLC0415

    try:
        found = strict_toml.load(path, Tuning)
        same_file = (version_folder / _MODEL).stat().st_size == found.model_bytes
    except (ConfigError, OSError):
        return None
    return found if same_file and found.machine == fingerprint() else None


def write(version_folder: Path, found: Tuning) -> Path:
    """Keep the tuning, in one step. Raises ZooError where the folder cannot be written."""
    path = version_folder / FILE_NAME
    temporary = path.with_name(f".{FILE_NAME}.{os.getpid()}")
    lines = (f"{key} = {_toml(value)}\n" for key, value in found.model_dump().items())
    text = "# Written by 'headrace tune', valid for this machine only; remove it to have the defaults back.\n"
    try:
        temporary.write_text(text + "".join(lines), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error, "choose another models directory") from error
    return path


def check_writable(version_folder: Path) -> None:
    """Raises ZooError where `write` would, before minutes of measuring."""
    probe = version_folder / f".{FILE_NAME}.{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise cannot_write(version_folder / FILE_NAME, error, "choose another models directory") from error


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
