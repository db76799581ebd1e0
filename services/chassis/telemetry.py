"""Traces: the only module that knows the OpenTelemetry SDK.

Parent-based: a call is traced when its `traceparent` says so, and costs next to nothing when not. A sampled call has a
server span with children `transform`, `queue` and `engine`; a batch has one span, the root of a trace of its own,
linked to every sampled call in it, and each engine span is linked to its batch. Export runs in a thread and may drop.
What is measured goes from here to the metrics too: once measured, shown as span, histogram and receipt.
"""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)

from engines.work import BatchReport, BatchTiming, Outcome
from services.chassis.call import Call, Receipt
from services.chassis.metrics import Metrics

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

#: How the flags of a sampled caller end.
_ODD_DIGITS: Final = frozenset("13579bdf")

#: Server spans are errors for these only: the rest is the caller's doing (semantic conventions of RPC).
_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
Attributes = dict[str, str | int | float]

#: Of one call; a stream may live for days.
_MAX_BATCH_SPANS: Final = 256
_MAX_LINKS: Final = 128

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CallTrace:
    """The trace of a sampled call: its server span, and the batches it took part in by id."""

    tracer: Tracer
    span: Span
    context: Context
    batches: dict[int, SpanContext] = field(default_factory=dict)
    told: int = 0

    def room(self) -> int:
        """How many more pairs of stage spans the call may have."""
        return _MAX_BATCH_SPANS - self.told


class Telemetry:
    """The spans and metrics of one process. Without an `exporter` nothing is traced; metrics are always kept."""

    def __init__(self, service: str, metrics: Metrics, exporter: SpanExporter | None = None) -> None:
        self.metrics = metrics
        self._provider: TracerProvider | None = None
        if exporter is None:
            return
        resource = Resource.create({"service.name": service})
        # Spans are made for sampled calls only, so whatever is made is kept.
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
        self._tracer = self._provider.get_tracer("headrace")

    def begin(self, method: str, traceparent: str) -> CallTrace | None:
        """The trace of a call that is starting; None unless its caller samples it. Costs nothing when unsampled."""
        if self._provider is None or (parent := sampled_parent(traceparent)) is None:
            return None
        context = otel.set_span_in_context(NonRecordingSpan(parent))
        span = self._tracer.start_span(
            method,
            context,
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method},
            start_time=time.time_ns(),
        )
        return CallTrace(self._tracer, span, otel.set_span_in_context(span))

    def end(self, call: Call) -> None:
        """The sampled call ended as its `status`, `reason` and `receipt` say."""
        span, receipt = call.trace.span, call.receipt
        span.set_attribute("rpc.status_code", call.status)
        if receipt is not None:
            span.set_attributes(_model(receipt.model, receipt.version))
            span.set_attribute("headrace.queue_ms", round(receipt.queue_ms, 3))
            span.set_attribute("headrace.engine_ms", round(receipt.engine_ms, 3))
            span.set_attribute("headrace.engine_share_ms", round(receipt.engine_share_ms, 3))
            span.set_attribute("headrace.batch.rows", receipt.batch_rows)
        if call.reason:
            span.set_attribute("headrace.error.reason", call.reason)
        if call.status in _SERVER_ERRORS:
            span.set_attribute("error.type", call.status)
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def computed(self, call: Call, receipt: Receipt, outcomes: Sequence[Outcome]) -> None:
        """A request of the call went through the batcher; `Call.observer`."""
        self.metrics.request_computed(receipt)
        if isinstance(call.trace, CallTrace):
            _stage_spans(call.trace, receipt, outcomes)

    def batch_observer(self, model: str, version: str) -> Callable[[BatchReport], None]:
        """What the batcher of this model reports every engine run to."""

        def observe(report: BatchReport) -> None:
            self.metrics.batch_ran(model, version, report.timing)
            if not any(report.tags):
                return
            traces = list({id(tag): tag for tag in report.tags if isinstance(tag, CallTrace)}.values())
            if traces:
                _batch_span(traces, _model(model, version), report)

        return observe

    def flush(self, within: float = 2.0) -> bool:
        """Send what is waiting, within `within` seconds."""
        return self._provider is None or self._provider.force_flush(int(within * 1000))

    def close(self, within: float = 2.0) -> None:
        """Send what is waiting and stop, in `within` seconds: a receiver that is gone must not hold up the exit."""
        if self._provider is not None:
            closing = threading.Thread(target=self._provider.shutdown, name="close-traces", daemon=True)
            closing.start()
            closing.join(within)


def outgoing(call: Call) -> tuple[tuple[str, str], ...]:
    """The metadata that puts a call made for this one into its trace; what is unsampled stays so."""
    trace = call.trace
    if isinstance(trace, CallTrace):
        context = trace.span.get_span_context()
        return (("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-01"),)
    return (("traceparent", call.traceparent),) if call.traceparent else ()


