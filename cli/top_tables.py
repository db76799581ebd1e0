"""How `headrace top` looks."""

import time
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.top_view import ModelRow, ProcessRow, RpcRow, View

_MODEL_COLUMNS = ("MODEL", "BATCHES/S", "ROWS/S", "ROWS/BATCH", "QUEUED", "QUEUE P50", "P99", "ENGINE P50", "P99")


def render(gateway: str, view: View) -> Group:
    """Return the whole screen."""
    head = Text(f"Headrace on {gateway}   {view.requests_per_second:,.1f} requests/s at the gateway   ", style="bold")
    head.append(time.strftime("%H:%M:%S"), style="dim")
    return Group(
        head,
        Text(),
        _table(_MODEL_COLUMNS, [_model(row) for row in view.models]),
        Text(),
        _table(("RPC", "CALLS/S", "ERRORS/S", "P50", "P99"), [_rpc(row) for row in view.rpcs]),
        Text(),
        _table(("PROCESS", "PID", "CPU", "MEMORY"), [_process(row) for row in view.processes]),
    )


def _table(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(columns[0], min_width=28, no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _model(row: ModelRow) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.batches_per_second:,.1f}",
        f"{row.rows_per_second:,.1f}",
        f"{row.rows_per_batch:.1f}",
        f"{row.queued_rows:,.0f}",
        *(_ms(seconds) for seconds in (row.queue_p50, row.queue_p99, row.engine_p50, row.engine_p99)),
    )


def _rpc(row: RpcRow) -> tuple[str, ...]:
    return (row.name, f"{row.per_second:,.1f}", f"{row.errors_per_second:,.1f}", _ms(row.p50), _ms(row.p99))


def _process(row: ProcessRow) -> tuple[str, ...]:
    return (row.name, str(row.pid), f"{row.cpu_percent:.0f}%", f"{row.memory_mib:,.0f} MiB")


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.1f} ms"
