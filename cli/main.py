"""The `headrace` command. Each subcommand's module is imported when it is called, so that `--help` stays instant."""

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class _Subcommand:
    module: str
    help: str


_SUBCOMMANDS: Final = {
    "up": _Subcommand(
        "cli.up", "Start the mesh: fetch missing models, then Envoy, the services and the control process."
    ),
    "call": _Subcommand("cli.call", "Call a running mesh: headrace call vision.classify photo.jpg."),
    "trace": _Subcommand("cli.trace", "Show where a request's time went, as a tree."),
    "top": _Subcommand("cli.top", "Watch requests, batches, latencies and processes."),
    "models": _Subcommand("cli.models", "Fetch, list, check and add models."),
    "engines": _Subcommand("cli.engines", "Build and inspect TensorRT engines."),
    "config": _Subcommand("cli.config", "Check headrace.toml."),
    "serve": _Subcommand("cli.serve", "Run one process of the mesh by itself."),
    "version": _Subcommand("cli.version", "Print the version."),
}


class _LazyGroup(TyperGroup):
    """A group that knows its commands' names and help, and imports one when it is used."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the base's signature
        """Return the names in the order of the table above."""
        return list(_SUBCOMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return the command, or only its name and help while the list is printed."""
        subcommand = _SUBCOMMANDS.get(cmd_name)
        if subcommand is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=subcommand.help)
        command = typer.main.get_command(importlib.import_module(subcommand.module).app)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help without importing any subcommand."""
        self._listing = True
        super().format_help(ctx, formatter)


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help takes half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _headrace() -> None:
    """Headrace: a self-hosted inference mesh. Start with `headrace up`."""


def main() -> None:
    """Run the command line: what goes wrong is one line on standard error and status 1, never a traceback."""
    try:
        app(prog_name="headrace")
    except BrokenPipeError:
        # The reader of a pipe has left; nothing more can be said, not even by the interpreter's own flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # the last line of defence of a command line
        if os.environ.get("HEADRACE_TRACEBACK"):
            raise
        words = " ".join(str(error).split()) or "no message"
        sys.stderr.write(
            f"error: {type(error).__name__}: {words} (unexpected; HEADRACE_TRACEBACK=1 shows where it comes from)\n"
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
