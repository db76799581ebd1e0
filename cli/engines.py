"""`headrace engines`: build TensorRT plans ahead of time, list them, look into them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import fail, one_line
from cli.models import Config, Models, models_directory
from engines.repository import Entry, NoSuchVersion, Repository
from engines.strict_toml import ConfigError
from engines.tensorrt import sizes
from engines.tensorrt.libraries import LIBRARIES, Library, TensorRTError, library
from engines.tensorrt.plans import Sidecar
from engines.tensorrt.profiles import Stretch

if TYPE_CHECKING:
    from engines.tensorrt.builder import Built

app = typer.Typer(help="Build TensorRT engines ahead of time, list them, look into them.", no_args_is_help=True)


@app.command()
def build(  # noqa: PLR0913 - a command's flags are its parameters.
    model: Annotated[str, typer.Argument(help="A model of the repository: 'name' or 'name@version'.")] = "",
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Every model of the repository, its newest version.")
    ] = False,
    library_name: Annotated[str, typer.Option("--library", help=f"One of {', '.join(LIBRARIES)}.")] = "tensorrt-rtx",
    target: Annotated[list[str] | None, typer.Option(help="Compute capability, such as sm89; may be repeated.")] = None,
    bucket: Annotated[list[int] | None, typer.Option(help="Rows of a profile; may be repeated, rising.")] = None,
    dim: Annotated[
        list[str] | None, typer.Option(help="Sizes of an open dimension: name=N, name=32,256 or name=0:448.")
    ] = None,
    table: Annotated[bool, typer.Option("--markdown", help="Print a table for documentation.")] = False,
    config: Config = None,
    models: Models = None,
) -> None:
    """Build engines, with profiles for batches and open dimensions; tensorrt-rtx needs no GPU for it."""
    from engines.tensorrt.libraries import require_build

    if bool(model) == everything:
        fail("name one model to build, or say --all")
    with one_line(TensorRTError, ConfigError):
        directory = models_directory(config, models)
        wish = _Wish(library(library_name), tuple(target or ()), tuple(bucket or ()), sizes.parse(dim or []))
        require_build(wish.library, wish.targets)
        chosen = _all(directory) if everything else [_find(directory, model)]
    rows, failed = [], False
    for entry, version in chosen:
        typer.echo(f"{entry.name}@{version}: building with {wish.library.name} ...", err=True)
        try:
            built = _build(entry, version, wish)
            rows.append(_row(entry, built.sidecar))
            if not table:
                typer.echo(f"{entry.name}@{version}: {_words(built)}")
        except (TensorRTError, ConfigError) as error:
            failed, problem = True, " ".join(str(error).split())
            rows.append((entry.name, f"does not convert: {problem}", "", "", "", ""))
            if not table:
                typer.echo(f"error: {entry.name}: {problem}", err=True)
    if table:
        typer.echo(_markdown(rows))
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the command line asks of each build; empty = what the model's manifest says."""

    library: Library
    targets: tuple[str, ...]
    buckets: tuple[int, ...]
    dimensions: Mapping[str, tuple[Stretch, ...]]


def _build(entry: Entry, version: int, wish: _Wish) -> "Built":
    """Build one plan. Raises TensorRTError, ConfigError."""
    from engines.tensorrt.builder import BuildOptions
    from engines.tensorrt.builder import build as build_plan
    from engines.tensorrt.onnx_inputs import read_inputs

    if entry.manifest is None:
        raise entry.error or ConfigError(entry.folder, "", "has no manifest")
    model_file = entry.folder / str(version) / "model.onnx"
    known = sizes.dimensions(entry.manifest, read_inputs(model_file))
    buckets = wish.buckets or sizes.rows(entry.manifest)
    return build_plan(model_file, BuildOptions(wish.library, buckets, wish.targets, {**known, **wish.dimensions}))


def _words(built: "Built") -> str:
    about = built.sidecar
    how = "built before" if built.reused else f"built in {about.build_seconds:.1f} s"
    profiles = f"{len(about.key.profiles)} profile{'' if len(about.key.profiles) == 1 else 's'}"
    return f"{how}, {about.plan_bytes / 1e6:.1f} MB, {about.key.precision}, {profiles}, {built.plan}"


