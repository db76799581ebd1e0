"""How `headrace top` looks."""

import time
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.top_view import ModelRow, ProcessRow, RpcRow, View

_MODEL_COLUMNS = ("MODEL", "BATCHES/S", "ROWS EACH", "ROWS/S", "QUEUED", "QUEUE MS", "ENGINE MS")


def render(gateway: str, view: View) -> Group:
    """Return the whole screen."""
    head = Text(f"Headrace on {gateway}   {view.requests_per_second:,.1f} requests/s at the gateway   ", style="bold")
    head.append(time.strftime("%H:%M:%S") + "   times in ms: p50/p99", style="dim")
    return Group(
        head,
        Text(),
        _table(_MODEL_COLUMNS, [_model(row) for row in view.models]),
        Text(),
        _table(("RPC", "CALLS/S", "ERRORS/S", "MS"), [_rpc(row) for row in view.rpcs]),
        Text(),
        _table(("PROCESS", "PID", "CPU", "MEMORY"), [_process(row) for row in view.processes]),
    )


def _table(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(columns[0], min_width=20, no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _model(row: ModelRow) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.batches_per_second:,.1f}",
        f"{row.rows_per_batch:.1f}",
        f"{row.rows_per_second:,.1f}",
        f"{row.queued_rows:,.0f}",
        _pair(row.queue_p50, row.queue_p99),
        _pair(row.engine_p50, row.engine_p99),
    )


def _rpc(row: RpcRow) -> tuple[str, ...]:
    return (row.name, f"{row.per_second:,.1f}", f"{row.errors_per_second:,.1f}", _pair(row.p50, row.p99))


def _process(row: ProcessRow) -> tuple[str, ...]:
    return (row.name, str(row.pid), f"{row.cpu_percent:.0f}%", f"{row.memory_mib:,.0f} MiB")


def _pair(p50: float | None, p99: float | None) -> str:
    if p50 is None or p99 is None:
        return "-"
    return f"{p50 * 1e3:.3g}/{p99 * 1e3:.3g}"
