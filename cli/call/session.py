"""What every call needs: its flags, a client, a trace of its own, and errors in one line."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import fail

if TYPE_CHECKING:
    from headrace import Client, HeadraceError

ModelOption = Annotated[str, typer.Option("--model", help='"name" or "name@version"; empty = the mesh\'s default.')]
Gateway = Annotated[
    str, typer.Option(help="HOST:PORT; empty = that of the mesh running from this folder, else 127.0.0.1:8080.")
]
Timeout = Annotated[float, typer.Option(help="Seconds allowed.", min=0.001)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _traceparent() -> str:
    # The sampled flag of the caller: this very call can be looked at afterwards, whatever the gateway samples.
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


@dataclass(frozen=True, slots=True)
class Session:
    """A client of the mesh, and the metadata that has this one call traced."""

    client: "Client"
    metadata: dict[str, str] = field(default_factory=lambda: {"traceparent": _traceparent()})

    @property
    def trace_id(self) -> str:
        """The id of the call's trace, 32 hexadecimal digits."""
        return self.metadata["traceparent"].split("-")[1]


@contextmanager
def calling(gateway: str, timeout: float) -> Iterator[Session]:
    """A session with the mesh at `gateway`, "" being the one running from this folder; errors end in one line."""
    from headrace import Client, HeadraceError

    try:
        with Client(gateway or running_gateway(), timeout=timeout) as client:
            yield Session(client)
    except HeadraceError as error:
        fail(words(error))
    except (OSError, ValueError) as error:
        fail(str(error))


def running_gateway() -> str:
    """The address of the mesh running from this folder, else where one listens by default."""
    from gateway.runfile import NoMeshError, find_mesh
    from headrace._transport import DEFAULT_TARGET

    try:
        return find_mesh(Path(".headrace")).gateway
    except NoMeshError:
        return DEFAULT_TARGET


def words(error: "HeadraceError") -> str:
    """The error as one clause, with its reason."""
    reason = f" ({error.reason})" if error.reason else ""
    return f"{error}{reason}"
