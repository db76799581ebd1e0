"""`headrace version`."""

from importlib import metadata

import typer

app = typer.Typer()


@app.command()
def version() -> None:
    """Print the version."""
    try:
        typer.echo(metadata.version("headrace-mesh"))
    except metadata.PackageNotFoundError:
        typer.echo("not installed (running from a source tree)")
