"""From the bytes of a picture to the tensor a vision network takes: pure numpy, Pillow and simplejpeg.

The picture is cut out and scaled in one step: the largest centred box of the network's aspect ratio, times `crop`, is
resampled straight to the network's size. That equals resizing the shorter side and cropping the centre, but only the
pixels that are kept are ever touched, and JPEG decodes at a fraction of its size where that leaves enough of them.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

#: Left, top, right, bottom in pixels.
Box = tuple[float, float, float, float]

KNOWN_FORMATS: Final = "JPEG, PNG, WebP, GIF, BMP or TIFF"
ORIENTATION_TAG: Final = 0x0112
#: EXIF orientation -> how the picture as stored is turned upright.
UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
#: Pillow's own reader for each sniffed format: nothing else is ever tried on a caller's bytes.
READERS: Final[dict[str, Callable[[io.BytesIO], Image.Image]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}


class ImageError(Exception):
    """A picture could not be used; the message says what was wrong with it and what is allowed, for its sender."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How pixels become a network's input: x = (pixel - mean) / scale for each channel, in the order of `color`.

    `width`, `height` in pixels; `crop` is the share of the shorter side that is kept, 0..1; `mean` and `scale` have
    3 values in units of 0..255; `layout` NCHW or NHWC; `color` RGB or BGR; `datatype` FP32,
    FP16 or UINT8 (rounded); `max_pixels` caps width x height as sent.
    """

    width: int
    height: int
    crop: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: str = "NCHW"
    color: str = "RGB"
    datatype: str = "FP32"
    max_pixels: int = 50_000_000

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor that one picture becomes."""
        return (1, 3, self.height, self.width) if self.layout == "NCHW" else (1, self.height, self.width, 3)


def load_image(content: bytes, spec: ImageSpec) -> npt.NDArray[Any]:
    """Decode and prepare one picture: `datatype` [1, 3, height, width] (NCHW) or [1, height, width, 3] (NHWC).

    Raises ImageError for bytes that are not a whole picture of a known format, or have too many pixels.
    """
    image, orientation = decode(content, spec)
    return normalise(_fit(image, orientation, spec), spec)


def decode(content: bytes, spec: ImageSpec) -> tuple[Image.Image, int]:
    """The picture as stored, in RGB, and its EXIF orientation; a JPEG at a fraction where `spec` needs no more of it.

    Raises ImageError.
    """
    name = sniff(content)
    return _decode_jpeg(content, spec) if name == "JPEG" else _decode_other(content, name, spec)


def sniff(content: bytes) -> str:
    """Name the format of a picture from its first bytes. Raises ImageError when it is none of the known ones."""
    if not content:
        raise ImageError(f"is empty; send the bytes of a {KNOWN_FORMATS} file")
    head = content[:16]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    raise ImageError(f"is not a picture in a known format; send the bytes of a {KNOWN_FORMATS} file")


def normalise(image: Image.Image, spec: ImageSpec) -> npt.NDArray[Any]:
    """Turn an RGB picture of the network's size into its input tensor, with a leading axis of 1."""
    pixels = np.asarray(image)
    if spec.color == "BGR":
        pixels = pixels[:, :, ::-1]
    mean = np.asarray(spec.mean, np.float32)
    factor = np.float32(1.0) / np.asarray(spec.scale, np.float32)
    if spec.layout == "NCHW":
        pixels, mean, factor = pixels.transpose(2, 0, 1), mean[:, None, None], factor[:, None, None]
    tensor = np.empty((1, *pixels.shape), np.float32)
    np.subtract(pixels, mean, out=tensor[0])
    tensor[0] *= factor
    if spec.datatype == "FP32":
        return tensor
    return tensor.astype(np.float16) if spec.datatype == "FP16" else tensor.round().clip(0, 255).astype(np.uint8)


def _check_pixels(width: int, height: int, spec: ImageSpec) -> None:
    if width * height > spec.max_pixels:
        raise ImageError(f"has {width} x {height} pixels; at most {spec.max_pixels} are accepted: scale it down")
    if width < 1 or height < 1:
        raise ImageError(f"has {width} x {height} pixels; at least one is needed")


