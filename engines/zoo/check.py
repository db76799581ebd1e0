"""Proves a pulled model: its files are those the recipe wrote, and it computes what the project's fixtures say."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from engines import manifest as manifests
from engines.base import Array, EngineError, EngineLoadError
from engines.manifest import Manifest
from engines.onnx import OnnxEngine
from engines.strict_toml import ConfigError
from engines.zoo.errors import CheckError
from engines.zoo.pull import read_stamp
from engines.zoo.recipe import Photograph, Recipe

_FIXTURES: Final = Path(__file__).parent / "fixtures"
_RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Checked:
    """A model that passed: its greatest absolute error, what the photograph was taken for, and how long it all took."""

    name: str
    error: float
    tolerance: float
    photograph: str
    seconds: float


def check(recipe: Recipe, models: Path) -> Checked:
    """Check the pulled model of `recipe` below `models`. Raises CheckError with what to do."""
    started = time.perf_counter()
    folder = models / recipe.name
    _check_files(recipe, folder)
    try:
        manifest = manifests.load(folder)
        engine = OnnxEngine(folder / "1" / "model.onnx", manifest.instances.threads)
        try:
            error = _greatest_error(recipe, engine)
            seen = "" if recipe.photograph is None else _look(recipe.photograph, engine, manifest, folder)
        finally:
            engine.close()
    except (ConfigError, EngineLoadError) as error_:
        raise CheckError(str(error_)) from error_
    except EngineError as error_:
        raise CheckError(f"{folder}: the model fails: {error_}; {_again(recipe)}") from error_
    return Checked(recipe.name, error, recipe.fixture.tolerance, seen, time.perf_counter() - started)


def _again(recipe: Recipe) -> str:
    return f"move the folder away and run 'headrace models pull {recipe.name}'"


def _check_files(recipe: Recipe, folder: Path) -> None:
    if not folder.is_dir():
        raise CheckError(f"{folder} does not exist: run 'headrace models pull {recipe.name}'")
    stamp = read_stamp(folder)
    if stamp is None:
        raise CheckError(f"{folder} was not made by the zoo (it has no readable stamp): {_again(recipe)}")
    for path, written in stamp.files.items():
        try:
            actual = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        except OSError as error:
            raise CheckError(f"{folder / path} cannot be read ({error.strerror}): {_again(recipe)}") from error
        if actual != written.sha256 and path != manifests.FILE_NAME:
            raise CheckError(f"{folder / path} is damaged or was changed (SHA-256 differs): {_again(recipe)}")


def _greatest_error(recipe: Recipe, engine: OnnxEngine) -> float:
    outputs = engine.run(recipe.fixture.inputs())
    greatest = 0.0
    with np.load(_FIXTURES / recipe.fixture.file) as expected:
        for name in expected.files:
            wanted, got = expected[name], outputs.get(name)
            if got is None or got.shape != wanted.shape:
                raise CheckError(f"{recipe.name}: output '{name}' is missing or of another shape; {_again(recipe)}")
            greatest = max(greatest, float(np.abs(got - wanted).max()))
    if not greatest <= recipe.fixture.tolerance:
        raise CheckError(
            f"{recipe.name} computes something else: greatest error {greatest:.3g} on its fixture,"
            f" {recipe.fixture.tolerance:.3g} allowed; {_again(recipe)}"
        )
    return greatest


def _look(photograph: Photograph, engine: OnnxEngine, manifest: Manifest, folder: Path) -> str:
    if manifest.image is None or manifest.classify is None:
        raise CheckError(f"{folder}: its manifest has no [image] and [classify]; restore them or pull it again")
    pixels = _pixels(_FIXTURES / photograph.file, manifest.image)
    scores = engine.run({manifest.image.input: pixels})[manifest.classify.output][0].astype(np.float64)
    probabilities = np.exp(scores - scores.max())
    probabilities /= probabilities.sum()
    best = int(probabilities.argmax())
    label = (folder / manifest.classify.labels).read_text(encoding="utf-8").splitlines()[best]
    seen = f"{label} ({probabilities[best]:.0%})"
    if label != photograph.label or probabilities[best] < photograph.least_probability:
        raise CheckError(
            f"{manifest.name} takes the photograph {photograph.file} for {seen}, expected '{photograph.label}':"
            " look at the manifest's [image] numbers and labels"
        )
    return seen


def _pixels(path: Path, how: manifests.Image) -> Array:
    """The photograph as [1, 3, height, width] or [1, height, width, 3] float32."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    ratio = max(how.width / image.width, how.height / image.height) / how.crop
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), _RESAMPLING[how.interpolation])
    left, top = (image.width - how.width) // 2, (image.height - how.height) // 2
    array: Array = np.asarray(image.crop((left, top, left + how.width, top + how.height)), np.float32)
    array = array[:, :, ::-1] if how.color == "BGR" else array
    array = (array - np.array(how.mean, np.float32)) / np.array(how.scale, np.float32)
    array = array.transpose(2, 0, 1) if how.layout == "NCHW" else array
    return np.ascontiguousarray(array[np.newaxis])
