import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.vision import transforms
from services.vision.transforms import ImageError, ImageSpec, load_image

PHOTOS = Path(sklearn.datasets.__file__).parent / "images"
SPEC = ImageSpec(224, 224, 0.875, mean=(127.0, 127.0, 127.0), scale=(128.0, 128.0, 128.0))
TINY = ImageSpec(8, 8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quarters(width=64, height=48):
    """Red, green, blue and white quarters: every flip and turn shows."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def upright(spec=TINY, image=None):
    return load_image(encoded(image or quarters(), "PNG"), spec)


def reference(image, spec):
    """The usual recipe, step by step: shorter side to size / crop, then the centre."""
    side = round(spec.width / spec.crop)
    ratio = side / min(image.size)
    scaled = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BICUBIC)
    left, top = (scaled.width - spec.width) // 2, (scaled.height - spec.height) // 2
    return transforms.normalise(scaled.crop((left, top, left + spec.width, top + spec.height)), spec)


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_one_step_equals_the_usual_recipe(name):
    content = (PHOTOS / name).read_bytes()
    image = Image.open(io.BytesIO(content)).convert("RGB")
    lossless = load_image(encoded(image, "PNG"), SPEC)
    assert lossless.shape == (1, 3, 224, 224)
    assert lossless.dtype == np.float32
    # Half a pixel of where the crop begins is all that the recipes differ by.
    assert np.abs(lossless - reference(image, SPEC)).mean() < 0.04


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize(("enlarge", "mean", "tail"), [(1, 4.0, 26.0), (4, 1.0, 6.0)])
def test_dct_scaling_stays_close_to_a_full_decode(name, enlarge, mean, tail):
    image = Image.open(PHOTOS / name)
    content = encoded(image.resize((image.width * enlarge, image.height * enlarge)), "JPEG", quality=92)
    full = Image.fromarray(simplejpeg.decode_jpeg(content))
    exact = load_image(encoded(full, "PNG"), SPEC)
    difference = np.abs(load_image(content, SPEC) - exact) * 128
    assert difference.mean() < mean  # of 255
    assert np.quantile(difference, 0.99) < tail


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 30),
        ("GIF", {}, 1),
        ("JPEG", {"quality": 95}, 12),
        ("JPEG", {"quality": 95, "progressive": True}, 12),
    ],
)
def test_every_format_shows_the_same_picture(kind, options, tolerance):
    content = encoded(quarters(), kind, **options)
    assert np.abs(load_image(content, TINY) - upright())[..., [1, 6], :][..., [1, 6]].max() <= tolerance


@pytest.mark.parametrize(
    "image",
    [
        quarters().convert("P"),
        quarters().convert("RGBA"),
        quarters().quantize(8),
        quarters().convert("CMYK").convert("RGB"),
    ],
    ids=["palette", "rgba", "quantized", "cmyk"],
)
def test_pillow_modes_become_rgb(image):
    assert np.abs(load_image(encoded(image, "PNG"), TINY) - upright()).mean() < 12


def test_grey_pictures_of_8_and_16_bits():
    ramp = np.linspace(0, 255, 64 * 64).reshape(64, 64)
    eight = load_image(encoded(Image.fromarray(ramp.astype(np.uint8)), "PNG"), TINY)
    sixteen = load_image(encoded(Image.fromarray((ramp * 257).astype(np.uint16)), "PNG"), TINY)
    tiff = load_image(encoded(Image.fromarray((ramp * 257).astype(np.uint16)), "TIFF"), TINY)
    jpeg = load_image(encoded(Image.fromarray(ramp.astype(np.uint8)), "JPEG", quality=95), TINY)
    one_bit = load_image(encoded(Image.fromarray(ramp > 128), "PNG"), TINY)
    np.testing.assert_allclose(sixteen, eight, atol=1)
    np.testing.assert_allclose(tiff, eight, atol=1)
    np.testing.assert_allclose(jpeg, eight, atol=4)
    assert one_bit.min() == 0
    assert one_bit.max() == 255


def test_cmyk_jpeg():
    content = encoded(quarters().convert("CMYK"), "JPEG", quality=95)
    assert np.abs(load_image(content, TINY) - upright()).mean() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(mode):
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0)).convert(mode if mode != "P" else "RGBA")
    if mode == "P":
        clear = Image.new("P", (16, 16), 0)
        clear.info["transparency"] = 0
    assert load_image(encoded(clear, "PNG"), TINY).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_honoured(orientation, kind):
    wide = ImageSpec(12, 8)
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    turn = transforms.UPRIGHT.get(back)
    stored = quarters() if turn is None else quarters().transpose(turn)
    exif = Image.Exif()
    exif[transforms.ORIENTATION_TAG] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    shown = load_image(encoded(stored, kind, exif=exif, **options), wide)
    assert np.abs(shown - upright(wide)).mean() < 8


def test_broken_exif_leaves_the_picture_upright():
    content = encoded(quarters(), "JPEG", quality=95)
    plain = load_image(content, TINY)
    for block in (b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"XX" + b"\xff" * 40):
        segment = b"Exif\0\0" + block
        broken = content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]
        np.testing.assert_array_equal(load_image(broken, TINY), plain)


def test_layout_and_colour_order():
    rgb = upright()
    nhwc = upright(ImageSpec(8, 8, layout="NHWC"))
    bgr = upright(ImageSpec(8, 8, color="BGR"))
    np.testing.assert_array_equal(nhwc, rgb.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(bgr, rgb[:, ::-1])


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 7), (300, 3)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_odd_sizes_give_a_result(size, kind):
    tensor = load_image(encoded(Image.new("RGB", size, (10, 200, 30)), kind), SPEC)
    assert tensor.shape == (1, 3, 224, 224)
    assert np.isfinite(tensor).all()


def png_header(width, height):
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def bombs():
    small = ImageSpec(8, 8, max_pixels=1000)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        yield pytest.param(encoded(quarters(), kind), small, id=kind)
    yield pytest.param(encoded(quarters(), "WEBP", lossless=True), small, id="lossless WebP")
    huge = png_header(100_000, 100_000) + b"\0\0\0\x01IDAT\0\0\0\0\0"
    yield pytest.param(huge, SPEC, id="10 gigapixels")
    extended = b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff\x3f\0" * 2 + b"VP8 \0\0\0\0"
    yield pytest.param(extended, SPEC, id="extended WebP")


@pytest.mark.parametrize(("content", "spec"), list(bombs()))
def test_the_pixel_cap_is_checked_before_decoding(content, spec):
    with pytest.raises(ImageError, match=f"at most {spec.max_pixels}"):
        load_image(content, spec)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_pictures_are_refused(kind):
    photo = Image.open(PHOTOS / "china.jpg")
    content = encoded(photo.resize((160, 107)), kind)
    for share in (0.02, 0.5, 0.9):
        with pytest.raises(ImageError, match=r"is not a (whole )?|picture"):
            load_image(content[: max(20, int(len(content) * share))], SPEC)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, world", "not a picture in a known format"),
        (b"%PDF-1.7", "not a picture"),
        (b"\xff\xd8\xff", "not a whole JPEG"),
        (b"\x89PNG\r\n\x1a\n", "not a whole PNG"),
        (b"GIF89a", "not a whole GIF"),
        (b"BM", "not a whole BMP"),
        (b"II*\0", "not a whole TIFF"),
        (b"RIFF\0\0\0\0WEBP", "not a whole WebP"),
    ],
)
def test_what_is_no_picture_is_refused(content, words):
    with pytest.raises(ImageError, match=words):
        load_image(content, SPEC)


def test_32_bit_pixels_are_refused():
    for dtype in (np.int32, np.float32):
        with pytest.raises(ImageError, match="32 bits"):
            load_image(encoded(Image.fromarray(np.zeros((4, 4), dtype)), "TIFF"), SPEC)


MAGIC = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\1\0WEBPVP8 "]


@given(st.sampled_from(MAGIC), st.binary(max_size=400))
@settings(deadline=None, max_examples=300)
def test_random_bytes_are_refused_or_shown(magic, tail):
    _never_crashes(magic + tail)


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_pictures_are_refused_or_shown(kind, data):
    content = bytearray(encoded(quarters(), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _never_crashes(bytes(content[: data.draw(st.integers(1, len(content)))]))


def _never_crashes(content):
    try:
        tensor = load_image(content, ImageSpec(8, 8, max_pixels=10_000))
    except ImageError as error:
        assert str(error)  # noqa: PT017  # Either outcome is right.
    else:
        assert tensor.shape == (1, 3, 8, 8)
