"""Proves a pulled model: its files are those the recipe wrote, and it computes what the project's fixtures say."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engines import manifest as manifests
from engines.base import Engine, EngineError, EngineLoadError
from engines.onnx import OnnxEngine
from engines.strict_toml import ConfigError
from engines.zoo.errors import CheckError
from engines.zoo.pull import read_stamp
from engines.zoo.recipe import Bench, Fixture, Recipe

_FIXTURES: Final = Path(__file__).parent / "fixtures"


@dataclass(frozen=True, slots=True)
class Checked:
    """A model that passed. `error`: the greatest absolute one, of the fixture nearest to its `tolerance`.

    `proof`: what the model made of real input, or nothing; `seconds` that it all took.
    """

    name: str
    error: float
    tolerance: float
    proof: str
    seconds: float


def check(recipe: Recipe, models: Path) -> Checked:
    """Check the pulled model of `recipe` below `models`. Raises CheckError with what to do."""
    started = time.perf_counter()
    folder = models / recipe.name
    _check_files(recipe, folder)
    try:
        with _bench(folder) as bench:
            engine = bench.engine(recipe.name)
            fixtures = (recipe.fixture, *recipe.more_fixtures)
            measured = [(_greatest_error(recipe, fixture, engine), fixture.tolerance) for fixture in fixtures]
            proof = "" if recipe.proof is None else recipe.proof(bench)
    except (ConfigError, EngineLoadError) as error_:
        raise CheckError(str(error_)) from error_
    except EngineError as error_:
        raise CheckError(f"{folder}: the model fails: {error_}; {_again(recipe)}") from error_
    error, tolerance = max(measured, key=lambda pair: pair[0] / (pair[1] or 1.0))
    return Checked(recipe.name, error, tolerance, proof, time.perf_counter() - started)


@contextmanager
def _bench(folder: Path) -> Iterator[Bench]:
    """The model's bench; what is opened of its repository is closed at the end."""
    opened: dict[str, Engine] = {}
    with ExitStack() as stack:

        def engine(name: str) -> Engine:
            if name not in opened:
                part = folder.parent / name
                made = OnnxEngine(part / "1" / "model.onnx", manifests.load(part).instances.threads)
                stack.callback(made.close)
                opened[name] = made
            return opened[name]

        yield Bench(folder, _FIXTURES, engine)


def _again(recipe: Recipe) -> str:
    return f"move the folder away and run 'headrace models pull {recipe.name}'"


def _check_files(recipe: Recipe, folder: Path) -> None:
    if not folder.is_dir():
        raise CheckError(f"{folder} does not exist: run 'headrace models pull {recipe.name}'")
    stamp = read_stamp(folder)
    if stamp is None:
        raise CheckError(f"{folder} was not made by the zoo (it has no readable stamp): {_again(recipe)}")
    for path, written in stamp.files.items():
        try:
            with (folder / path).open("rb") as stream:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise CheckError(f"{folder / path} cannot be read ({error.strerror}): {_again(recipe)}") from error
        if actual != written.sha256 and path != manifests.FILE_NAME:
            raise CheckError(f"{folder / path} is damaged or was changed (SHA-256 differs): {_again(recipe)}")


def _greatest_error(recipe: Recipe, fixture: Fixture, engine: Engine) -> float:
    outputs = engine.run(fixture.inputs())
    taken = outputs if fixture.take is None else fixture.take(outputs)
    errors = []
    with np.load(_FIXTURES / fixture.file) as expected:
        for name in expected.files:
            wanted, got = expected[name], taken.get(name)
            if got is None or got.shape != wanted.shape:
                raise CheckError(f"{recipe.name}: output '{name}' is missing or of another shape; {_again(recipe)}")
            errors.append(float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0)))
    greatest = float(np.max(errors))  # not max(): it loses what is no number
    if not greatest <= fixture.tolerance:
        raise CheckError(
            f"{recipe.name} computes something else: greatest error {greatest:.3g} on its fixture {fixture.file},"
            f" {fixture.tolerance:.3g} allowed; {_again(recipe)}"
        )
    return greatest
