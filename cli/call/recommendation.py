"""Calls of the recommendation service: `headrace call recommendation.recommend --user 196`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.call.inputs import TextFile, texts
from cli.call.reply import Reply, bar, show, titled
from cli.call.session import AsJson, Gateway, ModelOption, Timeout, calling

if TYPE_CHECKING:
    from headrace import Item, Ranking, Results

app = typer.Typer()

User = Annotated[str, typer.Option("--user", help="A user that the model knows.")]
History = Annotated[list[str] | None, typer.Option("--liked", help="An item that they liked; repeat it, oldest first.")]
Count = Annotated[int, typer.Option("-n", "--count", help="Items to answer.")]


@app.command("recommendation.recommend")
def recommend(  # noqa: PLR0913 - a command's flags are its parameters.
    *,
    user: User = "",
    liked: History = None,
    count: Count = 10,
    model: ModelOption = "",
    gateway: Gateway = "",
    timeout: Timeout = 30.0,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave out what they know already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend items to a user, for a history of liked items, or what is trending."""
    history = liked or []
    with calling(gateway, timeout) as session:
        results = session.client.recommendation.recommend(
            user_id=user,
            history=history,
            page_size=count,
            exclude_seen=exclude_seen,
            model=model,
            metadata=session.metadata,
        )
    show(recommended(_whom(user, history), results), session.trace_id, as_json=as_json)


@app.command("recommendation.rank")
def rank(  # noqa: PLR0913 - a command's flags are its parameters.
    item: Annotated[
        list[str] | None, typer.Argument(metavar="[ITEM]...", help="Ids; '-' reads standard input, one a line.")
    ] = None,
    *,
    file: TextFile = None,
    user: User = "",
    liked: History = None,
    model: ModelOption = "",
    gateway: Gateway = "",
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Order items for a user or for a history of liked items."""
    history, items = liked or [], texts(item or (), file, "item")
    with calling(gateway, timeout) as session:
        ranking = session.client.recommendation.rank(
            items, user_id=user, history=history, model=model, metadata=session.metadata
        )
    show(ranked(_whom(user, history), ranking), session.trace_id, as_json=as_json)


@app.command("recommendation.similar_items")
def similar_items(
    item: Annotated[str, typer.Argument(help="The id of the item to start from.", show_default=False)],
    *,
    count: Count = 10,
    model: ModelOption = "",
    gateway: Gateway = "",
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Find the items nearest to one item."""
    with calling(gateway, timeout) as session:
        results = session.client.recommendation.similar_items(
            item, page_size=count, model=model, metadata=session.metadata
        )
    show(recommended(f"like {item}", results), session.trace_id, as_json=as_json)


def _whom(user: str, history: Sequence[str]) -> str:
    parts = [f"user {user}"] if user else []
    if history:
        parts.append(f"who liked {', '.join(history)}")
    return f"for {' '.join(parts)}" if user else f"for somebody {' '.join(parts)}" if history else "trending"


def recommended(title: str, results: "Results[Item]") -> Reply:
    """Items, best first."""
    return Reply({"items": _fields(results)}, titled(title, _table(results)), results.model, results.receipt)


def ranked(title: str, ranking: "Ranking") -> Reply:
    """The candidates, best first, and those that the model does not know."""
    missing = list(ranking.missing_item_ids)
    lines = [Text(f"  unknown to the model: {', '.join(missing)}", style="yellow")] if missing else []
    document = {"items": _fields(ranking.items), "missing_item_ids": missing}
    drawn = Group(titled(title, _table(ranking.items)), *lines)
    return Reply(document, drawn, ranking.model, ranking.receipt)


def _fields(items: "Sequence[Item]") -> list[dict[str, Any]]:
    return [{"item_id": item.item_id, "title": item.title, "score": item.score} for item in items]


def _table(items: "Sequence[Item]") -> Table:
    """Scores compare within one answer only: bars run from its worst item to its best."""
    table = Table.grid(padding=(0, 2))
    scores = [item.score for item in items]
    least, span = min(scores, default=0.0), (max(scores, default=0.0) - min(scores, default=0.0)) or 1.0
    for place, item in enumerate(items, 1):
        title = Text(item.title or item.item_id, overflow="ellipsis", no_wrap=True)
        identity = Text(item.item_id, style="dim")
        share = 0.1 + 0.9 * (item.score - least) / span
        table.add_row(f"{place:>4}", identity, f"{item.score:.3f}", bar(share), title)
    return table
