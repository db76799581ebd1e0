"""Tables for people and for pipes: drawn in a terminal, tab-separated lines elsewhere."""

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
    """Print `rows`; `styles` names a rich style for each row, or is empty.

    In a terminal a last column called REASON is printed below the table, each reason once: it would break the rows.
    """
    console = Console()
    if not console.is_terminal:
        for row in (columns, *rows):
            typer.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    apart = columns[-1] == "REASON"
    for column in columns[:-1] if apart else columns:
        table.add_column(column, overflow="fold")
    for index, row in enumerate(rows):
        cells = row[:-1] if apart else row
        table.add_row(*(Text(cell) for cell in cells), style=styles[index] if styles else "")
    console.print(table)
    for reason in dict.fromkeys(row[-1] for row in rows if apart and row[-1]):
        concerned = ", ".join(row[0] for row in rows if row[-1] == reason)
        console.print(Text(f"{concerned}: {reason}"), style="dim", soft_wrap=True)
