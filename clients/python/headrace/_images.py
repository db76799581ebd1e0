"""Images as callers have them (bytes, paths, open files) become the bytes that are sent."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

ImageSource: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""One encoded image: its bytes, the path of its file, or the file opened in binary mode."""


def as_list(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """One image or many, as a list."""
    if isinstance(images, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(images, "read"):
        return [cast("ImageSource", images)]
    return list(images)


def in_memory(images: list[ImageSource]) -> bool:
    """Whether reading these images touches no file."""
    return all(isinstance(image, bytes | bytearray | memoryview) for image in images)


def read_all(images: list[ImageSource]) -> list[bytes]:
    """The bytes of every image.

    Raises:
        OSError: a file cannot be read.
        TypeError: something is no image source, named by its index.
    """
    return [_read(index, image) for index, image in enumerate(images)]


def _read(index: int, image: ImageSource) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if not hasattr(image, "read"):
        kind = type(image).__name__
        raise TypeError(f"images[{index}]: {kind} is no image source, give bytes, a path or an open binary file")
    content = image.read()
    if not isinstance(content, bytes):
        raise TypeError(f"images[{index}]: the file is open in text mode, open it with 'rb'")
    return content
