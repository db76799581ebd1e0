"""How an answer is shown: drawn for people or as JSON, then what it cost and where its trace is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from cli.call.session import words

if TYPE_CHECKING:
    from headrace import Category, HeadraceError, Model, Receipt

_BAR = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer ready to be shown. `document`: its own part of the JSON; `failed`: one of its items met an error."""

    document: Mapping[str, Any]
    drawn: RenderableType
    model: "Model"
    receipt: "Receipt | None"
    failed: bool = False


def show(reply: Reply, trace_id: str, *, as_json: bool) -> None:
    """Print the answer; status 1 when an item of it failed."""
    if as_json:
        receipt = asdict(reply.receipt) if reply.receipt else None
        document = {**reply.document, "model": str(reply.model), "receipt": receipt, "trace_id": trace_id}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        console.print(reply.drawn, soft_wrap=not console.is_terminal)
        console.print(receipt_line(reply, trace_id), soft_wrap=True)
    if reply.failed:
        raise typer.Exit(1)


def receipt_line(reply: Reply, trace_id: str) -> Text:
    """Who answered, what it cost, and how to see where the time went."""
    receipt, line = reply.receipt, str(reply.model)
    if receipt is not None:
        rows = f"{receipt.batch_rows} row{'' if receipt.batch_rows == 1 else 's'}"
        line += f"   queue {receipt.queue_ms:.1f} ms, engine {receipt.engine_ms:.1f} ms, batch of {rows}"
    return Text(f"{line}   headrace trace {trace_id[:8]}", style="dim")


def titled(title: str, below: RenderableType) -> Group:
    """An item of an answer under what it is about."""
    return Group(Text(title, style="bold", overflow="ellipsis", no_wrap=True), below)


def failure(error: "HeadraceError") -> Text:
    """Why an item failed."""
    return Text(f"  {words(error)}", style="red")


def bar(share: float, style: str = "green") -> Text:
    """A bar for a share of 0 to 1."""
    return Text("█" * round(_BAR * min(max(share, 0.0), 1.0)), style=style)


def categories(found: "tuple[Category, ...]") -> RenderableType:
    """Labels with their scores, best first."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for category in found:
        table.add_row("", category.label, f"{category.score:.4f}", bar(category.score))
    return table


def vector(values: tuple[float, ...], remark: str = "") -> Text:
    """The beginning of an embedding."""
    head = ", ".join(f"{value:.4f}" for value in values[:6])
    return Text(f"  {len(values)} values of unit length{remark}: {head}, ...")
