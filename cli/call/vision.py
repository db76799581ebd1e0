"""Calls of the vision service: `headrace call vision.classify photo.jpg`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.call.inputs import existing
from cli.call.reply import Reply, categories, failure, show, titled, vector
from cli.call.session import AsJson, Gateway, ModelOption, Timeout, calling, words

if TYPE_CHECKING:
    from headrace import ClassifyResult, EmbedResult, ReadTextResult, Results, TextLine

app = typer.Typer()

Images = Annotated[list[Path], typer.Argument(metavar="FILE", help="Image files.", show_default=False)]


@app.command("vision.classify")
def classify(
    images: Images,
    *,
    model: ModelOption = "",
    top_k: Annotated[int, typer.Option("--top-k", help="Labels for each image.")] = 5,
    gateway: Gateway = "",
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Label images."""
    files = existing(images)
    with calling(gateway, timeout) as session:
        results = session.client.vision.classify(files, model=model, top_k=top_k, metadata=session.metadata)
    show(classified(files, results), session.trace_id, as_json=as_json)


@app.command("vision.embed")
def embed(
    images: Images, *, model: ModelOption = "", gateway: Gateway = "", timeout: Timeout = 30.0, as_json: AsJson = False
) -> None:
    """Turn images into vectors."""
    files = existing(images)
    with calling(gateway, timeout) as session:
        results = session.client.vision.embed(files, model=model, metadata=session.metadata)
    show(embedded(files, results), session.trace_id, as_json=as_json)


@app.command("vision.read_text")
def read_text(
    images: Images,
    *,
    model: ModelOption = "",
    gateway: Gateway = "",
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Read the printed text of images, in reading order."""
    files = existing(images)
    with calling(gateway, timeout) as session:
        results = session.client.vision.read_text(files, model=model, metadata=session.metadata)
    show(read(files, results), session.trace_id, as_json=as_json)


def classified(files: Sequence[Path], results: "Results[ClassifyResult]") -> Reply:
    """The labels of each file."""

    def labels(result: "ClassifyResult") -> dict[str, Any]:
        found = result.categories
        return {"categories": [{"label": one.label, "score": one.score, "index": one.index} for one in found]}

    return _reply(files, results, labels, lambda result: categories(result.categories))


def embedded(files: Sequence[Path], results: "Results[EmbedResult]") -> Reply:
    """The vector of each file."""
    return _reply(
        files,
        results,
        lambda result: {"embedding": list(result.embedding)},
        lambda result: vector(result.embedding),
    )


def read(files: Sequence[Path], results: "Results[ReadTextResult]") -> Reply:
    """The lines of text of each file."""

    def fields(result: "ReadTextResult") -> dict[str, Any]:
        lines = [
            {"text": line.text, "confidence": line.confidence, "polygon": [list(point) for point in line.polygon]}
            for line in result.lines
        ]
        return {"lines": lines}

    return _reply(files, results, fields, lambda result: _lines(result.lines))


def _lines(lines: "Sequence[TextLine]") -> RenderableType:
    if not lines:
        return Text("  no text", style="dim")
    table = Table.grid(padding=(0, 2))
    for line in lines:
        left, top = (round(min(axis)) for axis in zip(*line.polygon, strict=True))
        doubtful = "yellow" if line.confidence < 0.7 else "dim"
        table.add_row("", Text(f"{line.confidence:.2f}", style=doubtful), Text(f"{left},{top}", style="dim"), line.text)
    return table


def _reply(
    files: Sequence[Path],
    results: "Results[Any]",
    fields: Callable[[Any], dict[str, Any]],
    draw: Callable[[Any], RenderableType],
) -> Reply:
    items, drawn = [], []
    for file, result in zip(files, results, strict=True):
        failed = result.error is not None
        items.append({"file": str(file), **({"error": words(result.error)} if failed else fields(result))})
        drawn.append(titled(str(file), failure(result.error) if failed else draw(result)))
    failed = any(result.error is not None for result in results)
    return Reply({"results": items}, Group(*drawn), results.model, results.receipt, failed)
