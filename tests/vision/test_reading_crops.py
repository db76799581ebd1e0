from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from engines.sections.reading import Recognition
from services.vision.reading_crops import cut, is_tall, parts, tensor_of, turned

NUMBERS = Recognition(height=48, width_step=64)


def page_with_bar(angle=0):
    """White, with a bar of 200 x 40 in the middle: red in its first quarter, blue in the rest."""
    image = Image.new("RGB", (400, 400), "white")
    image.paste((220, 30, 30), (100, 180, 150, 220))
    image.paste((30, 30, 220), (150, 180, 300, 220))
    return np.asarray(image.rotate(-angle, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)))


def bar(angle=0):
    corners = np.array([(100, 180), (300, 180), (300, 220), (100, 220)], float) - 200
    turn = np.radians(angle)
    matrix = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    return (corners @ matrix + 200).astype(np.float32)


@pytest.mark.parametrize("angle", [0, 20, -35, 90, 180, 270])
def test_a_line_is_cut_out_straight_from_its_first_corner_on(angle):
    strip = cut(page_with_bar(angle), bar(angle), 48)
    assert strip.shape == (48, 240, 3)
    red, blue = strip[8:40, 8:50].reshape(-1, 3).mean(0), strip[8:40, 70:230].reshape(-1, 3).mean(0)
    assert red[0] > 180
    assert red[2] < 80
    assert blue[2] > 180
    assert blue[0] < 80


def test_turned_lines_begin_at_another_corner():
    quad = bar()
    assert turned(quad, 2)[0].tolist() == quad[2].tolist()
    assert not is_tall(quad)
    assert is_tall(turned(quad, 1))
    strip = cut(page_with_bar(), turned(quad, 2), 48)
    assert strip[24, 20, 2] > 180  # Upside down: blue comes first.


def test_a_huge_line_is_shrunk_without_skipping_pixels():
    page = np.zeros((1000, 3000, 3), np.uint8)
    page[:, ::2] = 200  # Stripes of a pixel: their mean is 100.
    strip = cut(page, np.array([(0, 0), (3000, 0), (3000, 1000), (0, 1000)], np.float32), 48)
    assert strip.shape == (48, 144, 3)
    assert strip[10:38, 10:130].mean() == pytest.approx(100, abs=4)
    assert np.ptp(strip[10:38, 10:130].astype(int)) < 40


@pytest.mark.parametrize("quad", [[(5, 5), (5, 5), (5, 5), (5, 5)], [(-50, -9), (900, -9), (900, 2), (-50, 2)]])
def test_outlines_without_area_or_beyond_the_page_are_cut_all_the_same(quad):
    strip = cut(np.zeros((20, 30, 3), np.uint8), np.array(quad, np.float32), 48)
    assert strip.shape[0] == 48
    assert strip.shape[1] >= 1


def written(width, words):
    """A strip with dark stripes where words are: (from, to) pairs."""
    strip = np.full((48, width, 3), 250, np.uint8)
    for start, end in words:
        strip[10:38, start:end:3] = 10
        strip[10:38, start + 1 : end : 3] = 60
        strip[10:38, start + 2 : end : 3] = 60
    return strip


def test_a_long_line_is_cut_between_words():
    words = [(10, 150), (165, 300), (316, 390), (405, 600), (612, 700)]
    found = parts(written(720, words), 400)
    edges = np.cumsum([strip.pixels.shape[1] for strip in found])
    assert edges[-1] == 720
    assert all(strip.pixels.shape[1] <= 400 for strip in found)
    assert all(any(end <= edge <= start for (_, end), (start, _) in pairwise(words)) for edge in edges[:-1])
    assert [strip.spaced for strip in found] == [False, *[True] * (len(found) - 1)]


def test_a_line_without_gaps_is_cut_all_the_same_and_a_short_one_is_whole():
    assert not any(strip.spaced for strip in parts(written(900, [(0, 900)]), 400))
    (whole,) = parts(written(300, [(10, 290)]), 400)
    assert whole.pixels.shape == (48, 300, 3)
    assert sum(strip.pixels.shape[1] for strip in parts(np.zeros((48, 20_001, 3), np.uint8), 320)) == 20_001


def test_few_widths_reach_the_network():
    tensor = tensor_of(np.full((48, 130, 3), 255, np.uint8), NUMBERS)
    assert tensor.shape == (1, 3, 48, 192)
    assert (tensor[..., :130] == 1.0).all()
    assert (tensor[..., 130:] == 0.0).all()
