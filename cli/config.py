"""`headrace config check`: find every mistake in the settings and the manifests, without starting anything."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look after headrace.toml.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """Look after headrace.toml."""


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="headrace.toml; default: the one in this folder.")] = None,
) -> None:
    """Check the settings and every manifest: one line a problem and status 1, or a summary."""
    from engines.repository import Repository
    from engines.strict_toml import ConfigError
    from services.chassis.settings import Settings

    problems: list[str] = []
    summary: list[str] = []
    try:
        settings = Settings.load(file)
        summary.append(f"{settings.file or 'defaults'}: ok, services: {', '.join(settings.services) or 'none'}")
        entries = Repository(settings.models_dir).scan() if settings.models_dir.is_dir() else []
        names = {entry.name for entry in entries}
        for entry in entries:
            if entry.error is not None:
                problems.append(str(entry.error))
            else:
                versions = ", ".join(map(str, entry.versions))
                summary.append(f"{entry.folder}: ok, versions: {versions}")
        fetched = names | set(settings.models.pull)
        for service, section in settings.services.items():
            wanted = {f"models[{index}]": name for index, name in enumerate(section.models)}
            wanted |= {f"defaults.{task}": name for task, name in section.defaults.items()}
            problems += [
                f"{settings.file or 'defaults'}: services.{service}.{key}: there is no model '{name}' in "
                f"{settings.models_dir}, and models.pull does not fetch it"
                for key, name in wanted.items()
                if name.partition("@")[0] not in fetched
            ]
    except ConfigError as error:
        problems.append(str(error))
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    for line in summary:
        typer.echo(line)
