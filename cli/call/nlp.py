"""Calls of the language service: `headrace call nlp.classify "It fits perfectly."`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.call.inputs import TextFile, Texts, texts
from cli.call.reply import Reply, bar, categories, failure, show, titled, vector
from cli.call.session import AsJson, Gateway, ModelOption, Timeout, calling, words

if TYPE_CHECKING:
    from headrace import ClassifyResult, EmbedResult, RankedDocument, Results

app = typer.Typer()

#: More texts than this make no readable table of similarities.
_MOST_COMPARED = 9


@app.command("nlp.embed")
def embed(  # noqa: PLR0913 - a command's flags are its parameters.
    text: Texts = None,
    *,
    file: TextFile = None,
    model: ModelOption = "",
    gateway: Gateway = "",
    timeout: Timeout = 30.0,
    no_truncate: Annotated[
        bool, typer.Option("--no-truncate", help="Refuse texts longer than the model reads.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn texts into vectors, and show how alike they are."""
    given = texts(text or (), file)
    with calling(gateway, timeout) as session:
        results = session.client.nlp.embed(given, model=model, no_truncate=no_truncate, metadata=session.metadata)
    show(embedded(given, results), session.trace_id, as_json=as_json)


@app.command("nlp.classify")
def classify(  # noqa: PLR0913 - a command's flags are its parameters.
    text: Texts = None,
    *,
    file: TextFile = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label to choose from; may be repeated. None = the model's own.")
    ] = None,
    model: ModelOption = "",
    top_k: Annotated[int, typer.Option("--top-k", help="Labels for each text.")] = 5,
    gateway: Gateway = "",
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Label texts: with the model's own labels, or with yours by their meaning."""
    given = texts(text or (), file)
    with calling(gateway, timeout) as session:
        results = session.client.nlp.classify(
            given, labels=label or (), model=model, top_k=top_k, metadata=session.metadata
        )
    show(classified(given, results), session.trace_id, as_json=as_json)


@app.command("nlp.rerank")
def rerank(  # noqa: PLR0913 - a command's flags are its parameters.
    query: Annotated[str, typer.Argument(help="What the documents should answer.", show_default=False)],
    document: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DOCUMENT]...", help="Documents; '-' reads standard input, one a line."),
    ] = None,
    *,
    file: TextFile = None,
    model: ModelOption = "",
    top_n: Annotated[int, typer.Option("--top-n", help="Documents to answer; 0 = all.")] = 0,
    gateway: Gateway = "",
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Order documents by how well they answer a query."""
    given = texts(document or (), file, "document")
    with calling(gateway, timeout) as session:
        results = session.client.nlp.rerank(query, given, model=model, top_n=top_n, metadata=session.metadata)
    show(reranked(query, given, results), session.trace_id, as_json=as_json)


def embedded(given: Sequence[str], results: "Results[EmbedResult]") -> Reply:
    """The vector of each text; of a few, how alike they are."""
    drawn: list[RenderableType] = []
    items: list[dict[str, Any]] = []
    for text, result in zip(given, results, strict=True):
        if result.error is not None:
            items.append({"text": text, "error": words(result.error)})
            drawn.append(titled(text, failure(result.error)))
            continue
        items.append({"text": text, "embedding": list(result.embedding), "token_count": result.token_count})
        remark = f", {result.token_count} token{'' if result.token_count == 1 else 's'}"
        drawn.append(titled(text, vector(result.embedding, remark)))
    failed = any(result.error is not None for result in results)
    if 2 <= len(results) <= _MOST_COMPARED and not failed:
        drawn.append(_similarities([result.embedding for result in results]))
    return Reply({"results": items}, Group(*drawn), results.model, results.receipt, failed)


def _similarities(vectors: Sequence[Sequence[float]]) -> Table:
    """Cosines, which are dot products: the vectors are of unit length."""
    table = Table.grid(padding=(0, 2))
    table.add_row("", Text("alike", style="bold"), *(str(place + 1) for place in range(len(vectors))))
    for place, one in enumerate(vectors):
        cosines = (sum(a * b for a, b in zip(one, other, strict=True)) for other in vectors)
        table.add_row("", str(place + 1), *(Text(f"{cosine:.2f}", style=_shade(cosine)) for cosine in cosines))
    return table


def _shade(cosine: float) -> str:
    return "bold green" if cosine > 0.7 else "green" if cosine > 0.4 else ""


def classified(given: Sequence[str], results: "Results[ClassifyResult]") -> Reply:
    """The labels of each text."""
    drawn: list[RenderableType] = []
    items: list[dict[str, Any]] = []
    for text, result in zip(given, results, strict=True):
        if result.error is not None:
            items.append({"text": text, "error": words(result.error)})
            drawn.append(titled(text, failure(result.error)))
            continue
        found = [{"label": one.label, "score": one.score, "index": one.index} for one in result.categories]
        items.append({"text": text, "categories": found})
        drawn.append(titled(text, categories(result.categories)))
    failed = any(result.error is not None for result in results)
    return Reply({"results": items}, Group(*drawn), results.model, results.receipt, failed)


def reranked(query: str, documents: Sequence[str], results: "Results[RankedDocument]") -> Reply:
    """The documents, best first."""
    table = Table.grid(padding=(0, 2))
    for place, found in enumerate(results, 1):
        document = Text(documents[found.index], overflow="ellipsis", no_wrap=True)
        table.add_row(f"{place:>4}", f"{found.score:.4f}", bar(found.score), document)
    items = [{"index": found.index, "score": found.score, "document": documents[found.index]} for found in results]
    return Reply({"query": query, "results": items}, titled(query, table), results.model, results.receipt)
