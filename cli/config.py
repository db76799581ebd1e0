"""`headrace config check`: find every mistake in the settings and the manifests, without starting anything."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import fail
from services.chassis.default_models import tasks_of

if TYPE_CHECKING:
    from engines.manifest import Manifest
    from engines.repository import Entry
    from services.chassis.settings import Settings

app = typer.Typer(help="Look after headrace.toml.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """Look after headrace.toml."""


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="headrace.toml; default: the one in this folder.")] = None,
) -> None:
    """Check the settings and every manifest: one line a problem and status 1, or a summary."""
    from engines.strict_toml import ConfigError
    from services.chassis.settings import Settings

    try:
        settings = Settings.load(file)
        entries = _entries(settings)
    except ConfigError as error:
        fail(str(error))
    problems = [str(entry.error) for entry in entries if entry.error is not None]
    problems += [*_unknown_pulls(settings), *_missing_models(settings, entries), *_missing_parts(settings, entries)]
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{_file(settings)}: ok, services: {', '.join(settings.services) or 'none'}")
    for entry in entries:
        typer.echo(f"{entry.folder}: ok, versions: {', '.join(map(str, entry.versions))}")


def _entries(settings: "Settings") -> "list[Entry]":
    from engines.repository import Repository

    # Before the first pull there is no repository, and that is no mistake.
    return Repository(settings.models_dir).scan() if settings.models_dir.is_dir() else []


def _unknown_pulls(settings: "Settings") -> Iterator[str]:
    """Models to fetch that the zoo does not have."""
    from engines.zoo import registry
    from engines.zoo.errors import ZooError

    for index, name in enumerate(settings.models.pull):
        try:
            registry.recipe(name)
        except ZooError as error:
            yield f"{_file(settings)}: models.pull[{index}]: {error}"


def _missing_models(settings: "Settings", entries: "list[Entry]") -> Iterator[str]:
    """Models that the file names, which are neither in the repository nor fetched into it, or cannot do that."""
    manifests = {entry.name: entry.manifest for entry in entries}
    for service, section in settings.services.items():
        tasks = tasks_of(service)
        named = [(f"models[{index}]", name, "") for index, name in enumerate(section.models)]
        named += [(f"defaults.{key}", name, tasks[key]) for key, name in section.defaults.items()]
        for key, reference, task in named:
            name = reference.partition("@")[0]
            where = f"{_file(settings)}: services.{service}.{key}"
            if name not in manifests:
                if name not in settings.models.pull:
                    yield (
                        f"{where}: there is no model '{reference}' in {settings.models_dir}, and models.pull does not "
                        "fetch it"
                    )
                continue
            yield from _unfit(where, manifests[name], service, task)


def _unfit(where: str, manifest: "Manifest | None", service: str, task: str) -> Iterator[str]:
    """Why a model that is there is none for this service and task; a broken one has been told already."""
    if manifest is None:
        return
    if manifest.service != service:
        yield f"{where}: '{manifest.name}' is a model of the service {manifest.service}"
    elif task not in ("", "tensor") and task not in manifest.tasks:
        yield f"{where}: '{manifest.name}' does not {task}; its tasks are: {', '.join(manifest.tasks)}"


def _missing_parts(settings: "Settings", entries: "list[Entry]") -> Iterator[str]:
    """Networks that a model works with, which are neither there nor fetched, or belong to another service."""
    services = {entry.name: entry.manifest.service for entry in entries if entry.manifest is not None}
    for entry in entries:
        for key, name in _parts(entry.manifest).items():
            where = f"{entry.folder / 'model.toml'}: {key}"
            if entry.manifest is not None and services.get(name, entry.manifest.service) != entry.manifest.service:
                yield f"{where}: '{name}' is a model of the service {services[name]}, must be of the same service"
            elif name not in services and name not in settings.models.pull:
                yield f"{where}: there is no model '{name}' in {settings.models_dir}, and models.pull does not fetch it"


def _parts(manifest: "Manifest | None") -> dict[str, str]:
    """The other models that a model names, by the key that names each."""
    if manifest is None:
        return {}
    named = {
        "recognizer.encoder": manifest.recognizer.encoder if manifest.recognizer is not None else "",
        "reader.detector": manifest.reader.detector if manifest.reader is not None else "",
        "recommender.retrieval": manifest.recommender.retrieval if manifest.recommender is not None else "",
    }
    return {key: name for key, name in named.items() if name}


def _file(settings: "Settings") -> object:
    return settings.file or "defaults"
