"""`headrace up`: fetch what is missing, start the mesh, say what to try, stay until Ctrl-C."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

from cli.failure import fail, one_line
from engines.strict_toml import ConfigError
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
    pull: Annotated[bool, typer.Option("--pull/--no-pull", help="Fetch models of the zoo that are missing.")] = True,
) -> None:
    """Start the mesh and stay until Ctrl-C."""
    started = time.monotonic()
    console = Console(stderr=True, highlight=False)
    with one_line(ConfigError, CannotStartError, MeshBusyError):
        settings = _settings(config, listen)
        check_port_free(settings.gateway.listen)
        if pull:
            _pull(settings, console)
        with console.status("starting ...", spinner="dots") as status:
            asyncio.run(run_mesh(settings, _observer(console, status, settings, started)))
    console.print("stopped")


def _settings(config: Path | None, listen: str | None) -> Settings:
    settings = Settings.load(config, flags={} if listen is None else {"gateway.listen": listen})
    ports = {"gateway.listen": settings.gateway.listen, "metrics.listen": settings.metrics.listen}
    return Settings.load(config, flags={key: free_port(address) for key, address in ports.items()})


def _pull(settings: Settings, console: Console) -> None:
    """Fetch missing models in a process of its own: what converting them needs should not stay in the supervisor."""
    missing = [name for name in settings.models.pull if not (settings.models_dir / name / "model.toml").is_file()]
    if not missing:
        return
    console.print(f"fetching into {settings.models_dir}: {', '.join(missing)}")
    command = [sys.executable, "-P", "-m", "cli.main", "models", "pull", "--models", str(settings.models_dir), *missing]
    try:
        status = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        fail("stopped while fetching models; what was fetched is kept")
    if status != 0:
        fail("the models could not be fetched; start without them by `headrace up --no-pull`")


def _observer(console: Console, status: Status, settings: Settings, started: float) -> Observer:
    logs = settings.state_dir / "logs"

    def waiting(names: list[str]) -> None:
        status.update(f"starting: {', '.join(names)} ...")

    def ready(mesh: MeshFile, mesh_status: MeshStatus) -> None:
        status.stop()
        seconds = time.monotonic() - started
        console.print(f"\n[bold green]Headrace is ready[/] after {seconds:.1f} s\n")
        console.print(_summary(mesh, mesh_status, logs))
        console.print(_suggestions(mesh, mesh_status, settings))
        console.print("[dim]Ctrl-C stops everything.[/]")

    return Observer(line=lambda text: console.print(text, markup=False), waiting=waiting, ready=ready)


def _summary(mesh: MeshFile, status: MeshStatus, logs: Path) -> Table:
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
