"""`headrace call`: one call through the gateway, its answer as a table or JSON, and what it cost."""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failure import fail

if TYPE_CHECKING:
    from headrace import Client, HeadraceError, Results

app = typer.Typer(help="Call a running mesh.", no_args_is_help=True)

Images = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Image files.", show_default=False)]
ModelOption = Annotated[str, typer.Option(help='"name" or "name@version"; empty = the mesh\'s default.')]
Gateway = Annotated[
    str, typer.Option(help="HOST:PORT; empty = that of the mesh running from this folder, else 127.0.0.1:8080.")
]
Timeout = Annotated[float, typer.Option(help="Seconds allowed.", min=0.001)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def call() -> None:
    """Call a running mesh."""


@app.command("vision.classify")
def classify(
    images: Images,
    model: ModelOption = "",
    top_k: Annotated[int, typer.Option("--top-k", help="Labels for each image.")] = 5,
    gateway: Gateway = "",
    timeout: Timeout = 30.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Label images."""
    with _calling(gateway, timeout) as (client, metadata):
        results = client.vision.classify(_named(images), model=model, top_k=top_k, metadata=metadata)
    _answer(images, results, metadata["traceparent"], as_json, _categories)


@app.command("vision.embed")
def embed(
    images: Images, model: ModelOption = "", gateway: Gateway = "", timeout: Timeout = 30.0, *, as_json: AsJson = False
) -> None:
    """Turn images into vectors."""
    with _calling(gateway, timeout) as (client, metadata):
        results = client.vision.embed(_named(images), model=model, metadata=metadata)
    _answer(images, results, metadata["traceparent"], as_json, _embedding)


def _named(images: Sequence[Path]) -> list[Path]:
    for image in images:
        if not image.is_file():
            fail(f"{image}: {'is a folder' if image.is_dir() else 'there is no such file'}")
    return list(images)


@contextmanager
def _calling(gateway: str, timeout: float) -> Iterator[tuple["Client", dict[str, str]]]:
    """A client, and metadata that has the call traced whatever the gateway samples; errors end in one line."""
    from headrace import Client, HeadraceError

    # The sampled flag of the caller: this very call can be looked at afterwards.
    metadata = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
    try:
        with Client(gateway or _running_gateway(), timeout=timeout) as client:
            yield client, metadata
    except HeadraceError as error:
        fail(_words(error))
    except (OSError, ValueError) as error:
        fail(str(error))


def _running_gateway() -> str:
    from gateway.runfile import NoMeshError, find_mesh
    from headrace._transport import DEFAULT_TARGET

    try:
        return find_mesh(Path(".headrace")).gateway
    except NoMeshError:
        return DEFAULT_TARGET


def _words(error: "HeadraceError") -> str:
    reason = f" ({error.reason})" if error.reason else ""
    return f"{error}{reason}"


def _answer(
    images: Sequence[Path],
    results: "Results[Any]",
    traceparent: str,
    as_json: bool,
    fields: Callable[[Any], dict[str, Any]],
) -> None:
    """Print the results; status 1 when an image failed."""
    trace_id = traceparent.split("-")[1]
    if as_json:
        _print_json(images, results, trace_id, fields)
    else:
        for image, result in zip(images, results, strict=True):
            _print_result(image, result)
        _print_receipt(results, trace_id)
    if any(result.error is not None for result in results):
        raise typer.Exit(1)


def _categories(result: Any) -> dict[str, Any]:
    return {
        "categories": [
            {"label": found.label, "score": found.score, "index": found.index} for found in result.categories
        ]
    }


def _embedding(result: Any) -> dict[str, Any]:
    return {"embedding": list(result.embedding)}


def _print_json(
    images: Sequence[Path], results: "Results[Any]", trace_id: str, fields: Callable[[Any], dict[str, Any]]
) -> None:
    from dataclasses import asdict

    items = [
        {"file": str(image), **({"error": _words(result.error)} if result.error else fields(result))}
        for image, result in zip(images, results, strict=True)
    ]
    receipt = asdict(results.receipt) if results.receipt else None
    document = {"results": items, "model": str(results.model), "receipt": receipt, "trace_id": trace_id}
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _print_result(image: Path, result: Any) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{escape(str(image))}[/]")
    if result.error is not None:
        console.print(f"  [red]{escape(_words(result.error))}[/]", soft_wrap=True)
    elif hasattr(result, "categories"):
        widest = max((len(found.label) for found in result.categories), default=0)
        for found in result.categories:
            bar = "█" * round(20 * min(max(found.score, 0.0), 1.0))
            console.print(f"  {escape(found.label):<{widest}}  {found.score:7.4f}  [green]{bar}[/]", soft_wrap=True)
    else:
        head = ", ".join(f"{value:.4f}" for value in result.embedding[:6])
        console.print(f"  {len(result.embedding)} values of unit length: {head}, ...", soft_wrap=True)


def _print_receipt(results: "Results[Any]", trace_id: str) -> None:
    from rich.console import Console

    receipt = results.receipt
    line = str(results.model)
    if receipt is not None:
        line += (
            f"   queue {receipt.queue_ms:.1f} ms, engine {receipt.engine_ms:.1f} ms, "
            f"batch of {receipt.batch_rows} row{'s' if receipt.batch_rows != 1 else ''}"
        )
    Console(highlight=False).print(f"[dim]{line}   headrace trace {trace_id[:8]}[/]", soft_wrap=True)
