"""Where the lines of a page are: from the detector's map of probabilities to outlines, after DB.

Method: Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", AAAI 2020.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engines.sections.reading import Detection

#: [n, 4, 2] float32: n outlines of 4 points (x, y), clockwise from the top left.
Quads = npt.NDArray[np.float32]
#: [4, 2] float32: one of them.
Quad = npt.NDArray[np.float32]

_MIN_SIDE = 3.0  # Pixels of the map, before widening.


def quads_of(probability: npt.NDArray[Any], numbers: Detection) -> Quads:
    """Outlines of the text in a map [height, width] of probabilities, in its pixels."""
    mask = (probability > numbers.threshold).astype(np.uint8)
    mask = cv2.dilate(mask, np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in sorted(contours, key=len, reverse=True)[: numbers.max_lines]:
        center, (width, height), angle = cv2.minAreaRect(contour)
        if (
            min(width, height) < _MIN_SIDE
            or _score(probability, (center, (width, height), angle)) < numbers.box_threshold
        ):
            continue
        margin = 2 * numbers.unclip * width * height / (2 * (width + height))
        found.append(ordered(cv2.boxPoints((center, (width + margin, height + margin), angle))))
    return np.array(found, np.float32).reshape(-1, 4, 2)


def _score(probability: npt.NDArray[Any], rectangle: Any) -> float:
    points = cv2.boxPoints(rectangle)
    height, width = probability.shape
    left, top = np.clip(np.floor(points.min(0)).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(points.max(0)).astype(int), 0, (width - 1, height - 1))
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(points - (left, top)).astype(np.int32)], 1)
    return float(cv2.mean(probability[top : bottom + 1, left : right + 1], mask)[0])


def ordered(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Four corners of a rectangle clockwise from the top left."""
    by_x = points[np.argsort(points[:, 0], kind="stable")]
    left, right = by_x[:2], by_x[2:]
    top_left, bottom_left = left[np.argsort(left[:, 1], kind="stable")]
    top_right, bottom_right = right[np.argsort(right[:, 1], kind="stable")]
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32)
