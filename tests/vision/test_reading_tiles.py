from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.sections.reading import Detection
from services.vision.reading_boxes import ordered
from services.vision.reading_tiles import finer_scale, first_scale, merged, tensor_of, tiles_of

NUMBERS = Detection(max_side=320, multiple=32, fine_height=5.0, least_scale=0.1)


def line(left, top, right, bottom, angle=0.0):
    """An outline, turned about the origin by `angle` degrees."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
    return (corners @ np.array([(cosine, sine), (-sine, cosine)])).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000), finer=st.booleans())
def test_tiles_cover_the_page_in_one_size_that_the_network_takes(width, height, finer):
    scale = first_scale(width, height, NUMBERS) * (2.0 if finer else 1.0)
    tiles = tiles_of(width, height, min(scale, 1.0), NUMBERS)
    (size,) = {tile.size for tile in tiles}
    assert all(side % 32 == 0 and 32 <= side <= 320 for side in size)
    assert len(tiles) <= 48
    for axis, length in ((0, width), (1, height)):
        spans = sorted({((tile.left, tile.right), (tile.top, tile.bottom))[axis] for tile in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(one[1] > other[0] for one, other in pairwise(spans))
    for tile in tiles:
        assert all(1 <= inner <= side for inner, side in zip(tile.inner, size, strict=True))


def test_a_page_is_looked_at_whole_and_a_long_strip_in_parts():
    numbers = Detection(max_side=960)
    assert len(tiles_of(1240, 1754, first_scale(1240, 1754, numbers), numbers)) == 1
    assert first_scale(700, 9000, numbers) == pytest.approx(480 / 700)
    assert 6 < len(tiles_of(700, 9000, first_scale(700, 9000, numbers), numbers)) < 10
    assert first_scale(640, 480, numbers) == 1.0
    assert first_scale(9000, 6000, numbers) == 0.3


def test_a_second_look_is_for_low_lines_only():
    assert finer_scale(0.25, np.array([40.0, 60.0]), NUMBERS) == 0.25
    assert finer_scale(0.25, np.array([12.0, 60.0]), NUMBERS) == 0.5
    assert finer_scale(0.25, np.array([]), NUMBERS) == 0.25
    assert finer_scale(0.8, np.array([2.0]), NUMBERS) == 1.0
    assert finer_scale(1.0, np.array([2.0]), NUMBERS) == 1.0


def test_what_is_found_in_a_tile_is_where_it_is_on_the_page():
    page = np.full((1500, 700, 3), 255, np.uint8)
    page[900:960, 200:500] = 0
    seen = 0
    for tile in tiles_of(700, 1500, 0.4, NUMBERS):
        tensor = tensor_of(page, tile, NUMBERS)
        assert tensor.shape == (1, 3, tile.size[1], tile.size[0])
        dark = (tensor[0].mean(0) < 0).astype(np.uint8)
        if dark.sum() < 0.9 * 300 * 60 * 0.16:
            continue
        quad = ordered(cv2.boxPoints(cv2.minAreaRect(cv2.findNonZero(dark))))
        np.testing.assert_allclose(tile.to_page(quad[np.newaxis])[0][[0, 2]], [(200, 900), (500, 960)], atol=6)
        seen += 1
    assert seen >= 1


def test_small_pictures_get_a_margin():
    (tile,) = tiles_of(79, 11, 1.0, NUMBERS)
    assert tile.size == (128, 64)
    assert tile.inner == (79, 11)
    assert min(tile.offset) > 8


def test_channels_come_in_the_order_and_range_of_the_network():
    numbers = Detection(color="BGR", mean=(10, 20, 30), scale=(1, 2, 4))
    page = np.zeros((64, 64, 3), np.uint8)
    page[:] = (50, 60, 70)  # Red, green, blue.
    tensor = tensor_of(page, tiles_of(64, 64, 1.0, numbers)[0], numbers)
    assert tensor[0, :, 30, 30].tolist() == [(70 - 10) / 1, (60 - 20) / 2, (50 - 30) / 4]


@pytest.mark.parametrize("angle", [0, 8, -8])
def test_pieces_of_a_line_become_one_and_neighbours_stay_apart(angle):
    lines = [line(0, top, 1000, top + 30, angle) for top in (0, 40, 80)]
    left = np.array([line(0, top, 560, top + 30, angle) for top in (0, 40, 80)])
    right = np.array([line(480, top + 1, 1000, top + 30, angle) for top in (0, 40, 80)])
    whole = merged([left, right])
    assert len(whole) == 3
    for found, wanted in zip(sorted(whole.tolist(), key=lambda quad: quad[0][1]), lines, strict=True):
        np.testing.assert_allclose(found, wanted, atol=3)


def test_a_line_cut_by_the_edge_of_a_tile_is_the_line_that_its_neighbour_sees():
    above = np.array([line(10, 0, 400, 30), line(10, 50, 400, 62)])
    below = np.array([line(10, 50, 400, 80), line(10, 100, 400, 130)])
    tops = sorted(round(float(quad[:, 1].min())) for quad in merged([above, below]))
    assert tops == [0, 50, 100]


def test_words_far_apart_in_a_row_stay_apart():
    assert len(merged([line(0, 0, 50, 20)[np.newaxis], line(80, 0, 130, 20)[np.newaxis]])) == 2
    assert merged([np.zeros((0, 4, 2), np.float32)] * 3).shape == (0, 4, 2)


def test_thousands_of_outlines_are_merged_in_time():
    grid = np.array([line(60 * (n % 40), 30 * (n // 40), 60 * (n % 40) + 50, 30 * (n // 40) + 20) for n in range(2000)])
    assert len(merged([grid, grid + 1])) == 2000
