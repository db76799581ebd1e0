"""The `headrace` command. Each subcommand's module is imported when it is called, so that `--help` stays instant."""

import os
import sys
from typing import Final

import typer

from cli.lazy_group import LazyGroup, Subcommand

_SUBCOMMANDS: Final = {
    "up": Subcommand(
        "cli.up", "Start the mesh: fetch missing models, then Envoy, the services and the control process."
    ),
    "call": Subcommand("cli.call", "Call a running mesh: headrace call vision.classify photo.jpg."),
    "demo": Subcommand("cli.demo", "Walk the four domains of a running mesh, with real inputs and a trace of each."),
    "trace": Subcommand("cli.trace", "Show where a request's time went, as a tree."),
    "top": Subcommand("cli.top", "Watch requests, batches, latencies and processes."),
    "models": Subcommand("cli.models", "Fetch, list, show, check and add models."),
    "tune": Subcommand("cli.tune", "Find the engines, threads and rows at which a model is fastest here."),
    "engines": Subcommand("cli.engines", "Build and inspect TensorRT engines."),
    "config": Subcommand("cli.config", "Check headrace.toml."),
    "serve": Subcommand("cli.serve", "Run one process of the mesh by itself."),
    "version": Subcommand("cli.version", "Print the version."),
}


class _Headrace(LazyGroup):
    subcommands = _SUBCOMMANDS


app = typer.Typer(
    cls=_Headrace,
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