def _row(entry: Entry, about: Sidecar) -> tuple[str, ...]:
    """A plan in a table: what its profiles cover together, and what it took."""
    profiles = about.key.profiles
    least, greatest = (profiles[0].least, profiles[-1].greatest) if profiles else ({}, {})
    covered = [f"{name} {list(least[name])} to {list(greatest[name])}" for name in least]
    service = "" if entry.manifest is None else entry.manifest.service
    size = f"{about.plan_bytes / 1e6:.1f}"
    shapes = "<br>".join(covered) or "fixed"
    return (entry.name, service, shapes, str(len(profiles)), f"{about.build_seconds:.1f}", size)


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    head = ("model", "service", "shapes", "profiles", "seconds", "plan, MB")
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _all(directory: Path) -> list[tuple[Entry, int]]:
    """The newest version of every model that has a network. Raises ConfigError."""
    entries = [
        entry for entry in Repository(directory).scan() if entry.manifest is None or entry.manifest.backend != "fake"
    ]
    return [(entry, entry.versions[-1] if entry.versions else 0) for entry in entries]


@app.command("list")
def list_engines(config: Config = None, models: Models = None) -> None:
    """List the engines that were built, with what they were built for."""
    from cli import table
    from engines.tensorrt.plans import plans

    with one_line(TensorRTError, ConfigError):
        found = plans(models_directory(config, models))
    rows = [
        (
            f"{about.model}@{about.version}",
            f"{about.key.library} {about.key.library_version}",
            ", ".join(about.key.targets) or "default",
            about.key.precision,
            f"{about.plan_bytes / 1e6:.1f} MB",
            about.built,
            str(path),
        )
        for path, about in found
    ]
    table.show(("MODEL", "LIBRARY", "TARGETS", "PRECISION", "SIZE", "BUILT", "PLAN"), rows)


@app.command()
def inspect(
    plan: Annotated[str, typer.Argument(help="A .plan file, or a model's name: its newest engine.")],
    *,
    config: Config = None,
    models: Models = None,
) -> None:
    """Say what is inside an engine, from its sidecar file: no GPU and no library needed."""
    from engines.tensorrt import plans

    with one_line(TensorRTError, ConfigError):
        path = Path(plan)
        if not path.is_file():
            name, _, version = plan.partition("@")
            known = plans.plans(models_directory(config, models))
            mine = [item for item in known if item[1].model == name and version in ("", item[1].version)]
            if not mine:
                fail(f"'{plan}' is no file and no model with an engine: run 'headrace engines build {name}'")
            path = max(mine, key=lambda item: item[1].built)[0]
        about = plans.read(path)
    for word, value in _facts(path, about):
        typer.echo(f"{word:<11}{value}")


def _facts(path: Path, about: Sidecar) -> list[tuple[str, str]]:
    key = about.key
    return [
        ("plan", f"{path} ({about.plan_bytes} bytes, SHA-256 {about.plan_sha256})"),
        ("model", f"{about.model}@{about.version} (SHA-256 {key.model_sha256})"),
        ("library", f"{key.library} {key.library_version}"),
        ("targets", ", ".join(key.targets) or "the library's default"),
        ("precision", f"{key.precision}, strongly typed"),
        *(("input", f"{tensor.name} {tensor.datatype} {list(tensor.shape)}") for tensor in about.inputs),
        *(("output", f"{tensor.name} {tensor.datatype} {list(tensor.shape)}") for tensor in about.outputs),
        *(
            (
                "profile",
                ", ".join(
                    f"{name} {list(low)} to {list(profile.greatest[name])}" for name, low in profile.least.items()
                ),
            )
            for profile in key.profiles
        ),
        ("built", f"{about.built} in {about.build_seconds:.2f} s"),
    ]


def _find(directory: Path, model: str) -> tuple[Entry, int]:
    name, _, version = model.partition("@")
    entries = {entry.name: entry for entry in Repository(directory).scan()}
    if name not in entries:
        known = ", ".join(entries) or "it is empty"
        raise TensorRTError(f"no model '{name}' in {directory} ({known}): run 'headrace models pull {name}'")
    entry = entries[name]
    if entry.error is not None:
        raise entry.error
    try:
        return entry, entry.resolve(version)
    except NoSuchVersion as error:
        raise TensorRTError(str(error)) from error
