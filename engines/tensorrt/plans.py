"""Built plans on disk: `models/<name>/<version>/plans/<library>-<key>.plan`, each with a sidecar `.json`.

A plan cannot be opened without a driver, so the sidecar says what is inside. The key is a digest of everything a plan
depends on: another model, library, version, target, precision or profile is another file.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.tensorrt.libraries import TensorRTError

FOLDER: Final = "plans"
SUFFIX: Final = ".plan"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorInfo(_Record):
    """One input or output of a plan; -1 is a dimension that profiles bound."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Profile(_Record):
    """The shapes of each input that one profile covers, least to greatest; kernels are tuned for `best`."""

    least: dict[str, tuple[int, ...]]
    best: dict[str, tuple[int, ...]]
    greatest: dict[str, tuple[int, ...]]


class Key(_Record):
    """All that a plan depends on. `model_sha256` covers the ONNX file and its external data."""

    model_sha256: str
    library: str
    library_version: str
    targets: tuple[str, ...]
    precision: str
    profiles: tuple[Profile, ...]

    def digest(self) -> str:
        """A short name for the key: 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]


class Sidecar(_Record):
    """What the `.json` beside a plan says. Sizes in bytes, `built` is ISO 8601 in UTC."""

    model: str
    version: str
    key: Key
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    plan_sha256: str
    plan_bytes: int
    build_seconds: float
    built: str


def plan_path(model_file: Path, key: Key) -> Path:
    """Where the plan of `key` belongs."""
    return model_file.parent / FOLDER / f"{key.library}-{key.digest()}{SUFFIX}"


def model_digest(model_file: Path) -> str:
    """SHA-256 over the ONNX file and whatever external data lies beside it. Raises TensorRTError."""
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in model_file.parent.iterdir() if path.is_file()):
            if path == model_file or path.suffix in (".data", ".bin", ".weights"):
                digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    except OSError as error:
        raise TensorRTError(f"{model_file} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def read(plan: Path) -> Sidecar:
    """The sidecar of `plan` (or the sidecar's own path). Raises TensorRTError when it is missing or damaged."""
    path = plan.with_suffix(".json")
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TensorRTError(f"{path} cannot be read ({error.strerror}): build the engine again") from error
    except ValidationError as error:
        raise TensorRTError(f"{path} is no plan's sidecar, or a damaged one: build the engine again") from error


def find(model_file: Path, library: str) -> tuple[Path, Sidecar] | None:
    """The newest whole plan made by `library` of exactly this model file; None where there is none."""
    digest = ""
    for plan, sidecar in sorted(_all([model_file.parent]), key=lambda found: found[1].built, reverse=True):
        digest = digest or model_digest(model_file)
        if sidecar.key.library == library and sidecar.key.model_sha256 == digest:
            return plan, sidecar
    return None


def plans(models: Path) -> list[tuple[Path, Sidecar]]:
    """Every whole plan below the repository `models`, by model, version and library."""
    found = _all(sorted(path for path in models.glob("*/*") if path.is_dir()))
    return sorted(found, key=lambda item: (item[1].model, item[1].version, item[1].key.library, item[1].built))


def _all(versions: Sequence[Path]) -> Iterator[tuple[Path, Sidecar]]:
    for version in versions:
        for plan in (version / FOLDER).glob(f"*{SUFFIX}"):
            try:
                sidecar = read(plan)
            except TensorRTError:
                continue
            if plan.stat().st_size == sidecar.plan_bytes:
                yield plan, sidecar
