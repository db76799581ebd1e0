"""`headrace models train`: models from one's own data."""

from pathlib import Path
from typing import Annotated

import typer

from cli.failure import one_line

app = typer.Typer(help="Train a model on data of your own.", no_args_is_help=True)


@app.callback()
def _train() -> None:
    """Train a model on data of your own."""


@app.command()
def recommender(
    interactions: Annotated[Path, typer.Option(help="CSV: user_id,item_id[,rating][,timestamp].")],
    items: Annotated[Path, typer.Option(help="CSV: item_id[,title][,genres][,year]; genres separated by '|'.")],
    *,
    name: Annotated[str, typer.Option(help="What the model is called.")] = "recommender",
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier training of that name.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="The mesh's file; ./headrace.toml.")] = None,
    models: Annotated[Path | None, typer.Option("--models", help="The model repository.")] = None,
) -> None:
    """Train a recommender on who chose what, say how good it is, and put it into the repository."""
    from cli import pull_progress
    from engines.recommender import dataset, install
    from engines.recommender.csv_tables import DatasetError
    from engines.strict_toml import ConfigError
    from engines.zoo.errors import ZooError
    from engines.zoo.progress import Progress
    from services.chassis.settings import Settings

    with one_line(DatasetError, ZooError, ConfigError):
        directory = models if models is not None else Settings.load(config).models_dir
        install.check_name(name, directory, replace=replace)
        with pull_progress.shown() as told:
            told(Progress(name, "convert", "reading"))
            found = dataset.read(interactions, items)
            dataset.check_size(found)
            # Takes seconds to import, which mistakes should not wait for.
            from engines.recommender import folders, report, training

            trained = training.train(found, lambda what, done, of: told(Progress(name, "convert", what, done, of)))
            told(Progress(name, "write"))
            install.install(folders.own_folders(trained, name), directory)
            told(Progress(name, "done"))
    typer.echo(f"{name}: trained in {trained.seconds:.1f} s, {directory / name}")
    typer.echo("".join(f"  {line}".rstrip() + "\n" for line in report.text(trained).splitlines()), nl=False)