def _decode_jpeg(content: bytes, spec: ImageSpec) -> tuple[Image.Image, int]:
    """Decode with DCT scaling; what libjpeg-turbo refuses (CMYK, stray bytes) is left to Pillow's verdict."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content, strict=False)
    except (ValueError, KeyError):  # KeyError: a header that ends before it says what the colours are.
        return _decode_other(content, "JPEG", spec)
    _check_pixels(width, height, spec)
    if colorspace not in {"YCbCr", "RGB", "Gray"}:
        return _decode_other(content, "JPEG", spec)
    orientation = _jpeg_orientation(content)
    need = _needed_side(spec)
    try:
        pixels = simplejpeg.decode_jpeg(content, "RGB", min_height=need, min_width=need)
    except ValueError:
        return _decode_other(content, "JPEG", spec)
    return Image.fromarray(pixels), orientation


def _decode_other(content: bytes, name: str, spec: ImageSpec) -> tuple[Image.Image, int]:
    """Decode with Pillow: the first frame, palettes resolved, alpha laid over white."""
    try:
        if name == "WebP":
            _check_pixels(*_webp_size(content), spec)
        image = READERS[name](io.BytesIO(content))
        _check_pixels(image.width, image.height, spec)
        _check_tiles(image, spec)
        if name == "JPEG":
            need = _needed_side(spec)
            image.draft(None, (need, need))
        pixels = _to_rgb(image)
        # Read after the pixels: TIFF's reader has turned them by then and says so, PNG may carry EXIF at its end.
        return pixels, int(image.getexif().get(ORIENTATION_TAG, 1))
    except ImageError:
        raise
    except Exception as error:
        # Pillow's readers raise nearly anything on bytes that lie; all of it means the same to the sender.
        raise ImageError(f"is not a whole {name} picture ({_first_line(error)}); send the file unchanged") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB, 8 bits a channel."""
    mode = image.mode
    if mode == "RGB":
        image.load()
        return image
    if mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if mode == "I" and image.format == "PNG":
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if mode in {"I", "F"}:
        raise ImageError("has 32 bits a channel; send 8 or 16")
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _check_tiles(image: Image.Image, spec: ImageSpec) -> None:
    """Refuse a TIFF whose tiles are declared far larger than its picture: a tile is decoded whole."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is not None and 322 in tags and 323 in tags:
        _check_pixels(int(tags[322]), int(tags[323]), spec)


def _webp_size(content: bytes) -> tuple[int, int]:
    """Width and height from a WebP header; Pillow would allocate the canvas to find them."""
    kind = content[12:16]
    if kind == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_orientation(content: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 (upright) when it has none or a broken one."""
    position = 2
    while position + 10 <= len(content) and content[position] == 0xFF:
        marker, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4], "big")
        if marker in {0xDA, 0xD9} or length < 2:
            break
        if marker == 0xE1 and content[position + 4 : position + 10] == b"Exif\0\0":
            return _tiff_orientation(content[position + 10 : position + 2 + length])
        position += 2 + length
    return 1


def _tiff_orientation(block: bytes) -> int:
    """Find the orientation in the first directory of an EXIF block: entries of tag, type, count, value."""
    order = "<" if block[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, start)
        for index in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, start + 2 + 12 * index)
            if tag == ORIENTATION_TAG and kind == 3:
                return int(value)
    except struct.error:
        return 1
    return 1


def _needed_side(spec: ImageSpec) -> int:
    """The shorter side, in pixels, below which decoding at a reduced size would lose detail the network sees."""
    return int(np.ceil(max(spec.width, spec.height) / spec.crop))


def _box(width: int, height: int, orientation: int, spec: ImageSpec) -> tuple[Box, tuple[int, int]]:
    """The part of a width x height picture, as stored, that is kept, and the size it is resampled to."""
    size = (spec.height, spec.width) if orientation in {5, 6, 7, 8} else (spec.width, spec.height)
    step = min(width / size[0], height / size[1]) * spec.crop
    half_width, half_height = min(size[0] * step, width) / 2, min(size[1] * step, height) / 2
    middle_x, middle_y = width / 2, height / 2
    box = (middle_x - half_width, middle_y - half_height, middle_x + half_width, middle_y + half_height)
    return box, size


def _fit(image: Image.Image, orientation: int, spec: ImageSpec) -> Image.Image:
    """Cut the box out, resample it to the network's size and turn it upright."""
    box, size = _box(image.width, image.height, orientation, spec)
    fitted = image.resize(size, RESAMPLING[spec.interpolation], box=box, reducing_gap=3.0)
    turn = UPRIGHT.get(orientation)
    return fitted if turn is None else fitted.transpose(turn)
