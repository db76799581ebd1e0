"""What a detector looks at: a page scaled to the network's sizes, in overlapping tiles where one look is too coarse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engines.sections.reading import Detection
from services.vision.reading_boxes import Quad, Quads, ordered

_OVERLAP: Final = 128
_SMALL: Final = 128  # Pixels of the network: the text of so low a picture touches its edges.
_MARGIN: Final = 16
_MAX_TILES: Final = 48
_SAME_LINE: Final = 0.6  # Of the lower outline's height.


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a page, in its pixels, that becomes `inner` (width, height) pixels amid an input of `size`."""

    left: int
    top: int
    right: int
    bottom: int
    inner: tuple[int, int]
    size: tuple[int, int]

    @property
    def offset(self) -> tuple[int, int]:
        """Where in the input the part begins: x, y."""
        return (self.size[0] - self.inner[0]) // 2, (self.size[1] - self.inner[1]) // 2

    def to_page(self, quads: Quads) -> Quads:
        """Outlines in pixels of the input as outlines in pixels of the page."""
        scale = ((self.right - self.left) / self.inner[0], (self.bottom - self.top) / self.inner[1])
        moved = (quads - np.array(self.offset)) * np.array(scale) + np.array((self.left, self.top))
        return np.asarray(moved, np.float32)


def first_scale(width: int, height: int, numbers: Detection) -> float:
    """Pixels of the network for one of the page: its longer side fits, unless it is more than twice the shorter one."""
    longer, shorter = max(width, height), min(width, height)
    return min(1.0, max(numbers.max_side / longer, numbers.least_scale, min(1.0, numbers.max_side / 2 / shorter)))


def finer_scale(scale: float, heights: npt.NDArray[np.floating], numbers: Detection) -> float:
    """The scale of a second look, where the lower lines of the first one are too small for it, else the same scale.

    `heights` of the lines are in the page's pixels.
    """
    if len(heights) == 0 or scale >= 1.0:
        return scale
    low = float(np.percentile(heights, 10)) * scale
    return min(1.0, scale * 2.0) if low < numbers.fine_height else scale


def tiles_of(width: int, height: int, scale: float, numbers: Detection) -> list[Tile]:
    """The tiles that cover a page of width x height pixels at this scale; all have the same `size`."""
    side = max(numbers.max_side // numbers.multiple, 1) * numbers.multiple
    while True:
        columns, rows = (_cuts(length, scale, side) for length in (width, height))
        if len(columns) * len(rows) <= _MAX_TILES:
            break
        scale *= 0.8
    margin = 2 * _MARGIN if min(width, height) * scale < _SMALL else 0
    part = (columns[0][1] - columns[0][0], rows[0][1] - rows[0][0])
    across, down = (min(_up(max(1, round(length * scale)) + margin, numbers.multiple), side) for length in part)
    size = (across, down)
    return [
        Tile(left, top, right, bottom, _inner((right - left, bottom - top), scale, size), size)
        for top, bottom in rows
        for left, right in columns
    ]


def _inner(part: tuple[int, int], scale: float, size: tuple[int, int]) -> tuple[int, int]:
    width, height = (max(1, min(round(length * scale), limit)) for length, limit in zip(part, size, strict=True))
    return width, height


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _cuts(length: int, scale: float, side: int) -> list[tuple[int, int]]:
    """Equal parts of an axis, in the page's pixels, that overlap and are at most `side` long at this scale."""
    if round(length * scale) <= side:
        return [(0, length)]
    part = math.floor(side / scale)
    overlap = min(round(_OVERLAP / scale), part // 2)
    count = math.ceil((length - overlap) / (part - overlap))
    starts = [round(index * (length - part) / (count - 1)) for index in range(count)]
    return [(start, start + part) for start in starts]


def tensor_of(pixels: npt.NDArray[np.uint8], tile: Tile, numbers: Detection) -> npt.NDArray[np.float32]:
    """The tile as the network takes it: [1, 3, height, width] float32, its edges continued to those of the input."""
    part = pixels[tile.top : tile.bottom, tile.left : tile.right]
    shrinks = tile.inner[0] < part.shape[1]
    scaled = cv2.resize(part, tile.inner, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    (left, top), (width, height) = tile.offset, tile.size
    below, after = height - top - tile.inner[1], width - left - tile.inner[0]
    framed = cv2.copyMakeBorder(scaled, top, below, left, after, cv2.BORDER_REPLICATE)
    return normalised(framed, numbers.mean, numbers.scale, numbers.color)


def normalised(
    pixels: npt.NDArray[np.uint8], mean: Sequence[float], scale: Sequence[float], color: str
) -> npt.NDArray[np.float32]:
    """RGB [height, width, 3] as [1, 3, height, width] float32: (pixel - mean) / scale in the order of `color`."""
    planes = (pixels[:, :, ::-1] if color == "BGR" else pixels).transpose(2, 0, 1)
    tensor = np.empty((1, *planes.shape), np.float32)
    np.subtract(planes, np.asarray(mean, np.float32)[:, None, None], out=tensor[0])
    tensor[0] *= (np.float32(1.0) / np.asarray(scale, np.float32))[:, None, None]
    return tensor


def merged(found: Sequence[Quads]) -> Quads:
    """The outlines of overlapping tiles as those of one page: pieces of the same line become one outline."""
    if len(found) == 1:
        return found[0]
    lines = np.zeros((0, 4, 2), np.float32)
    for quads in found:
        rest = np.ones(len(lines), bool)
        bounds = (lines.min(1), lines.max(1))
        fresh = [_joined(quad, lines, bounds, rest) for quad in quads]
        lines = np.concatenate([lines[rest], np.array(fresh, np.float32).reshape(-1, 4, 2)])
    return lines


def _joined(quad: Quad, lines: Quads, bounds: tuple[Quads, Quads], rest: npt.NDArray[np.bool_]) -> Quad:
    """The outline with its pieces among `lines` added; they are struck out of `rest`."""
    while True:
        near = rest & (np.maximum(bounds[0], quad.min(0)) < np.minimum(bounds[1], quad.max(0))).all(1)
        pieces = [index for index in np.flatnonzero(near) if _same_line(quad, lines[index])]
        if not pieces:
            return quad
        rest[pieces] = False
        quad = ordered(cv2.boxPoints(cv2.minAreaRect(np.concatenate([quad, *lines[pieces]]))))


def _same_line(one: Quad, other: Quad) -> bool:
    """Whether two outlines cover each other, or continue each other along the longer one's direction."""
    sides = [max(np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[0])) for quad in (one, other)]
    longer = one if sides[0] >= sides[1] else other
    along, down = longer[1] - longer[0], longer[3] - longer[0]
    axis = along if np.linalg.norm(along) >= np.linalg.norm(down) else down
    axis = axis / max(float(np.linalg.norm(axis)), 1e-6)
    frame = np.array([axis, (-axis[1], axis[0])]).T
    first, second = one @ frame, other @ frame
    shared = np.minimum(first.max(0), second.max(0)) - np.maximum(first.min(0), second.min(0))
    across = min(np.ptp(first[:, 1]), np.ptp(second[:, 1]))
    return bool(shared[0] > 0 and shared[1] >= _SAME_LINE * across)
