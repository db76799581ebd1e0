"""The lines of a page as a recogniser takes them: cut out, straightened, scaled to one height, few widths."""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engines.sections.reading import Recognition
from services.vision.reading_boxes import Quad
from services.vision.reading_tiles import normalised

Pixels = npt.NDArray[np.uint8]

_TALL: Final = 1.5  # Times the width: then the line runs up or down.
_SHARP: Final = 2.0  # Times the network's height: what is higher is shrunk before it is warped.
_WORD_GAP: Final = 0.12  # Of the height: a narrower gap is one between letters.
_CUT_FROM: Final = 0.6


@dataclass(frozen=True, slots=True)
class Strip:
    """A line, or a part of one: `pixels` [height, width, 3]; `spaced`: a gap as between words stands before it."""

    pixels: Pixels
    spaced: bool = False


def is_tall(quad: Quad) -> bool:
    """Whether the outline is of a line that runs up or down."""
    return bool(np.linalg.norm(quad[3] - quad[0]) >= _TALL * np.linalg.norm(quad[1] - quad[0]))


def turned(quad: Quad, quarters: int) -> Quad:
    """The outline of the same line, its text turned clockwise by so many quarters: other corners come first."""
    return np.roll(quad, -quarters, axis=0)


def cut(page: Pixels, quad: Quad, height: int) -> Pixels:
    """The line in `quad`, whose first corner is the text's top left, straight and `height` pixels high."""
    wide = max(float(np.linalg.norm(quad[1] - quad[0])), float(np.linalg.norm(quad[2] - quad[3])), 1.0)
    high = max(float(np.linalg.norm(quad[3] - quad[0])), float(np.linalg.norm(quad[2] - quad[1])), 1.0)
    page, quad, shrink = _shrunk(page, quad, min(1.0, _SHARP * height / high))
    size = (max(1, round(wide * shrink)), max(1, round(high * shrink)))
    corners = np.array([(0, 0), (size[0], 0), size, (0, size[1])], np.float32)
    matrix = cv2.getPerspectiveTransform(np.ascontiguousarray(quad, np.float32), corners)
    straight = cv2.warpPerspective(page, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    width = max(1, math.ceil(height * size[0] / size[1]))
    return np.asarray(cv2.resize(straight, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _shrunk(page: Pixels, quad: Quad, shrink: float) -> tuple[Pixels, Quad, float]:
    """The surroundings of the outline, so scaled that the warp does not skip pixels."""
    if shrink >= 1.0:
        return page, quad, 1.0
    rows, columns = page.shape[:2]
    left, top = np.clip(np.floor(quad.min(0)).astype(int), 0, (columns - 1, rows - 1))
    right, bottom = np.clip(np.ceil(quad.max(0)).astype(int) + 1, (left + 1, top + 1), (columns, rows))
    size = (max(1, round((right - left) * shrink)), max(1, round((bottom - top) * shrink)))
    part = cv2.resize(page[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
    scale = np.array((size[0] / (right - left), size[1] / (bottom - top)))
    return np.asarray(part, np.uint8), ((quad - (left, top)) * scale).astype(np.float32), shrink


def parts(line: Pixels, max_width: int) -> list[Strip]:
    """The line in parts of at most `max_width` pixels, cut where least is written."""
    strips: list[Strip] = []
    spaced = False
    while line.shape[1] > max_width:
        place, gap = _gap(line[:, :max_width])
        strips.append(Strip(line[:, :place], spaced))
        line, spaced = line[:, place:], gap >= _WORD_GAP * line.shape[0]
    return [*strips, Strip(line, spaced)]


def _gap(line: Pixels) -> tuple[int, int]:
    """The middle of the widest gap in the last part of the line, and the gap's width in pixels."""
    grey = line.mean(axis=2)
    contrast = np.ptp(grey, axis=0)
    empty = contrast <= contrast.min() + 0.25 * (contrast.max() - contrast.min())
    start = int(line.shape[1] * _CUT_FROM)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], empty[start:], [False]]).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    if len(begins) == 0:
        return start + int(contrast[start:].argmin()) or 1, 0
    widest = int((ends - begins).argmax())
    return start + int(begins[widest] + ends[widest]) // 2 or 1, int(ends[widest] - begins[widest])


def tensor_of(strip: Pixels, numbers: Recognition) -> npt.NDArray[np.float32]:
    """[1, 3, height, width] float32; the width is the next multiple of `width_step`, filled up with zeros."""
    height, width = strip.shape[:2]
    values = normalised(strip, numbers.mean, numbers.scale, numbers.color)
    padded = np.zeros((1, 3, height, -(-width // numbers.width_step) * numbers.width_step), np.float32)
    padded[..., :width] = values
    return padded
