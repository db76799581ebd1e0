"""`headrace top`: a live table of what the mesh does, from two looks at its metrics page."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import fail, one_line
from cli.top_view import Snapshot, compare, take
from gateway.runfile import MeshFile, NoMeshError, find_mesh, read_run_files

app = typer.Typer()


@app.command()
def top(
    interval: Annotated[float, typer.Option("--interval", help="Seconds between two looks.", min=0.1)] = 1.0,
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once (over one interval) and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one document a look.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="The mesh's file.")] = None,
) -> None:
    """Watch requests, batches, latencies and processes; Ctrl-C leaves."""
    state_dir = (config.parent if config is not None else Path()).absolute() / ".headrace"
    with one_line(NoMeshError):
        mesh = find_mesh(state_dir)
    try:
        if once or as_json:
            _print(mesh, interval, once, as_json)
        else:
            _live(mesh, interval)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except OSError as error:
        fail(f"the metrics page of the mesh does not answer ({error}); it comes back with the control process")


def _look(mesh: MeshFile) -> Snapshot:
    pids = {found.name: found.pid for found in read_run_files(Path(mesh.run_dir))}
    return take(mesh.metrics, {"supervisor": mesh.pid, **pids})


def _print(mesh: MeshFile, interval: float, once: bool, as_json: bool) -> None:
    before = _look(mesh)
    while True:
        time.sleep(interval)
        now = _look(mesh)
        view = compare(before, now)
        if as_json:
            typer.echo(json.dumps(view.document()))
        else:
            from rich.console import Console

            from cli.top_tables import render

            Console(highlight=False).print(render(mesh.gateway, view))
        if once:
            return
        before = now


def _live(mesh: MeshFile, interval: float) -> None:
    from rich.live import Live

    from cli.top_tables import render

    before = _look(mesh)
    with Live(render(mesh.gateway, compare(before, before)), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval)
            now = _look(mesh)
            live.update(render(mesh.gateway, compare(before, now)), refresh=True)
            before = now
