"""Proof of a classifier of pictures: it recognises a photograph that the project carries."""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from engines import manifest as manifests
from engines.base import Array
from engines.zoo.errors import CheckError
from engines.zoo.recipe import Bench, Proof

_RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def sees(file: str, label: str, least_probability: float) -> Proof:
    """The picture `file` of the fixtures gets `label`, with at least this probability (0..1)."""

    def look(bench: Bench) -> str:
        manifest = manifests.load(bench.folder)
        if manifest.image is None or manifest.classify is None:
            raise CheckError(
                f"{bench.folder}: its manifest has no [image] and [classify]; restore them or pull it again"
            )
        pixels = _pixels(bench.fixtures / file, manifest.image)
        outputs = bench.engine(manifest.name).run({manifest.image.input: pixels})
        scores = outputs[manifest.classify.output][0].astype(np.float64)
        probabilities = np.exp(scores - scores.max())
        probabilities /= probabilities.sum()
        best = int(probabilities.argmax())
        found = (bench.folder / manifest.classify.labels).read_text(encoding="utf-8").splitlines()[best]
        if found != label or probabilities[best] < least_probability:
            raise CheckError(
                f"{manifest.name} takes the photograph {file} for {found} ({probabilities[best]:.0%}), expected"
                f" '{label}': look at the manifest's [image] numbers and labels"
            )
        return f"sees: {found} ({probabilities[best]:.0%})"

    return look


def _pixels(path: Path, how: manifests.Image) -> Array:
    with Image.open(path) as opened:
        return tensor(opened.convert("RGB"), how)


def tensor(image: Image.Image, how: manifests.Image) -> Array:
    """An RGB picture as [1, 3, height, width] or [1, height, width, 3] float32, as the service would make it."""
    ratio = max(how.width / image.width, how.height / image.height) / how.crop
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), _RESAMPLING[how.interpolation])
    left, top = (image.width - how.width) // 2, (image.height - how.height) // 2
    array: Array = np.asarray(image.crop((left, top, left + how.width, top + how.height)), np.float32)
    array = array[:, :, ::-1] if how.color == "BGR" else array
    array = (array - np.array(how.mean, np.float32)) / np.array(how.scale, np.float32)
    array = array.transpose(2, 0, 1) if how.layout == "NCHW" else array
    return np.ascontiguousarray(array[np.newaxis])
