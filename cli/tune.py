"""`headrace tune`: find the engines, threads and rows at which a model is fastest on this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import one_line
from cli.models import Config, Models, models_directory

if TYPE_CHECKING:
    from engines.tuning.tune import Tuned

app = typer.Typer()


@app.command()
def tune(
    model: Annotated[str, typer.Argument(help="A model of the repository: 'name', or 'name@version' for that alone.")],
    *,
    seconds: Annotated[float, typer.Option(help="How long to measure, about.")] = 20.0,
    cores: Annotated[int, typer.Option(help="Cores to tune for; 0 = those that the model's service has.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the order in which arrangements are measured.")] = 0,
    config: Config = None,
    models: Models = None,
) -> None:
    """Measure engines x threads x rows (x versions) of a model on this machine, and keep the best for its service."""
    from cli import tune_view
    from engines.repository import NoSuchVersion
    from engines.strict_toml import ConfigError
    from engines.tuning import tune as tuning
    from engines.zoo.errors import ZooError

    with one_line(ConfigError, ZooError, NoSuchVersion):
        entry, version = tuning.find(models_directory(config, models), model)
        wish = tuning.plan(entry, cores or _cores_of(entry.manifest.service if entry.manifest else "", config), version)
        with _bar(entry.name) as told:
            found = tuning.tune(tuning.with_time(wish, seconds, seed, told))
    tune_view.show(found)
    _conclude(entry.name, found, wish.cores)


def _conclude(name: str, found: "Tuned", cores: int) -> None:
    for version, winner in found.best.items():
        best = winner.arrangement
        typer.echo(
            f"{name}@{version}: {best.instances} x {best.threads} thread{'' if best.threads == 1 else 's'} on {cores}"
            f" core{'' if cores == 1 else 's'}, batches of {best.rows}: {winner.rate:,.0f} rows/s; kept beside it,"
            " used at the next start"
        )
    for note in found.notes:
        typer.echo(f"  {note}")


def _cores_of(service: str, config: Path | None) -> int:
    """What headrace.toml gives the model's service, as far as this machine has it. Raises ConfigError."""
    from engines.tuning.machine import cores
    from services.chassis.settings import Settings

    section = Settings.load(config).services.get(service)
    return cores() if section is None else min(section.cores, cores())


@contextmanager
def _bar(name: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _share: None
        return
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=40), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as drawn:
        task = drawn.add_task(f"{name}: measuring", total=1.0)
        yield lambda share: drawn.update(task, completed=share)
