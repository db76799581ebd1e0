import io

import numpy as np
import pytest
from PIL import Image

from services.vision.reading_page import WORKING_PIXELS, load_page
from services.vision.transforms import ImageError

WIDTH, HEIGHT = 240, 160
#: Left, top, right, bottom of the one dark spot, as stored.
SPOT = (32, 16, 64, 40)


def encoded(image, kind, orientation=1):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "PNG": {"compress_level": 1}}
    image.save(buffer, kind, exif=exif, **options.get(kind, {}))
    return buffer.getvalue()


def spotted(width=WIDTH, height=HEIGHT, spot=SPOT):
    image = Image.new("RGB", (width, height), "white")
    image.paste((0, 0, 0), spot)
    return image


def found_spot(page):
    """The corners of the dark spot, seen upright, as points of the picture as sent."""
    rows, columns = np.nonzero(page.pixels.mean(axis=2) < 128)
    corners = page.as_sent(np.array([(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)]))
    return (*corners.min(0), *corners.max(0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WebP"])
def test_outlines_are_told_in_the_pixels_as_stored_however_the_picture_is_turned(kind, orientation):
    page = load_page(encoded(spotted(), kind, orientation), 10**6)
    assert page.pixels.shape == ((WIDTH, HEIGHT, 3) if orientation >= 5 else (HEIGHT, WIDTH, 3))
    assert (page.width, page.height) == (WIDTH, HEIGHT)
    assert found_spot(page) == pytest.approx(SPOT, abs=1)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (32, 16)), (3, (64, 40)), (6, (32, 40)), (8, (64, 16))])
def test_the_first_corner_is_the_top_left_of_what_a_viewer_sees(orientation, corner):
    page = load_page(encoded(spotted(), "PNG", orientation), 10**6)
    rows, columns = np.nonzero(page.pixels.mean(axis=2) < 128)
    assert page.as_sent(np.array([(columns.min(), rows.min())]))[0] == pytest.approx(corner)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_is_kept_smaller_and_its_points_are_still_its_own(kind, orientation):
    spot = (2400, 1200, 3200, 1600)
    page = load_page(encoded(spotted(5200, 3600, spot), kind, orientation), 30_000_000)
    assert page.pixels.shape[0] * page.pixels.shape[1] <= WORKING_PIXELS * 1.01
    assert (page.width, page.height) == (5200, 3600)
    assert found_spot(page) == pytest.approx(spot, abs=4)


def test_points_stay_within_the_picture():
    page = load_page(encoded(spotted(), "PNG"), 10**6)
    assert page.as_sent(np.array([(-9.0, -9.0), (999.0, 999.0)])).tolist() == [[0, 0], [WIDTH, HEIGHT]]


def test_what_is_transparent_is_white():
    buffer = io.BytesIO()
    Image.new("RGBA", (5, 4), (0, 0, 0, 0)).save(buffer, "PNG")
    assert load_page(buffer.getvalue(), 100).pixels.tolist() == np.full((4, 5, 3), 255).tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"no picture", "not a picture in a known format"),
        (encoded(spotted(), "PNG")[:200], "not a whole PNG picture"),
        (encoded(spotted(), "JPEG")[:60], "not a whole JPEG picture"),
        (encoded(spotted(201, 200), "PNG"), "has 201 x 200 pixels; at most 40000 are accepted"),
    ],
)
def test_what_cannot_be_read_is_said(content, words):
    with pytest.raises(ImageError, match=words):
        load_page(content, 40_000)
