"""`headrace trace`: where one request's time went, as a tree of spans."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import typer
from google.protobuf.json_format import MessageToDict

from cli.failure import fail, one_line
from gateway.runfile import MeshFile, NoMeshError, find_mesh
from headrace.control.v1 import control_pb2, control_pb2_grpc

if TYPE_CHECKING:
    from cli.trace_tree import Node

app = typer.Typer()

_PATIENCE = 2.0
"""Seconds to wait for a trace whose spans are still on their way: exporters send twice a second."""


@app.command()
def trace(
    trace_id: Annotated[str, typer.Argument(metavar="[ID]", help="A trace id or its beginning; none = the last.")] = "",
    last: Annotated[int, typer.Option("--last", help="List the last N traces instead.", min=0)] = 0,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the spans as JSON.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="The mesh's file.")] = None,
) -> None:
    """Show where a request's time went."""
    with one_line(NoMeshError):
        mesh = find_mesh(_state_dir(config))
    try:
        with control(mesh) as stub:
            if last:
                _list(stub.ListTraces(control_pb2.ListTracesRequest(page_size=last), timeout=5.0), as_json)
            else:
                _show(fetch(stub, trace_id), as_json)
    except grpc.RpcError as error:
        fail(_words(error, trace_id))


@contextmanager
def control(mesh: MeshFile) -> Iterator[control_pb2_grpc.ControlServiceStub]:
    """The control process of a running mesh, which keeps the traces."""
    target = f"unix:{mesh.run_dir}/control.sock"
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield control_pb2_grpc.ControlServiceStub(channel)


def _state_dir(config: Path | None) -> Path:
    return (config.parent if config is not None else Path()).absolute() / ".headrace"


def _words(error: Any, trace_id: str) -> str:
    if error.code() is grpc.StatusCode.NOT_FOUND:
        if not trace_id:
            return "no trace has been received yet; make a call through the gateway first"
        return f"there is no trace {trace_id}: not sampled, or too old (list what there is: headrace trace --last 20)"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return "the control process does not answer; it restarts by itself, try again in a moment"
    return str(error.details())


def fetch(stub: Any, trace_id: str) -> Any:
    """The trace, with a moment's patience when spans of it are still missing. Raises grpc.RpcError."""
    from cli.trace_tree import is_whole

    deadline = time.monotonic() + _PATIENCE
    settled_before = time.time_ns() - int(_PATIENCE * 1e9)
    while True:
        found, missing = None, None
        try:
            found = stub.GetTrace(control_pb2.GetTraceRequest(trace_id=trace_id), timeout=5.0)
        except grpc.RpcError as error:
            if not trace_id or error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            missing = error
        if time.monotonic() >= deadline or (found is not None and is_whole(found, settled_before)):
            if missing is not None:
                raise missing
            return found
        time.sleep(0.1)


def _list(response: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(MessageToDict(response, preserving_proto_field_name=True), indent=2))
        return
    from cli import table

    rows = [
        (
            entry.trace_id,
            entry.start_time.ToDatetime().astimezone().strftime("%H:%M:%S"),
            f"{entry.duration.ToNanoseconds() / 1e6:.1f} ms",
            str(entry.span_count),
            entry.name.removeprefix("/"),
        )
        for entry in response.traces
    ]
    table.show(("TRACE", "AT", "TOOK", "SPANS", "NAME"), rows, ["red" if t.failed else "" for t in response.traces])


def _show(response: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(MessageToDict(response, preserving_proto_field_name=True), indent=2))
        return
    from rich.console import Console

    from cli.trace_tree import build, render

    roots: list[Node] = build(response)
    Console(highlight=False).print(render(response.trace_id, roots), soft_wrap=True)
