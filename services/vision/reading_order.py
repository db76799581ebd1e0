"""In which order the lines of a page are read: columns from left to right, in each rows from the top, words in a row.

The page may lie askew: rows and columns are looked for along the direction of its text.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from services.vision.reading_boxes import Quads

_SAME_ROW: Final = 0.5  # Of the lower line's height: lines that share so much of it are in one row.
_LEAST_ROWS: Final = 3  # A column of fewer rows is none.
_LEAST_FILL: Final = 0.6  # Of a column's width that its lines have: less is a column of a table, read in rows.
_LEAST_ASPECT: Final = 4.0  # Of a column's lines: shorter ones are a table's.

#: [n, 4]: left, top, right, bottom along the direction of the text.
Boxes = npt.NDArray[np.float64]


def reading_order(quads: Quads) -> list[int]:
    """The indexes of the outlines [n, 4, 2], the first corner of each being its text's top left, as they are read."""
    if len(quads) < 2:
        return list(range(len(quads)))
    return _ordered(_upright(quads), np.arange(len(quads)))


def _upright(quads: Quads) -> Boxes:
    """The outlines in a frame whose x axis is the direction of most of the text."""
    along = quads[:, 1].astype(np.float64) - quads[:, 0]
    # Directions of a line and weights: long lines say more precisely where the page looks.
    angle = float(np.angle(np.sum(along[:, 0] + 1j * along[:, 1])))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = quads.astype(np.float64) @ turn
    middles = points.mean(1)
    # A line askew to the others is as high as its side, not as its bounds.
    high = np.minimum(np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1), np.ptp(points[:, :, 1], axis=1))
    bounds = [points[:, :, 0].min(1), middles[:, 1] - high / 2, points[:, :, 0].max(1), middles[:, 1] + high / 2]
    return np.stack(bounds, axis=1)


def _ordered(boxes: Boxes, chosen: npt.NDArray[np.intp]) -> list[int]:
    gutter = _gutter(boxes[chosen])
    if gutter is None:
        return [int(chosen[index]) for index in _by_rows(boxes[chosen])]
    order: list[int] = []
    crosses = (boxes[chosen, 0] < gutter) & (boxes[chosen, 2] > gutter)
    tops = np.sort(boxes[chosen[crosses], 1])
    # Lines across the gutter part the page into bands, each with columns of its own.
    bands = np.searchsorted(tops, boxes[chosen, 1], side="right")
    for band in range(len(tops) + 1):
        inside = bands == band
        order += [int(chosen[index]) for index in np.flatnonzero(inside & crosses)]
        for side in (
            inside & ~crosses & (boxes[chosen, 2] <= gutter),
            inside & ~crosses & (boxes[chosen, 0] >= gutter),
        ):
            if side.any():
                order += _ordered(boxes, chosen[side])
    return order


def _gutter(boxes: Boxes) -> float | None:
    """Where two columns of running text part, if they do: a gap with whole columns on both sides of it."""
    if len(boxes) < 2 * _LEAST_ROWS:
        return None
    height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    best: tuple[float, float] | None = None
    for place in _gaps(boxes, height):
        left, right = boxes[boxes[:, 2] <= place], boxes[boxes[:, 0] >= place]
        crossing = len(boxes) - len(left) - len(right)
        if crossing <= min(len(left), len(right)) and _is_column(left) and _is_column(right) and _beside(left, right):
            balance = min(len(left), len(right)) - crossing
            if best is None or balance > best[0]:
                best = (balance, place)
    return None if best is None else best[1]


def _gaps(boxes: Boxes, height: float) -> list[float]:
    """The middles of what lies between right ends and left ends of lines, at least half a line's height apart."""
    rights, lefts = np.unique(boxes[:, 2]), np.unique(boxes[:, 0])
    found = []
    for left in lefts:
        before = rights[rights <= left - 0.5 * height]
        if len(before):
            found.append(float(before[-1] + left) / 2)
    return found


def _is_column(boxes: Boxes) -> bool:
    rows = len(_rows(boxes))
    if rows < _LEAST_ROWS:
        return False
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    whole = float(boxes[:, 2].max() - boxes[:, 0].min())
    filled = float(widths.sum()) / rows
    return filled >= _LEAST_FILL * whole and filled >= _LEAST_ASPECT * float(np.median(heights))


def _beside(left: Boxes, right: Boxes) -> bool:
    """Whether the two stand side by side, for at least half the height of the lower one."""
    shared = min(left[:, 3].max(), right[:, 3].max()) - max(left[:, 1].min(), right[:, 1].min())
    return bool(shared >= 0.5 * min(np.ptp(left[:, (1, 3)]), np.ptp(right[:, (1, 3)])))


def _rows(boxes: Boxes) -> list[list[int]]:
    """Indexes of the lines that stand side by side, row by row from the top."""
    rows: list[list[int]] = []
    for index in np.argsort(boxes[:, 1] + boxes[:, 3], kind="stable").tolist():
        if rows and _side_by_side(boxes, rows[-1][-1], index):
            rows[-1].append(index)
        else:
            rows.append([index])
    return rows


def _side_by_side(boxes: Boxes, one: int, other: int) -> bool:
    shared = min(boxes[one, 3], boxes[other, 3]) - max(boxes[one, 1], boxes[other, 1])
    return bool(shared >= _SAME_ROW * min(boxes[one, 3] - boxes[one, 1], boxes[other, 3] - boxes[other, 1]))


def _by_rows(boxes: Boxes) -> Sequence[int]:
    return [index for row in _rows(boxes) for index in sorted(row, key=lambda index: boxes[index, 0])]
