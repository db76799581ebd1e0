"""Shows what a pull reports: a bar for each model in a terminal, a line for each stage elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from engines.zoo import progress
from engines.zoo.progress import Report

_WORDS: Final = {
    "wait": "waiting:",
    "fetch": "fetching",
    "convert": "converting to ONNX",
    "write": "writing",
    "present": "already here",
    "done": "done",
}


@contextmanager
def shown() -> Iterator[Report]:
    """A report that draws on the terminal while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("[bold]{task.fields[model]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as drawn:
        yield _Bars(drawn)


class _Bars:
    def __init__(self, drawn: Progress) -> None:
        self._drawn = drawn
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: progress.Progress) -> None:
        if event.model not in self._tasks:
            self._tasks[event.model] = self._drawn.add_task("", total=None, model=event.model)
        task = self._tasks[event.model]
        words = _words(event)
        if event.total:
            words += f" {_measure(event.done, event.total, event.stage)}"
            self._drawn.update(task, description=words, completed=event.done, total=event.total)
        elif event.stage in ("present", "done"):
            self._drawn.update(task, description=words, completed=1, total=1)
        else:
            self._drawn.update(task, description=words)
            # An update cannot take a measure away: the stage before may have had one.
            next(drawn for drawn in self._drawn.tasks if drawn.id == task).total = None


class _Lines:
    def __init__(self) -> None:
        self._last = ("", "", "")

    def __call__(self, event: progress.Progress) -> None:
        now = (event.model, event.stage, event.detail)
        if now == self._last or event.stage in ("present", "done"):
            return
        self._last = now
        size = f" ({event.total / 1e6:.1f} MB)" if event.total and event.stage == "fetch" else ""
        typer.echo(f"{event.model}: {_words(event)}{size}", err=True)


def _words(event: progress.Progress) -> str:
    """What is being done. A build that says what it does is no mere conversion."""
    if event.stage == "convert" and event.detail:
        return event.detail
    return f"{_WORDS[event.stage]} {event.detail}".strip()


def _measure(done: int, total: int, stage: progress.Stage) -> str:
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if stage == "fetch" else f"{done} of {total}"
