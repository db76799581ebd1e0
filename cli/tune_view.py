"""What a tuning found, as a table and a plot of rates against rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console

from cli import table

if TYPE_CHECKING:
    from engines.tuning.measure import Measured
    from engines.tuning.tune import Tuned

_COLUMNS: Final = ("VERSION", "PRECISION", "ENGINES x THREADS", "ROWS", "ROWS/S", "MS/BATCH", "ROUNDS", "OF BEST")
_HEIGHT: Final = 9
_STEP: Final = 8
_MARKS: Final = "ox+*#@%&"


def show(found: "Tuned") -> None:
    """Print the table; in a terminal the plot too."""
    top = max(item.rate for item in found.measured)
    winners = [item.arrangement for item in found.best.values()]
    rows = [
        (
            str(item.arrangement.version),
            found.precisions[item.arrangement.version],
            f"{item.arrangement.instances} x {item.arrangement.threads}",
            str(item.arrangement.rows),
            f"{item.rate:.1f}",
            f"{item.milliseconds:.2f}",
            str(len(item.rates)),
            f"{item.rate / top:.0%}" + (" <- kept" if item.arrangement in winners else ""),
        )
        for item in found.measured
    ]
    styles = ["green" if item.arrangement in winners else "" for item in found.measured]
    table.show(_COLUMNS, rows, styles)
    if Console().is_terminal:
        typer.echo("\n".join(["", *plot(series(found.measured, found.precisions)), ""]))
        if found.sizes:
            sizes = ", ".join(f"{name} = {size}" for name, size in found.sizes.items())
            typer.echo(f"a row is one with {sizes}")


def series(measured: Sequence["Measured"], precisions: Mapping[int, str]) -> dict[str, dict[int, float]]:
    """Curves by name: rows -> rate."""
    curves: dict[str, dict[int, float]] = {}
    for item in measured:
        one = item.arrangement
        version = f", version {one.version} ({precisions[one.version]})" if len(precisions) > 1 else ""
        curves.setdefault(f"{one.instances} x {one.threads}{version}", {})[one.rows] = item.rate
    return curves


def plot(curves: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Lines of text: rates from 0 upwards, a column for each number of rows, a mark for each curve."""
    columns = sorted({rows for curve in curves.values() for rows in curve})
    top = max(rate for curve in curves.values() for rate in curve.values())
    grid = [[" "] * (_STEP * len(columns)) for _ in range(_HEIGHT + 1)]
    for place, curve in enumerate(curves.values()):
        for rows, rate in curve.items():
            line, column = round(_HEIGHT * rate / top), _STEP * columns.index(rows) + _STEP // 2
            while grid[line][column] != " ":
                column += 1  # Curves that meet stand side by side.
            grid[line][column] = _MARKS[place % len(_MARKS)]
    lines = []
    for height in range(_HEIGHT, -1, -1):
        label = f"{top * height / _HEIGHT:>10,.0f}" if height % 3 == 0 else " " * 10
        lines.append(f"{label} |{''.join(grid[height])}".rstrip())
    lines.append(" " * 11 + "+" + "-" * (_STEP * len(columns)))
    lines.append("rows/s by rows" + "".join(f"{rows:^{_STEP}}" for rows in columns)[2:].rstrip())
    lines.extend(f"{_MARKS[place % len(_MARKS)]:>10}  {name}" for place, name in enumerate(curves))
    return lines
