"""Tables for people and for pipes: drawn in a terminal, tab-separated lines elsewhere."""

from collections.abc import Sequence
from typing import Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: More rows than this are counted, not named, in a remark under the table.
_MOST_NAMED: Final = 3


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = (), *, below: int = 0) -> None:
    """Print `rows`; `styles` names a rich style for each row, or is empty.

    The first column, the name, is never broken. In a terminal the last `below` columns are printed under the table,
    each text once: they would break the rows.
    """
    console = Console()
    if not console.is_terminal:
        for line in (columns, *rows):
            typer.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in line))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    drawn = len(columns) - below
    for place, column in enumerate(columns[:drawn]):
        table.add_column(column, overflow="fold", no_wrap=place == 0)
    for index, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row[:drawn]), style=styles[index] if styles else "")
    console.print(table)
    for place in range(drawn, len(columns)):
        for words in dict.fromkeys(row[place] for row in rows if row[place]):
            names = [row[0] for row in rows if row[place] == words]
            concerned = ", ".join(names) if len(names) <= _MOST_NAMED else f"{len(names)} of them"
            console.print(Text(f"{concerned}: {words}"), style="dim", soft_wrap=True)
