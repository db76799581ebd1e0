"""`headrace models quantize`: make an INT8 version of a model, measure it, keep it only when it loses little enough."""

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import onnx
import onnxruntime as ort

from engines import manifest_check
from engines.backends import MODEL_FILE
from engines.base import EngineError, EngineLoadError
from engines.manifest import Manifest
from engines.onnx import OnnxEngine
from engines.quantization import compare, lineage, methods, samples
from engines.quantization.compare import Figures, Speed
from engines.quantization.lineage import Lineage
from engines.quantization.methods import Method
from engines.quantization.samples import Samples
from engines.repository import Entry
from engines.tuning import record
from engines.zoo.errors import ZooError, cannot_write

PRECISION: Final = "INT8"
_TEMPORARY: Final = ".quantize-"
#: Of the held-out batches, those from the middle, where texts have usual lengths, are timed.
_TIMED_BATCHES: Final = 2
Told = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to quantise. `source`: the version that is the original; `calibration`: "auto", or where real inputs lie.

    `tolerance`: the greatest loss (a share of 1) with which the new version is kept.
    """

    entry: Entry
    source: int
    tolerance: float = 0.02
    calibration: str = "auto"
    told: Told = field(default=lambda _what, _done, _of: None)

    @property
    def folder(self) -> Path:
        """The folder of the original version."""
        return self.entry.folder / str(self.source)

    @property
    def manifest(self) -> Manifest:
        """The model's manifest. Raises ConfigError, ZooError."""
        if self.entry.error is not None or self.entry.manifest is None:
            raise self.entry.error or ZooError(f"{self.entry.folder}: has no manifest")
        return self.entry.manifest


