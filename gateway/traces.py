"""Recent spans in memory: a ring of bounded size, found by trace id, with batches reached through their links."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SERVER = "SERVER"
_ID_DIGITS = 32


class UnknownTraceError(LookupError):
    """No kept trace has this id; the text says what is kept."""


class AmbiguousTraceError(LookupError):
    """Several kept traces begin with this prefix; the text names some."""


@dataclass(frozen=True, slots=True)
class SpanRef:
    """A span's identity: 32 and 16 lower-case hexadecimal digits."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. Instants in nanoseconds since the epoch; `parent_id` is "" for a root."""

    ref: SpanRef
    parent_id: str
    name: str
    service: str
    kind: str
    start: int
    end: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    links: tuple[SpanRef, ...] = ()
    failed: bool = False
    status_message: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace in one line: its earliest span's name and start, its whole duration (both ns), and how many spans."""

    trace_id: str
    name: str
    start: int
    duration: int
    spans: int
    failed: bool


class TraceStore:
    """The newest `capacity` spans. The oldest leaves when a new one comes, whatever trace it belongs to."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ring: deque[Span] = deque()
        self._traces: dict[str, list[Span]] = {}  # in order of each trace's first arrival
        self._linked: dict[str, list[Span]] = {}  # trace id -> spans of other traces that link to it
        self._requests: dict[str, None] = {}  # traces with a server span, in order of its arrival

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, spans: Iterable[Span]) -> None:
        """Keep spans; the oldest beyond the capacity are forgotten."""
        for span in spans:
            self._ring.append(span)
            self._traces.setdefault(span.ref.trace_id, []).append(span)
            for trace_id in _linked_traces(span):
                self._linked.setdefault(trace_id, []).append(span)
            if span.kind == SERVER:
                self._requests[span.ref.trace_id] = None
            if len(self._ring) > self._capacity:
                self._forget(self._ring.popleft())

    def find(self, prefix: str) -> str:
        """Return the one trace id that begins with `prefix`, or the newest request's for ""."""
        if not prefix:
            newest = self.newest(1)
            if not newest:
                raise UnknownTraceError("no trace has been received yet; make a call through the gateway first")
            return newest[0].trace_id
        wanted = prefix.lower()
        if wanted in self._traces:
            return wanted
        found = [trace_id for trace_id in self._traces if trace_id.startswith(wanted)]
        if not found or len(wanted) >= _ID_DIGITS:
            raise UnknownTraceError(
                f"no trace {prefix!r} among the {len(self._requests)} kept; it was not sampled or is too old"
            )
        if len(found) > 1:
            some = ", ".join(found[:3])
            raise AmbiguousTraceError(f"{len(found)} traces begin with {prefix!r}, such as {some}; give more digits")
        return found[0]

    def spans(self, trace_id: str) -> list[Span]:
        """Return a trace's spans and the spans of other traces that link to it, earliest first."""
        return sorted(
            [*self._traces.get(trace_id, ()), *self._linked.get(trace_id, ())], key=lambda span: (span.start, -span.end)
        )

    def newest(self, count: int) -> list[Summary]:
        """Return the newest traces of requests, newest first. A batch's own trace is no request."""
        # Exporters batch, so arrival is only nearly the order of start: look a little further than asked.
        candidates = list(self._requests)[-(2 * count + 32) :]
        summaries = [_summary(trace_id, self._traces[trace_id]) for trace_id in candidates]
        return sorted(summaries, key=lambda summary: summary.start, reverse=True)[:count]

    def _forget(self, span: Span) -> None:
        _forget_first(self._traces, span.ref.trace_id)
        for trace_id in _linked_traces(span):
            _forget_first(self._linked, trace_id)
        if span.ref.trace_id not in self._traces:
            self._requests.pop(span.ref.trace_id, None)


def _linked_traces(span: Span) -> set[str]:
    return {link.trace_id for link in span.links} - {span.ref.trace_id}


def _forget_first(index: dict[str, list[Span]], trace_id: str) -> None:
    spans = index[trace_id]
    spans.pop(0)  # the ring forgets in order of arrival, and each list is in that order too
    if not spans:
        del index[trace_id]


def _summary(trace_id: str, spans: list[Span]) -> Summary:
    first = min(spans, key=lambda span: (span.start, -span.end))
    return Summary(
        trace_id=trace_id,
        name=first.name,
        start=first.start,
        duration=max(span.end for span in spans) - first.start,
        spans=len(spans),
        failed=any(span.failed for span in spans),
    )