@contextlib.contextmanager
def span(call: Call, name: str) -> Iterator[None]:
    """A child span of the call around a block; nothing when the call is not sampled."""
    trace = call.trace
    if not isinstance(trace, CallTrace):
        yield
        return
    with trace.tracer.start_as_current_span(name, trace.context, record_exception=False):
        yield


def otlp_exporter(endpoint: str) -> SpanExporter | None:
    """Export by OTLP over gRPC to `unix:/path` or `host:port`; None for ""."""
    if not endpoint:
        return None
    _quieten_exporter()
    return OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=3)


def sampled_parent(traceparent: str) -> SpanContext | None:
    """The caller's span when `traceparent` is well-formed W3C and has the sampled flag."""
    if traceparent[54:55] not in _ODD_DIGITS:
        return None
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, _flags, more = match.groups()
    # Only versions after 00 may say more; there is no version ff.
    if version == "ff" or (version == "00" and more):
        return None
    parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(1))
    return parent if parent.is_valid else None


def _stage_spans(trace: CallTrace, receipt: Receipt, outcomes: Sequence[Outcome]) -> None:
    """Child spans `queue`, `engine` and, for works whose inputs were deferred, `transform`, one of each a batch."""
    batches: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        batches.setdefault(outcome.batch.batch_id, []).append(outcome)
    epoch = _epoch_ns()
    for batch_id, members in list(batches.items())[: trace.room()]:
        trace.told += 1
        timing = members[0].batch
        queued = min(outcome.queued for outcome in members)
        attributes: Attributes = {
            **_model(receipt.model, receipt.version),
            "headrace.rows": sum(part.rows for part in members),
        }
        start = _instant(epoch, queued)
        waiting = trace.tracer.start_span("queue", trace.context, attributes=attributes, start_time=start)
        prepared = [outcome.prepared for outcome in members if outcome.prepared is not None]
        waiting.end(_instant(epoch, max(min((timing.started, *(begun for begun, _ in prepared))), queued)))
        for begun, ended in prepared:
            transform = trace.tracer.start_span("transform", trace.context, start_time=_instant(epoch, begun))
            transform.end(_instant(epoch, ended))
        engine = trace.tracer.start_span(
            "engine",
            trace.context,
            attributes={**attributes, **_batch(timing)},
            links=[Link(trace.batches[batch_id])] if batch_id in trace.batches else [],
            start_time=_instant(epoch, timing.started),
        )
        engine.end(_instant(epoch, timing.ended))


def _batch_span(traces: Sequence[CallTrace], model: Attributes, report: BatchReport) -> None:
    """One span for an engine run, linked to the sampled calls in it."""
    epoch = _epoch_ns()
    span = traces[0].tracer.start_span(
        "headrace.batch",
        Context(),
        attributes={**model, **_batch(report.timing)},
        links=[Link(trace.span.get_span_context()) for trace in traces[:_MAX_LINKS]],
        start_time=_instant(epoch, report.timing.started),
    )
    for trace in traces:
        if trace.room():
            trace.batches[report.timing.batch_id] = span.get_span_context()
    if report.error is not None:
        span.set_attribute("error.type", type(report.error).__name__)
        span.set_status(Status(StatusCode.ERROR))
    span.end(_instant(epoch, report.timing.ended))


def _model(model: str, version: str) -> Attributes:
    return {"headrace.model.name": model, "headrace.model.version": version}


def _batch(timing: BatchTiming) -> Attributes:
    return {
        "headrace.batch.id": timing.batch_id,
        "headrace.batch.rows": timing.rows,
        "headrace.batch.members": timing.members,
        "headrace.batch.padding_ratio": timing.padding_ratio,
    }


def _epoch_ns() -> int:
    """What turns a monotonic instant into nanoseconds since 1970; taken anew, since wall clocks are corrected."""
    return time.time_ns() - time.monotonic_ns()


def _instant(epoch: int, monotonic: float) -> int:
    return epoch + int(monotonic * 1e9)


class _OneLineUntilItWorks(logging.Filter):
    """Lets one line through about a receiver that does not answer, then no more for ten minutes."""

    _silence: Final = 600.0

    def __init__(self) -> None:
        super().__init__()
        self._spoke = -self._silence

    def filter(self, record: logging.LogRecord) -> bool:
        if time.monotonic() - self._spoke < self._silence:
            return False
        self._spoke = time.monotonic()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args, record.exc_info = "traces are dropped: %s", (record.getMessage(),), None
        return True


def _quieten_exporter() -> None:
    for name in ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _OneLineUntilItWorks) for known in logger.filters):
            logger.addFilter(_OneLineUntilItWorks())