@dataclass(frozen=True, slots=True)
class Tried:
    """One method and what came of it."""

    method: str
    figures: Figures
    speed: Speed
    megabytes: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Every method that was tried, until one was good enough; `version` is the new one, None where there was none."""

    tried: tuple[Tried, ...]
    version: int | None
    folder: Path | None
    samples: str
    held_out: int
    megabytes: float


def choose(entry: Entry, version: str, tolerance: float, calibration: str) -> Wish:
    """The version that is quantised: the one that is named, else the newest that is no quantised one itself.

    Raises ConfigError, NoSuchVersion, ZooError.
    """
    if not 0 <= tolerance <= 1:
        raise ZooError(f"--tolerance {tolerance:g}: must be 0 to 1, such as 0.02 for 2%")
    if entry.error is not None or entry.manifest is None:
        raise entry.error or ZooError(f"{entry.folder}: has no manifest")
    found = {number: lineage.read(entry.folder / str(number)) for number in entry.versions}
    made = {number: one for number, one in found.items() if one is not None and one.precision == PRECISION}
    originals = [number for number in entry.versions if number not in made]
    source = entry.resolve(version) if version or not originals else originals[-1]
    if source in made:
        raise ZooError(f"{entry.name}@{source} is quantised already, from version {made[source].source_version}")
    _check_kind(entry.manifest, entry.folder)
    wish = Wish(entry, source, tolerance, calibration)
    if not (wish.folder / MODEL_FILE).is_file():
        raise ZooError(f"{wish.folder / MODEL_FILE}: there is no such file; put the model there, or pull it again")
    mark = lineage.file_sha256(wish.folder / MODEL_FILE)
    for number, one in made.items():
        if one.source_sha256 == mark:
            raise ZooError(
                f"{entry.name}@{number} was quantised from version {source} already:"
                f" remove {entry.folder / str(number)} to do it anew"
            )
    return wish


def quantize(wish: Wish) -> Outcome:
    """Try methods until one loses little enough, and make it the newest version. Raises ConfigError, ZooError."""
    models = wish.entry.folder.parent
    try:
        with ExitStack() as opened:
            fresh = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=models))) / "version"
            fresh.mkdir()
            return _within(wish, fresh, opened)
    except OSError as error:
        raise cannot_write(models, error, "choose another models directory") from error
    except (EngineError, EngineLoadError) as error:
        raise ZooError(str(error)) from error


def _within(wish: Wish, fresh: Path, opened: ExitStack) -> Outcome:
    wish.told("reading real inputs", 0, 0)
    source = wish.folder / MODEL_FILE
    original = OnnxEngine(source)
    opened.callback(original.close)
    found = _samples(wish, original)
    tried: list[Tried] = []
    version: int | None = None
    for method in _methods(wish, found):
        wish.told(f"quantising: {method.words}", 0, 0)
        method.make(source, fresh / MODEL_FILE)
        tried.append(_judge(wish, found, original, fresh, method))
        if tried[-1].figures.loss <= wish.tolerance:
            version = _keep(wish, found, tried[-1], fresh)
            break
    folder = None if version is None else wish.entry.folder / str(version)
    return Outcome(tuple(tried), version, folder, found.origin, found.rows, _megabytes(source))


def _check_kind(manifest: Manifest, folder: Path) -> None:
    text = manifest.text is not None and not manifest.text.encoder
    if manifest.backend not in ("auto", "onnxruntime"):
        raise ZooError(f"{folder}: its backend is '{manifest.backend}'; ONNX files on ONNX Runtime are quantised")
    if not (manifest.image is not None or text) or not (manifest.classify or manifest.embed):
        raise ZooError(
            f"{folder}: models that classify or embed pictures or texts are quantised, this one has"
            f" {', '.join(manifest.tasks)} ({manifest.service})"
        )


def _samples(wish: Wish, original: OnnxEngine) -> Samples:
    manifest = wish.manifest
    if manifest.image is not None:
        return samples.pictures(manifest.image, wish.calibration)
    assert manifest.text is not None  # noqa: S101  # `choose` refused all others.
    places = [folder / manifest.text.tokenizer for folder in (wish.folder, wish.entry.folder)]
    tokenizer = next((path for path in places if path.is_file()), places[-1])
    return samples.texts(manifest, tokenizer, original.signature, wish.calibration)


def _methods(wish: Wish, found: Samples) -> list[Method]:
    source = wish.folder / MODEL_FILE
    return methods.static(source, found.calibration) if found.calibration else methods.dynamic(source)


def _judge(wish: Wish, found: Samples, original: OnnxEngine, fresh: Path, method: Method) -> Tried:
    """Load it as the service would, and measure it."""
    wish.told("measuring on held-out inputs", 0, 0)
    quantised = OnnxEngine(fresh / MODEL_FILE)
    try:
        manifest_check.check(wish.manifest, wish.folder, quantised)
        measured = compare.figures(wish.manifest, found.held_out, original, quantised)
        middle = len(found.held_out) // 2
        timed = found.held_out[middle : middle + _TIMED_BATCHES]
        unit = "pictures" if wish.manifest.image is not None else "tokens"
        speed = compare.ratio(timed, original, quantised, unit)
    finally:
        quantised.close()
    return Tried(method.words, measured, speed, _megabytes(fresh / MODEL_FILE))


def _keep(wish: Wish, found: Samples, best: Tried, fresh: Path) -> int:
    """Put the version into its place with one rename; return its number."""
    skipped = {MODEL_FILE, lineage.FILE_NAME, record.FILE_NAME, *_external(wish.folder / MODEL_FILE)}
    for path in wish.folder.iterdir():
        if path.is_file() and path.name not in skipped:
            shutil.copyfile(path, fresh / path.name)
    about = Lineage(
        source_version=wish.source,
        source_sha256=lineage.file_sha256(wish.folder / MODEL_FILE),
        method=best.method,
        precision=PRECISION,
        data=found.origin,
        data_sha256=found.sha256,
        tolerance=wish.tolerance,
        metrics={
            **best.figures.losses,
            **best.figures.others,
            "speed against the source, one thread": best.speed.ratio,
        },
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        made_with=f"onnxruntime {ort.__version__}",
    )
    lineage.write(fresh, about)
    number = max(wish.entry.versions) + 1
    fresh.rename(wish.entry.folder / str(number))
    return number


def _external(path: Path) -> set[str]:
    """The files beside a model that hold its weights."""
    tensors = onnx.load(str(path), load_external_data=False).graph.initializer
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6
