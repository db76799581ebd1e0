import numpy as np
import pytest

from services.vision.reading_order import reading_order


def quads(*boxes):
    """Outlines of (left, top, right, bottom)."""
    return np.array([[(l, t), (r, t), (r, b), (l, b)] for l, t, r, b in boxes], np.float32)  # noqa: E741 - corners


def column(left, right, tops, height=20):
    return [(left, top, right, top + height) for top in tops]


def turned(outlines, degrees):
    """The page turned clockwise about its middle, each outline still beginning at its text's top left."""
    angle = np.radians(degrees)
    matrix = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return ((outlines - 500) @ matrix + 500).astype(np.float32)


def shuffled_order(outlines):
    """The order in which the outlines are read, by their given places, when they come in any order."""
    places = np.random.default_rng(4).permutation(len(outlines))
    return [int(places[index]) for index in reading_order(outlines[places])]


ROWS = quads(*column(100, 900, range(100, 500, 40)))
WORDS = quads(
    *((left, 100 + 40 * row + (left % 3), left + 90, 124 + 40 * row) for row in range(4) for left in (100, 200, 400))
)
COLUMNS = quads(*column(100, 480, range(100, 900, 30)), *column(540, 900, range(105, 905, 30)))
WITH_HEADING = quads(
    (200, 20, 800, 70),
    *column(100, 480, range(100, 400, 30)),
    *column(540, 900, range(110, 410, 30)),
    (100, 450, 900, 480),
    *column(100, 480, range(500, 800, 30)),
    *column(540, 900, range(510, 810, 30)),
)
TABLE = quads(
    *(
        (left, top, left + width, top + 20)
        for top in range(100, 400, 30)
        for left, width in ((100, 150), (600, 60), (800, 60))
    )
)


@pytest.mark.parametrize("degrees", [0, 3, -7, 90, 180, 270])
@pytest.mark.parametrize(
    "page", [ROWS, WORDS, COLUMNS, WITH_HEADING, TABLE], ids=["rows", "words", "columns", "heading", "table"]
)
def test_lines_are_read_as_people_read_them(page, degrees):
    assert shuffled_order(turned(page, degrees)) == list(range(len(page)))


def test_three_columns_are_read_one_after_the_other():
    page = quads(
        *column(50, 330, range(100, 700, 30)),
        *column(360, 640, range(100, 700, 30)),
        *column(670, 950, range(100, 700, 30)),
    )
    assert shuffled_order(page) == list(range(len(page)))


def test_ragged_lines_and_a_short_last_one_are_still_a_column():
    left = [(100, top, 480 - (top * 7) % 60, top + 20) for top in range(100, 400, 30)]
    left[-1] = (100, 370, 180, 390)
    page = quads(*left, *column(540, 900, range(100, 400, 30)))
    assert shuffled_order(page) == list(range(len(page)))


def test_none_and_one():
    assert reading_order(np.zeros((0, 4, 2), np.float32)) == []
    assert reading_order(ROWS[:1]) == [0]


def test_a_thousand_lines_take_no_time_to_speak_of():
    page = quads(*((100 * (n % 10), 30 * (n // 10), 100 * (n % 10) + 90, 30 * (n // 10) + 20) for n in range(1000)))
    assert sorted(reading_order(page)) == list(range(1000))
