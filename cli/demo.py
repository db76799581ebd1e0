"""`headrace demo`: each domain of a running mesh answers for real, with what it cost and where the time went."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from cli.call.session import Gateway
from cli.failure import fail

if TYPE_CHECKING:
    from cli.call.reply import Reply
    from cli.call.session import Session
    from cli.demo_steps import Step
    from gateway.runfile import MeshFile
    from headrace import HeadraceError

app = typer.Typer()

_CALL_SECONDS = 30.0
_POLL_SECONDS = 1.0
_MOST_SPANS = 16


@app.command()
def demo(
    gateway: Gateway = "",
    wait: Annotated[
        float, typer.Option(help="Seconds, in all, to wait for models that are still being fetched or loaded.", min=0)
    ] = 30.0,
    *,
    trace: Annotated[bool, typer.Option("--trace/--no-trace", help="Show a trace tree of each domain.")] = True,
) -> None:
    """Walk the four domains of a running mesh with real inputs; status 1 when one of the calls has no answer."""
    from cli.demo_steps import STEPS
    from gateway.runfile import NoMeshError, find_mesh

    try:
        mesh = find_mesh(Path(".headrace"))
    except NoMeshError:
        mesh = None
    if mesh is None and not gateway:
        fail("no mesh is running from this folder: start one by 'headrace up', then run 'headrace demo' beside it")
    begun, walk = time.monotonic(), _Walk(gateway or (mesh.gateway if mesh else ""), wait, Console(highlight=False))
    own = mesh if trace and mesh is not None and not gateway else None
    shown: set[str] = set()
    for number, step in enumerate(STEPS, 1):
        walk.console.print(Rule(f"[bold]{number}/{len(STEPS)}  {step.rpc}[/]   {step.question}", align="left"))
        trace_id = walk.take(step)
        if trace_id and own is not None and step.domain not in shown:
            shown.add(step.domain)
            _draw_trace(own, trace_id, walk.console)
        walk.console.print()
    _sum_up(walk, len(STEPS), time.monotonic() - begun)


@dataclass(slots=True)
class _Walk:
    """The walk so far. `patience`: seconds left to wait for models. `missed`: calls that had no answer, and why."""

    gateway: str
    patience: float
    console: Console
    answered: int = 0
    missed: tuple[str, ...] = ()

    def take(self, step: "Step") -> str:
        """Make one call and show its answer; its trace id, or nothing when it has none."""
        from cli.call.reply import receipt_line
        from cli.call.session import words
        from headrace import HeadraceError

        try:
            session, reply = self._patiently(step)
        except HeadraceError as error:
            self.missed = (*self.missed, f"{step.rpc}: {words(error)}")
            self.console.print(Text(f"  no answer: {words(error)}", style="red"), soft_wrap=True)
            return ""
        self.console.print(reply.drawn)
        self.console.print(receipt_line(reply, session.trace_id), soft_wrap=True)
        if reply.failed:
            self.missed = (*self.missed, f"{step.rpc}: an item failed")
        else:
            self.answered += 1
        return session.trace_id

    def _patiently(self, step: "Step") -> tuple["Session", "Reply"]:
        """One call, made again while its model is still coming. Raises HeadraceError."""
        from cli.call.session import Session
        from headrace import Client, HeadraceError

        with Client(self.gateway, timeout=_CALL_SECONDS) as client, self.console.status("calling ...") as status:
            while True:
                session = Session(client)
                begun = time.monotonic()
                try:
                    if step.rpc.endswith("stream"):
                        status.stop()  # it draws by itself
                    return session, step.run(session, self.console)
                except HeadraceError as error:
                    if self.patience <= 0 or not _is_coming(error):
                        raise
                    status.start()
                    awaited = error.metadata.get("model", "") or "its service"
                    status.update(f"waiting for {awaited}, for {self.patience:.0f} s at most ...")
                    time.sleep(_POLL_SECONDS)
                    self.patience -= time.monotonic() - begun


def _is_coming(error: "HeadraceError") -> bool:
    """Whether the call may have an answer soon: its model is being fetched or loaded, or its service is starting."""
    from headrace import Unavailable

    return isinstance(error, Unavailable) and (
        error.reason != "MODEL_UNAVAILABLE" or error.retry_after is not None or "loading" in error.message
    )


def _draw_trace(mesh: "MeshFile", trace_id: str, console: Console) -> None:
    """The trace as a tree; of a long one its beginning, and how to see the rest."""
    import grpc

    from cli.trace import control, fetch
    from cli.trace_tree import build, render

    try:
        with control(mesh) as stub:
            found = fetch(stub, trace_id)
    except grpc.RpcError:
        console.print(Text(f"  its trace has not come (yet): headrace trace {trace_id[:8]}", style="dim"))
        return
    lines = render(found.trace_id, build(found)).split("\n")
    for line in lines[:_MOST_SPANS]:
        line.truncate(console.width)
        console.print(line, soft_wrap=True)
    if len(lines) > _MOST_SPANS:
        rest = f"... {len(lines) - _MOST_SPANS} more: headrace trace {trace_id[:8]}"
        console.print(Text(rest, style="dim"))


def _sum_up(walk: _Walk, calls: int, seconds: float) -> None:
    for line in walk.missed:
        walk.console.print(Text(f"no answer from {line}", style="red"), soft_wrap=True)
    walk.console.print(f"[bold]{walk.answered} of {calls} calls answered[/] in {seconds:.0f} s")
    if walk.missed:
        raise typer.Exit(1)
