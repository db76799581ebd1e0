"""`headrace models quantize`: an INT8 version of a model, kept only when it loses little enough."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import fail, one_line

if TYPE_CHECKING:
    from engines.quantization.quantize import Outcome


def quantize(
    model: Annotated[str, typer.Argument(help="A model of the repository: 'name' or 'name@version'.")],
    *,
    tolerance: Annotated[float, typer.Option(help="Greatest loss with which the new version is kept, 0 to 1.")] = 0.02,
    calibration: Annotated[
        str,
        typer.Option(help="Real inputs: a folder of pictures, a text file of one text a line; auto = what is at hand."),
    ] = "auto",
    config: Annotated[Path | None, typer.Option("--config", help="The mesh's file; ./headrace.toml.")] = None,
    models: Annotated[Path | None, typer.Option("--models", help="The model repository.")] = None,
) -> None:
    """Make an INT8 version of a model, measure what it loses and gains, and keep it when the loss is tolerable."""
    import dataclasses

    from cli import pull_progress
    from engines.quantization import quantize as quantization
    from engines.repository import NoSuchVersion
    from engines.strict_toml import ConfigError
    from engines.tuning.tune import find
    from engines.zoo.errors import ZooError
    from engines.zoo.progress import Progress
    from services.chassis.settings import Settings

    with one_line(ConfigError, ZooError, NoSuchVersion):
        directory = models if models is not None else Settings.load(config).models_dir
        entry, version = find(directory, model)
        wish = quantization.choose(entry, version, tolerance, calibration)
        with pull_progress.shown() as told:
            heard = dataclasses.replace(
                wish, told=lambda what, done, of: told(Progress(entry.name, "convert", what, done, of))
            )
            outcome = quantization.quantize(heard)
            told(Progress(entry.name, "done"))
    _show(outcome, f"{entry.name}@{wish.source}")
    if outcome.version is None:
        loss = min(tried.figures.loss for tried in outcome.tried)
        fail(
            f"{entry.name}: not kept, the least loss was {loss:.4f}, --tolerance allows {tolerance:g};"
            " nothing was changed"
        )
    typer.echo(
        f"{entry.name}@{outcome.version}: kept, {outcome.folder}; '{entry.name}' means it from now on,"
        f" '{entry.name}@{wish.source}' the original; remove the folder to go back"
    )


def _show(outcome: "Outcome", original: str) -> None:
    from cli import table

    rows: list[tuple[str, str, str]] = []
    for number, tried in enumerate(outcome.tried, 1):
        rows.append((f"method {number}", "", tried.method))
        rows += [(name, f"{value:.4f}", "counts against the tolerance") for name, value in tried.figures.losses.items()]
        rows += [(name, f"{value:.4f}", "") for name, value in tried.figures.others.items()]
        speed = tried.speed
        rates = f"{speed.quantised:,.0f} {speed.unit}/s against {speed.original:,.0f}, one thread"
        rows.append(("speed", f"{speed.ratio:.2f}x", rates))
        rows.append(("size", f"{tried.megabytes:.1f} MB", f"against {outcome.megabytes:.1f} MB"))
    table.show((original, "INT8", ""), rows)
    typer.echo(f"measured on {outcome.held_out} inputs: {outcome.samples}")
