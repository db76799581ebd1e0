"""`headrace config check`: find every mistake in the settings and the manifests, without starting anything."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import fail

if TYPE_CHECKING:
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
    problems += _missing_models(settings, {entry.name for entry in entries})
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{settings.file or 'defaults'}: ok, services: {', '.join(settings.services) or 'none'}")
    for entry in entries:
        typer.echo(f"{entry.folder}: ok, versions: {', '.join(map(str, entry.versions))}")


def _entries(settings: "Settings") -> "list[Entry]":
    from engines.repository import Repository

    # Before the first pull there is no repository, and that is no mistake.
    return Repository(settings.models_dir).scan() if settings.models_dir.is_dir() else []


def _missing_models(settings: "Settings", present: set[str]) -> list[str]:
    """Models that the file names, which are neither in the repository nor fetched into it."""
    problems = []
    for service, section in settings.services.items():
        named = {f"models[{index}]": name for index, name in enumerate(section.models)}
        named |= {f"defaults.{task}": name for task, name in section.defaults.items()}
        problems += [
            f"{settings.file or 'defaults'}: services.{service}.{key}: there is no model '{name}' in "
            f"{settings.models_dir}, and models.pull does not fetch it"
            for key, name in named.items()
            if name.partition("@")[0] not in present | set(settings.models.pull)
        ]
    return problems
