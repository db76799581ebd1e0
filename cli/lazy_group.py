"""A group of commands whose modules are imported when they are called, so that `--help` stays instant."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Where a command lives: the module whose `app` has it, alone or among others. `help` is the line in the list."""

    module: str
    help: str


class LazyGroup(TyperGroup):
    """Knows its commands' names and help, and imports one when it is used."""

    subcommands: ClassVar[Mapping[str, Subcommand]] = {}

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the base's signature
        """Return the names in the order of the table."""
        return list(self.subcommands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command, or only its name and help while the list is printed."""
        subcommand = self.subcommands.get(cmd_name)
        if subcommand is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=subcommand.help)
        command: Any = typer.main.get_command(importlib.import_module(subcommand.module).app)
        if isinstance(command, TyperGroup):
            command = command.get_command(ctx, cmd_name) or command
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help without importing any subcommand."""
        self._listing = True
        super().format_help(ctx, formatter)
