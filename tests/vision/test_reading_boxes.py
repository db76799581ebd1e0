import cv2
import numpy as np
import pytest

from engines.sections.reading import Detection
from services.vision.reading_boxes import ordered, quads_of

NUMBERS = Detection(threshold=0.3, box_threshold=0.5, unclip=1.5)


def map_with(*rectangles, probability=0.9, shape=(200, 300)):
    made = np.zeros(shape, np.float32)
    for rectangle in rectangles:
        cv2.fillPoly(made, [cv2.boxPoints(rectangle).astype(np.int32)], probability)
    return made


def test_a_line_is_widened_by_its_area_over_its_perimeter():
    (quad,) = quads_of(map_with(((150, 100), (120, 20), 0)), NUMBERS)
    margin = 1.5 * 120 * 20 / 280
    wanted = [
        (90 - margin, 90 - margin),
        (210 + margin, 90 - margin),
        (210 + margin, 110 + margin),
        (90 - margin, 110 + margin),
    ]
    np.testing.assert_allclose(quad, wanted, atol=2)


@pytest.mark.parametrize("angle", [-30, -10, 10, 30])
def test_corners_run_clockwise_from_the_top_left(angle):
    (quad,) = quads_of(map_with(((150, 100), (120, 20), angle)), NUMBERS)
    along, down = quad[1] - quad[0], quad[3] - quad[0]
    assert np.degrees(np.arctan2(along[1], along[0])) == pytest.approx(angle, abs=2)
    assert along[0] * down[1] - along[1] * down[0] > 0
    assert np.linalg.norm(along) > 2.5 * np.linalg.norm(down)


def test_every_line_is_found_and_specks_and_doubtful_ones_are_not():
    lines = [((150, top), (200, 12), 0) for top in (30, 60, 90)]
    probability = map_with(*lines, ((20, 150), (1, 1), 0))
    probability += map_with(((150, 150), (200, 12), 0), probability=0.35)
    found = quads_of(probability, NUMBERS)
    assert sorted(round(float(quad[:, 1].mean())) for quad in found) == pytest.approx([30, 60, 90], abs=1)


def test_nothing_is_found_in_nothing():
    assert quads_of(np.zeros((64, 64), np.float32), NUMBERS).shape == (0, 4, 2)
    assert quads_of(np.zeros((1, 1), np.float32), NUMBERS).shape == (0, 4, 2)


def test_a_picture_full_of_specks_gives_no_more_lines_than_allowed():
    probability = np.zeros((400, 400), np.float32)
    for top in range(0, 400, 10):
        for left in range(0, 400, 20):
            probability[top : top + 5, left : left + 12] = 1.0
    assert len(quads_of(probability, NUMBERS)) == 800
    assert len(quads_of(probability, NUMBERS.model_copy(update={"max_lines": 50}))) == 50


def test_corners_are_put_in_order_from_any():
    square = np.array([(10, 0), (30, 0), (30, 8), (10, 8)], np.float32)
    for turn in range(4):
        assert ordered(np.roll(square, turn, axis=0)).tolist() == square.tolist()
