"""`headrace serve`: run one process of a mesh. The supervisor starts these; a service also runs alone."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import one_line
from services.chassis import poller
from services.chassis.settings import SERVICES

if TYPE_CHECKING:
    from services.chassis.server import Options
    from services.chassis.settings import Settings

#: Where a service listens that runs alone.
_ALONE = "127.0.0.1:9001"

#: Seconds between saying NOT_SERVING and refusing calls; the gateway checks health every half second.
_ALONE_NOTICE, _MESH_NOTICE = 0.1, 1.2

app = typer.Typer(help="Run one process of a mesh.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option("--config", help="headrace.toml; default: the one in this folder.")]
RunDir = Annotated[Path | None, typer.Option(help="Folder where the process says that it serves.")]


def _serve(service: str) -> Callable[..., None]:
    """The command that runs the process of one service."""

    def command(
        config: Config = None,
        listen: Annotated[str, typer.Option(help=f"host:port or unix:/path; default: {_ALONE} or the file's.")] = "",
        run_dir: RunDir = None,
        name: Annotated[str, typer.Option(help="The process in logs, traces, its run-file.")] = f"{service}-0",
        mesh: Annotated[str, typer.Option(help="Where stream items for models of other services are sent.")] = "",
    ) -> None:
        poller.choose()
        import uvloop

        from engines.strict_toml import ConfigError
        from services.chassis import logs
        from services.chassis.addresses import StartError
        from services.chassis.settings import Settings

        with one_line(ConfigError, StartError):
            settings = Settings.load(config)
            logs.set_up(settings.logging.level, name)
            domain = importlib.import_module(f"services.{service}.main")
            uvloop.run(domain.run(settings, _options(settings, service, listen, run_dir, name), mesh))

    return command


for _service in SERVICES:
    app.command(_service, help=f"Run the {_service} service.")(_serve(_service))


@app.command()
def control(config: Config = None, run_dir: RunDir = None) -> None:
    """Run the control process: Envoy's configuration, traces, and what belongs to the mesh as a whole."""
    poller.choose()
    from engines.strict_toml import ConfigError
    from gateway.control import run
    from services.chassis.addresses import StartError
    from services.chassis.settings import Settings

    with one_line(ConfigError, StartError, OSError):
        if run_dir is None:
            raise StartError("the control process needs --run-dir; `headrace up` starts it with one")
        run(Settings.load(config), run_dir)


def _options(settings: "Settings", service: str, listen: str, run_dir: Path | None, name: str) -> "Options":
    """What the settings say about a process of `service`, as the chassis takes it."""
    from services.chassis.rpc import Limits
    from services.chassis.server import Options

    gateway, section = settings.gateway, settings.services.get(service)
    spans = settings.tracing.otlp_endpoint or (f"unix:{run_dir}/control.sock" if run_dir is not None else "")
    return Options(
        name=name,
        listen=listen or (section.address(0) if section is not None else "") or _ALONE,
        run_dir=run_dir,
        otlp_endpoint=spans,
        notice=_ALONE_NOTICE if run_dir is None else _MESH_NOTICE,
        peers=section is not None and section.replicas + len(section.endpoints) > 1,
        limits=Limits(gateway.default_deadline_seconds, gateway.max_deadline_seconds, gateway.max_message_bytes),
    )
