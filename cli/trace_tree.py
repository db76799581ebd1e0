"""From a trace's spans to a tree for people: times in ms, bars on one time axis, batches under what they served."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

_BAR = 24
_GATEWAY = "headrace-gateway"
_SERVICE_STYLES = ("cyan", "green", "magenta", "yellow", "blue")
_SHOWN = {
    "headrace.model.name": "model",
    "headrace.model.version": "version",
    "headrace.rows": "rows",
    "headrace.batch.padding_ratio": "padding",
    "rpc.status_code": "status",
    "http.status_code": "http",
    "grpc.status_code": "grpc",
    "error.type": "error",
    "response_flags": "flags",
}
_USUAL = {"status": {"OK"}, "http": {"200"}, "grpc": {"0"}, "flags": {"-", ""}, "padding": {"0"}}


@dataclass(slots=True)
class Node:
    """A span with what belongs below it; `linked`: it is a batch, shown under a span it served."""

    span: Any
    linked: bool = False
    children: list["Node"] = field(default_factory=list)

    @property
    def start(self) -> int:
        """When it started, ns since the epoch."""
        return int(self.span.start_time.ToNanoseconds())

    @property
    def end(self) -> int:
        """When it ended, ns since the epoch."""
        return self.start + int(self.span.duration.ToNanoseconds())


def build(trace: Any) -> list[Node]:
    """Return the trace's roots: spans without a parent among those received."""
    own = {span.span_id: Node(span) for span in trace.spans if span.trace_id == trace.trace_id}
    roots: list[Node] = []
    for node in own.values():
        parent = own.get(node.span.parent_span_id)
        (parent.children if parent is not None else roots).append(node)
    for span in trace.spans:
        if span.trace_id != trace.trace_id and (place := _place(span, trace, own)) is not None:
            place.children.append(Node(span, linked=True))
    for node in own.values():
        node.children.sort(key=lambda child: child.start)
    return sorted(roots, key=lambda root: root.start)


def is_whole(trace: Any, settled_before: int) -> bool:
    """Say whether nothing obvious is missing: the gateway's span is there, and so is what it called; or it is old."""
    if max(span.start_time.ToNanoseconds() + span.duration.ToNanoseconds() for span in trace.spans) < settled_before:
        return True
    own = [span for span in trace.spans if span.trace_id == trace.trace_id]
    ids = {span.span_id for span in own}
    orphans = [span for span in own if span.parent_span_id not in ids]
    return len(own) > 1 and len(orphans) == 1 and orphans[0].service == _GATEWAY


def _place(batch: Any, trace: Any, own: dict[str, Node]) -> Node | None:
    """The span that links to the batch (its engine span), else one that the batch links to."""
    for node in own.values():
        if any(link.span_id == batch.span_id and link.trace_id == batch.trace_id for link in node.span.links):
            return node
    served = (own.get(link.span_id) for link in batch.links if link.trace_id == trace.trace_id)
    return next((node for node in served if node is not None), None)


def render(trace_id: str, roots: list[Node]) -> Text:
    """Return the tree as text: label, duration, bar and attributes in columns."""
    nodes = [node for root in roots for node in _walk(root)]
    begin, end = min(node.start for node in nodes), max(node.end for node in nodes)
    services = list(dict.fromkeys(node.span.service for node in nodes))
    styles = {name: _SERVICE_STYLES[index % len(_SERVICE_STYLES)] for index, name in enumerate(services)}
    lines = [line for root in roots for line in _lines(root, "", "")]
    width = max(len(prefix) + len(_label(node)) for prefix, node in lines)
    text = Text()
    text.append(f"trace {trace_id}", style="bold")
    text.append(f"   {(end - begin) / 1e6:.2f} ms   {', '.join(services)}\n", style="dim")
    for prefix, node in lines:
        label, failed = _label(node), node.span.failed
        text.append(prefix, style="dim")
        text.append(label.ljust(width - len(prefix)), style="red" if failed else "italic" if node.linked else "")
        text.append(f"{(node.end - node.start) / 1e6:>10.2f} ms  ", style="bold")
        text.append(_bar(node, begin, end), style=styles[node.span.service])
        text.append(f"  {node.span.service}", style=styles[node.span.service])
        text.append(f"  {_attributes(node)}\n", style="dim")
    text.right_crop(1)
    return text


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _lines(node: Node, prefix: str, below: str) -> Iterator[tuple[str, Node]]:
    yield prefix, node
    for index, child in enumerate(node.children):
        is_last = index == len(node.children) - 1
        yield from _lines(child, below + ("└─ " if is_last else "├─ "), below + ("   " if is_last else "│  "))


def _label(node: Node) -> str:
    if not node.linked:
        return str(node.span.name).removeprefix("/")
    attributes = node.span.attributes
    rows, members = attributes.get("headrace.batch.rows", "?"), attributes.get("headrace.batch.members", "")
    shared = f" from {members} requests" if members not in {"", "1"} else ""
    return f"batch of {rows} row{'' if rows == '1' else 's'}{shared}"


def _bar(node: Node, begin: int, end: int) -> str:
    """The span's place on the trace's time axis."""
    scale = _BAR / max(end - begin, 1)
    first = min(int((node.start - begin) * scale), _BAR - 1)
    length = max(1, min(round((node.end - node.start) * scale), _BAR - first))
    return " " * first + "━" * length + " " * (_BAR - first - length)


def _attributes(node: Node) -> str:
    found = node.span.attributes
    parts = []
    for key, name in _SHOWN.items():
        value = found.get(key, "")
        if value and value not in _USUAL.get(name, set()):
            parts.append(f"{name}={value}")
    if not node.linked and "headrace.queue_ms" in found:
        queue, engine = found["headrace.queue_ms"], found.get("headrace.engine_ms", "?")
        parts.append(f"receipt: queue {queue} ms, engine {engine} ms, batch {found.get('headrace.batch.rows', '?')}")
    if node.span.status_message:
        parts.append(node.span.status_message)
    return " ".join(parts)
