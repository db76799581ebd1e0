"""A page to be read: its pixels upright, and the way back to the pixels of the picture as it was sent.

Outlines are told in the picture's own pixels, as its file stores them: where EXIF says that viewers turn the picture,
it is turned for reading, and the outlines are turned back.
"""

import io
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from services.vision.transforms import ORIENTATION_TAG, READERS, UPRIGHT, ImageSpec, decode, sniff

#: A page is kept at this many pixels at most while its lines are read: A4 at 300 dpi has 8.7 million.
WORKING_PIXELS: Final = 16_000_000

Points = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Page:
    """`pixels` [height, width, 3] uint8, red, green, blue, upright; `width` and `height` of the picture as stored."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    orientation: int = 1

    def as_sent(self, points: Points) -> Points:
        """Points [n, 2] of `pixels` as points of the stored picture, float64, within it."""
        swapped = self.orientation >= 5
        full = (self.height, self.width) if swapped else (self.width, self.height)
        rows, columns = self.pixels.shape[:2]
        x, y = (np.asarray(points, np.float64) * (full[0] / columns, full[1] / rows)).T
        width, height = self.width, self.height
        stored = {
            2: (width - x, y),
            3: (width - x, height - y),
            4: (x, height - y),
            5: (y, x),
            6: (y, height - x),
            7: (width - y, height - x),
            8: (width - y, x),
        }.get(self.orientation, (x, y))
        return np.asarray(np.clip(np.stack(stored, axis=1), 0, (width, height)))


def load_page(content: bytes, max_pixels: int) -> Page:
    """Decode a whole picture, alpha laid over white. Raises ImageError, as `transforms.load_image` does."""
    name = sniff(content)
    side = _least_side(content) if name == "JPEG" else 1
    image, orientation = decode(content, ImageSpec(side, side, max_pixels=max_pixels))
    stored = _stored_size(content, name, image)
    if name == "TIFF":
        # Its reader has turned the pixels by itself, and forgotten so.
        orientation, turn = _tiff_orientation(content), None
        stored = stored[::-1] if orientation >= 5 else stored
    else:
        turn = UPRIGHT.get(orientation)
    orientation = orientation if orientation in UPRIGHT else 1
    shrink = math.sqrt(WORKING_PIXELS / (image.width * image.height))
    if shrink < 1:
        size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
        image = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    upright = image if turn is None else image.transpose(turn)
    return Page(np.asarray(upright), *stored, orientation)


def _least_side(content: bytes) -> int:
    """How long the shorter side of a JPEG must stay when it is decoded at a fraction of its size."""
    size = _jpeg_size(content)
    if size is None:
        return 65_535
    shrink = math.sqrt(WORKING_PIXELS / max(size[0] * size[1], 1))
    return math.ceil(min(size) * min(shrink, 1.0))


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    try:
        height, width = simplejpeg.decode_jpeg_header(content, strict=False)[:2]
    except (ValueError, KeyError):  # Left to Pillow's verdict, as `decode` does.
        return None
    return int(width), int(height)


def _stored_size(content: bytes, name: str, image: Image.Image) -> tuple[int, int]:
    """Width and height as the file says: a JPEG may have been decoded at a fraction of them."""
    if name != "JPEG":
        return image.size
    size = _jpeg_size(content)
    if size is not None:
        return size
    with READERS[name](io.BytesIO(content)) as stored:
        return stored.size


def _tiff_orientation(content: bytes) -> int:
    with READERS["TIFF"](io.BytesIO(content)) as stored:
        orientation = stored.getexif().get(ORIENTATION_TAG, 1)
    return orientation if isinstance(orientation, int) else 1
