"""Real inputs to calibrate on and, apart from those, to measure on: a user's own, or what comes with scikit-learn."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError
from tokenizers import Tokenizer

from engines import manifest as manifests
from engines.base import Array, Signature, Tensors
from engines.manifest import Manifest
from engines.sections.text import IDS, MASK, TOKEN_INPUTS
from engines.zoo.errors import ZooError
from engines.zoo.photograph import tensor

_AUTO: Final = "auto"
_CALIBRATION: Final = 48
_HELD_OUT: Final = 96
#: Pictures of a folder that are used at most, and that it must have; lines of text likewise.
_MOST, _LEAST = 512, 20
_BATCH: Final = 8
_PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Samples:
    """Batches for calibration and held-out ones; `origin` says in words where they come from."""

    calibration: tuple[Tensors, ...]
    held_out: tuple[Tensors, ...]
    origin: str

    @cached_property
    def rows(self) -> int:
        """How many inputs are held out."""
        return sum(len(next(iter(batch.values()))) for batch in self.held_out)

    @cached_property
    def sha256(self) -> str:
        """The hash of all of them, in hexadecimal."""
        found = hashlib.sha256()
        for batch in (*self.calibration, *self.held_out):
            for name in sorted(batch):
                found.update(name.encode() + np.ascontiguousarray(batch[name]).tobytes())
        return found.hexdigest()


def pictures(how: manifests.Image, source: str, seed: int = 0) -> Samples:
    """Pictures as the service makes them. `source`: a folder, or "auto". Raises ZooError."""
    random = np.random.default_rng(seed)
    if source == _AUTO:
        calibration, held_out = _crops(how, random)
        origin = "crops of scikit-learn's two photographs, held-out ones from the other half of each"
        return Samples(calibration, held_out, origin)
    files = [path for path in _files(source) if path.suffix.lower() in _PICTURES]
    if len(files) < _LEAST:
        raise ZooError(f"--calibration {source}: has {len(files)} pictures, at least {_LEAST} are needed")
    chosen = [files[place] for place in random.permutation(len(files))[:_MOST]]
    tensors = [_opened(path, how) for path in chosen]
    half = min(_CALIBRATION * 4, len(tensors) // 2)
    feeds = _batches(how.input, tensors[:half], 1), _batches(how.input, tensors[half:], _BATCH)
    return Samples(*feeds, f"{len(chosen)} pictures of {source}, {len(chosen) - half} of them held out")


def texts(manifest: Manifest, tokenizer: Path, signature: Signature, source: str, seed: int = 0) -> Samples:
    """Token ids, all held out. `source`: a file of a text a line, a folder of such, or "auto". Raises ZooError."""
    assert manifest.text is not None  # noqa: S101  # The caller asks for texts of text models only.
    found = _sentences() if source == _AUTO else _lines(source)
    if len(found) < _LEAST:
        raise ZooError(f"--calibration {source}: has {len(found)} lines of text, at least {_LEAST} are needed")
    chosen = [found[place] for place in np.random.default_rng(seed).permutation(len(found))[:_MOST]]
    try:
        reader = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # The library's exceptions share no base class below Exception.
        raise ZooError(f"{tokenizer}: cannot be read as a tokenizer ({error})") from error
    reader.enable_truncation(manifest.text.max_tokens)
    reader.no_padding()
    encoded = sorted((encoding.ids for encoding in reader.encode_batch(chosen)), key=len)
    wanted = {spec.name: spec.dtype for spec in signature.inputs}
    if set(wanted) - set(TOKEN_INPUTS):
        raise ZooError(f"its inputs are {', '.join(wanted)}; quantising knows {', '.join(TOKEN_INPUTS)}")
    batches = []
    for start in range(0, len(encoded), _BATCH):
        full = _padded(encoded[start : start + _BATCH])
        batches.append({name: full[name].astype(dtype) for name, dtype in wanted.items()})
    words = "sentences of scikit-learn's descriptions of data sets" if source == _AUTO else f"texts of {source}"
    return Samples((), tuple(batches), f"{len(chosen)} {words}")


def _crops(how: manifests.Image, random: np.random.Generator) -> tuple[tuple[Tensors, ...], tuple[Tensors, ...]]:
    from sklearn.datasets import load_sample_images  # noqa: PLC0415 - takes a second to import.

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]

    def cut(number: int, side: int) -> Array:
        image = photographs[number % len(photographs)]
        half = image.width // 2
        size = int(random.integers(min(half, image.height) * 7 // 10, min(half, image.height) + 1))
        left = side * half + int(random.integers(0, half - size + 1))
        top = int(random.integers(0, image.height - size + 1))
        part = image.crop((left, top, left + size, top + size))
        flipped = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else part
        return tensor(flipped, how)

    calibration = [cut(number, 0) for number in range(_CALIBRATION)]
    held_out = [cut(number, 1) for number in range(_HELD_OUT)]
    return _batches(how.input, calibration, 1), _batches(how.input, held_out, _BATCH)


def _batches(name: str, tensors: Sequence[Array], rows: int) -> tuple[Tensors, ...]:
    starts = range(0, len(tensors), rows)
    return tuple({name: np.concatenate(tensors[start : start + rows])} for start in starts)


def _opened(path: Path, how: manifests.Image) -> Array:
    try:
        with Image.open(path) as opened:
            return tensor(opened.convert("RGB"), how)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ZooError(f"{path}: cannot be read as a picture ({error})") from error


def _files(source: str) -> list[Path]:
    folder = Path(source)
    if not folder.is_dir():
        raise ZooError(f"--calibration {source}: there is no such folder; name one, or 'auto'")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _lines(source: str) -> list[str]:
    path = Path(source)
    files: Iterable[Path] = [path] if path.is_file() else [one for one in _files(source) if one.suffix == ".txt"]
    try:
        read = [line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"--calibration {source}: cannot be read as UTF-8 text ({error})") from error
    return list(dict.fromkeys(line for line in read if line))


def _sentences() -> list[str]:
    import sklearn.datasets  # noqa: PLC0415 - takes a second to import.

    folder = Path(sklearn.datasets.__file__).parent / "descr"
    prose = " ".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.rst")))
    return [text for text in _SENTENCE.split(" ".join(prose.split())) if 30 < len(text) < 600 and text[0].isalpha()]


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, Array]:
    length = max(map(len, rows))
    ids = np.array([[*row, *[0] * (length - len(row))] for row in rows], np.int64)
    mask = (np.arange(length) < np.array([len(row) for row in rows])[:, None]).astype(np.int64)
    return {IDS: ids, MASK: mask} | {name: np.zeros_like(ids) for name in TOKEN_INPUTS if name not in (IDS, MASK)}
