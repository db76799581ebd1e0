"""Real photographs to send: crops of the two in scikit-learn's wheel, each a JPEG of 640x427."""

import io
from importlib import resources

from PIL import Image

CROPS = ((0, 0, 640, 427), (0, 0, 600, 400), (40, 27, 640, 427), (20, 10, 620, 410))


def jpegs() -> list[bytes]:
    """Eight JPEGs of about 100 KB, the same ones each time."""
    folder = resources.files("sklearn") / "datasets" / "images"
    encoded = []
    for name in ("china.jpg", "flower.jpg"):
        photograph = Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB")
        for box in CROPS:
            buffer = io.BytesIO()
            photograph.crop(box).resize((640, 427), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            encoded.append(buffer.getvalue())
    return encoded
