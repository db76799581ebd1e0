"""How commands fail: one line on standard error and exit status 1, never a traceback for what can be expected."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """Print `error: message` on standard error and leave with status 1."""
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(1)


@contextmanager
def one_line(*expected: type[Exception]) -> Iterator[None]:
    """Turn these exceptions, whose text is meant for the user, into `fail`."""
    try:
        yield
    except expected as error:
        fail(str(error))
