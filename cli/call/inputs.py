"""What a call is about: files that are there, texts from the command line, standard input or a file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import fail

Texts = Annotated[
    list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; '-' reads standard input, one a line.")
]
TextFile = Annotated[Path | None, typer.Option("--file", help="A file with more texts, one a line.")]


def existing(paths: Sequence[Path]) -> list[Path]:
    """The same paths, or one line and status 1 when one of them is no file."""
    for path in paths:
        if not path.is_file():
            fail(f"{path}: {'is a folder' if path.is_dir() else 'there is no such file'}")
    return list(paths)


def texts(arguments: Sequence[str], file: Path | None, what: str = "text") -> list[str]:
    """The texts of the command line, with `-` replaced by the lines of standard input, then those of `file`."""
    found: list[str] = []
    for argument in arguments:
        found += lines(sys.stdin.buffer.read(), "standard input") if argument == "-" else [argument]
    if file is not None:
        (existing_file,) = existing([file])
        found += lines(existing_file.read_bytes(), str(existing_file))
    if not found:
        fail(f"no {what} is given: write it on the command line, '-' for standard input, or --file FILE")
    return found


def lines(content: bytes, source: str) -> list[str]:
    """The lines of a text in UTF-8 that are not blank; one line and status 1 when it is something else."""
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fail(f"{source}: is not UTF-8 text ({error.reason} at byte {error.start})")
    return [line for line in decoded.splitlines() if line.strip()]
