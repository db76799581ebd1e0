"""`headrace up`: start the mesh, fetch what is missing behind it, say what to try, stay until Ctrl-C."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from cli.failure import one_line
from engines.strict_toml import ConfigError
from gateway.fetch import missing_models
from gateway.mesh import Observer, run_mesh
from gateway.ports import CannotStartError, check_port_free, free_port
from gateway.runfile import MeshBusyError, MeshFile, MeshStatus
from services.chassis.settings import Settings

app = typer.Typer()


@app.command()
def up(
    config: Annotated[
        Path | None, typer.Option("--config", help="The mesh's file; ./headrace.toml where there is one.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="HOST:PORT of the gateway, instead of the configured one; port 0 = any."),
    ] = None,
    *,
    pull: Annotated[
        bool, typer.Option("--pull/--no-pull", help="Fetch missing models behind the running mesh.")
    ] = True,
) -> None:
    """Start the mesh and stay until Ctrl-C."""
    started = time.monotonic()
    console = Console(stderr=True, highlight=False)
    with one_line(ConfigError, CannotStartError, MeshBusyError):
        settings = _settings(config, listen)
        check_port_free(settings.gateway.listen)
        missing = missing_models(settings) if pull else ()
        if missing:
            settings.models_dir.mkdir(parents=True, exist_ok=True)
        with console.status("starting ...", spinner="dots") as status:
            view = _View(console, status, settings, started)
            asyncio.run(run_mesh(settings, view.observer(), missing))
    console.print("stopped")


def _settings(config: Path | None, listen: str | None) -> Settings:
    settings = Settings.load(config, flags={} if listen is None else {"gateway.listen": listen})
    ports = {"gateway.listen": settings.gateway.listen, "metrics.listen": settings.metrics.listen}
    return Settings.load(config, flags={key: free_port(address) for key, address in ports.items()})


class _View:
    """What people see: one moving line at the bottom, and lasting ones above it."""

    def __init__(self, console: Console, status: Status, settings: Settings, started: float) -> None:
        self._console = console
        self._status = status
        self._settings = settings
        self._started = started
        self._starting = True
        self._fetching = ""

    def observer(self) -> Observer:
        """Return what the mesh tells all of this."""
        return Observer(line=self._line, waiting=self._waiting, ready=self._ready, fetching=self._fetches)

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _waiting(self, names: list[str]) -> None:
        self._status.update(f"starting: {', '.join(names)} ...")

    def _ready(self, mesh: MeshFile, status: MeshStatus) -> None:
        seconds = time.monotonic() - self._started
        self._starting = False
        self._status.stop()
        self._console.print(f"\n[bold green]Headrace is ready[/] after {seconds:.1f} s\n")
        missing = missing_models(self._settings) if self._fetching else ()
        self._console.print(_summary(mesh, status, self._settings.state_dir / "logs", missing))
        self._console.print(_suggestions(mesh, status, self._settings))
        self._console.print("[dim]Ctrl-C stops everything.[/]")
        self._fetches(self._fetching)

    def _fetches(self, what: str) -> None:
        self._fetching = what
        if self._starting:
            return
        if what:
            self._status.update(escape(what))
            self._status.start()
        else:
            self._status.stop()


def _summary(mesh: MeshFile, status: MeshStatus, logs: Path, fetching: Sequence[str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("gateway", f"{mesh.gateway}   [dim]gRPC, gRPC-Web and REST/JSON on one port[/]")
    for service in status.services:
        models = ", ".join(
            name if state == "READY" else f"{name} [red]({state.lower()})[/]"
            for name, state in sorted(service.models.items())
        )
        state = "" if service.ready else f"[yellow]{service.problem}[/] "
        table.add_row(service.name, state + (models or "[yellow]no models[/]"))
    if fetching:
        table.add_row(
            "to come", f"[dim]{', '.join(fetching)}: fetched behind the mesh, each served once it is there[/]"
        )
    table.add_row("metrics", mesh.metrics)
    table.add_row("logs", str(logs))
    return table


def _suggestions(mesh: MeshFile, status: MeshStatus, settings: Settings) -> str:
    gateway = "" if mesh.gateway == "127.0.0.1:8080" else f" --gateway {mesh.gateway}"
    lines = ["\n[bold]Try[/]"]
    vision = settings.services.get("vision")
    default = "" if vision is None else vision.defaults.get("classify", "")
    if any(default in service.models for service in status.services):
        lines.append(f"  headrace call vision.classify photo.jpg{gateway}")
    lines += ["  headrace trace", "  headrace top", f"  grpcurl -plaintext {mesh.gateway} list", ""]
    return "\n".join(lines)
