"""Where a version of a model comes from: `lineage.json` beside its `model.onnx`."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Final

import pydantic
from pydantic import Field

FILE_NAME: Final = "lineage.json"
_CHUNK: Final = 1 << 20


class Lineage(pydantic.BaseModel):
    """What a version was made of, how, and how it measured up against its source.

    Hashes are SHA-256 in hexadecimal: of the source's model.onnx, and of the inputs used (calibration and held out).
    `metrics`: names as printed, losses as shares of 1.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")

    source_version: Annotated[int, Field(ge=1)]
    source_sha256: str
    method: str
    precision: str
    data: str
    data_sha256: str
    tolerance: float
    metrics: dict[str, float]
    created: str
    made_with: str


def read(version_folder: Path) -> Lineage | None:
    """The lineage of a version; None where it has none that can be read."""
    try:
        return Lineage.model_validate_json((version_folder / FILE_NAME).read_bytes())
    except (OSError, pydantic.ValidationError):
        return None


def write(version_folder: Path, lineage: Lineage) -> None:
    """Keep it. Raises OSError."""
    (version_folder / FILE_NAME).write_text(json.dumps(lineage.model_dump(), indent=2) + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    """The hash of a file's content. Raises OSError."""
    found = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
