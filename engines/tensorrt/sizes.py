"""How large a model's tensors get, from its manifest: what the profiles of its plans must cover. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from engines.base import TensorSpec
from engines.manifest import Manifest
from engines.tensorrt.libraries import TensorRTError
from engines.tensorrt.profiles import Stretch, buckets_for, stretches

_GIVEN: Final = re.compile(r"(?P<name>[^=]+)=(?:(?P<least>\d+):)?(?P<greatest>[1-9]\d*(?:,[1-9]\d*)*)")
#: Most texts of a queue are far shorter than the longest that a model reads.
_SHORT_TEXT: Final = 32


def rows(manifest: Manifest) -> tuple[int, ...]:
    """The greatest row counts of the profiles."""
    return buckets_for(manifest.batching.max_rows)


def dimensions(manifest: Manifest, inputs: Sequence[TensorSpec]) -> dict[str, tuple[Stretch, ...]]:
    """The stretches of the open dimensions that the manifest tells, by their names in the ONNX file.

    `[dimensions]` says them; the tokens of a text model and the pixels of a picture model are known without.
    """
    found: dict[str, tuple[Stretch, ...]] = {}
    open_sizes = [(spec, axis) for spec in inputs for axis, size in enumerate(spec.shape) if isinstance(size, str)]
    for spec, axis in open_sizes:
        name, image = str(spec.shape[axis]), manifest.image
        if axis > 0 and manifest.text is not None and not manifest.text.encoder:
            most = manifest.text.max_tokens
            found[name] = stretches((_SHORT_TEXT, most) if most > _SHORT_TEXT else (most,))
        elif axis > 0 and image is not None and spec.name == image.input:
            pixels = (3, image.height, image.width) if image.layout == "NCHW" else (image.height, image.width, 3)
            found[name] = (Stretch(pixels[axis - 1], pixels[axis - 1]),)
    return found | {
        name: stretches(dimension.greatest, dimension.least) for name, dimension in manifest.dimensions.items()
    }


def parse(given: Sequence[str]) -> Mapping[str, tuple[Stretch, ...]]:
    """What a command line says: `tokens=256`, `tokens=32,256`, `past=0:64,448`. Raises TensorRTError."""
    found: dict[str, tuple[Stretch, ...]] = {}
    for item in given:
        match = _GIVEN.fullmatch(item)
        greatest = [int(size) for size in match["greatest"].split(",")] if match else []
        least = int(match["least"] or 1) if match else 0
        if match is None or greatest != sorted(set(greatest)) or least > greatest[0]:
            raise TensorRTError(
                f"--dim {item}: write it as name=N, such as tokens=256; name=32,256 to be at its best at 32 too;"
                " name=0:448 where the least is not 1"
            )
        found[match["name"]] = stretches(greatest, least)
    return found
