"""Traces: the only module that knows the OpenTelemetry SDK.

Parent-based: a call is traced when its `traceparent` says so and costs one string comparison when not. A sampled call has
a server span with children `transform`, `queue` and `engine`; a batch has one span, the root of a trace of its own, linked
to every sampled call in it, and each engine span is linked to its batch. Export runs in a thread and may only drop.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc
from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from engines.work import BatchReport, BatchTiming, Outcome
from services.chassis.call import Call, Receipt

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")

#: Server spans are errors for these only: the rest is the caller's doing (semantic conventions of RPC).
_SERVER_ERRORS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_MAX_BATCH_SPANS: Final = 64  # of one call
_MAX_LINKS: Final = 128

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CallTrace:
    """The trace of a sampled call: its server span, and the batches it took part in by id."""

    span: Span
    context: otel.Context
    batches: dict[int, SpanContext] = field(default_factory=dict)


class Telemetry:
    """Makes the spans of one process. `exporter` None = nothing is exported, so nothing is traced."""

    def __init__(self, service: str, exporter: SpanExporter | None) -> None:
        self._provider: TracerProvider | None = None
        if exporter is None:
            return
        resource = Resource.create({"service.name": service})
        # Spans are made for sampled calls only, so whatever is made is kept.
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
        self._tracer = self._provider.get_tracer("headrace")

    @classmethod
    def exporting_to(cls, service: str, endpoint: str) -> "Telemetry":
        """Export by OTLP over gRPC to `unix:/path` or `host:port`; "" = do not trace."""
        if not endpoint:
            return cls(service, None)
        _quieten_exporter()
        return cls(service, OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=3))

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
        return CallTrace(span, otel.set_span_in_context(span))

    def end(self, trace: CallTrace, status: str, receipt: Receipt | None) -> None:
        """The call ended with the code named `status`."""
        span = trace.span
        span.set_attribute("rpc.status_code", status)
        if receipt is not None:
            span.set_attributes(_model(receipt.model, receipt.version))
            span.set_attribute("headrace.queue_ms", round(receipt.queue_ms, 3))
            span.set_attribute("headrace.engine_ms", round(receipt.engine_ms, 3))
            span.set_attribute("headrace.engine_share_ms", round(receipt.engine_share_ms, 3))
            span.set_attribute("headrace.batch.rows", receipt.batch_rows)
        if status in _SERVER_ERRORS:
            span.set_attribute("error.type", status)
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    @contextlib.contextmanager
    def span(self, call: Call, name: str) -> Iterator[None]:
        """A child span of the call around a block; nothing when the call is not sampled."""
        if not isinstance(call.trace, CallTrace):
            yield
            return
        with self._tracer.start_as_current_span(name, call.trace.context, record_exception=False):
            yield

    def computed(self, trace: CallTrace, receipt: Receipt, outcomes: Sequence[Outcome]) -> None:
        """Child spans `queue` and `engine` of a request, one pair a batch it took part in."""
        batches: dict[int, list[Outcome]] = {}
        for outcome in outcomes:
            batches.setdefault(outcome.batch.batch_id, []).append(outcome)
        epoch = _epoch_ns()
        for batch_id, members in list(batches.items())[:_MAX_BATCH_SPANS]:
            timing = members[0].batch
            queued = min(outcome.queued for outcome in members)
            attributes = {**_model(receipt.model, receipt.version), "headrace.rows": sum(part.rows for part in members)}
            waiting = self._tracer.start_span(
                "queue", trace.context, attributes=attributes, start_time=_instant(epoch, queued)
            )
            waiting.end(_instant(epoch, max(timing.started, queued)))
            links = [Link(batch)] if (batch := trace.batches.get(batch_id)) else []
            engine = self._tracer.start_span(
                "engine",
                trace.context,
                attributes={**attributes, **_batch(timing)},
                links=links,
                start_time=_instant(epoch, timing.started),
            )
            engine.end(_instant(epoch, timing.ended))

    def batch_ran(self, model: str, version: str, report: BatchReport) -> None:
        """One span for an engine run, linked to every sampled call in it; none when no call is sampled."""
        traces = list({id(tag): tag for tag in report.tags if isinstance(tag, CallTrace)}.values())
        if not traces or self._provider is None:
            return
        epoch = _epoch_ns()
        span = self._tracer.start_span(
            "headrace.batch",
            otel.Context(),
            attributes={**_model(model, version), **_batch(report.timing)},
            links=[Link(trace.span.get_span_context()) for trace in traces[:_MAX_LINKS]],
            start_time=_instant(epoch, report.timing.started),
        )
        for trace in traces:
            trace.batches[report.timing.batch_id] = span.get_span_context()
        if report.error is not None:
            span.set_attribute("error.type", type(report.error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        span.end(_instant(epoch, report.timing.ended))

    def flush(self, timeout: float = 2.0) -> bool:
        """Send what is waiting, within `timeout` seconds."""
        return self._provider is None or self._provider.force_flush(int(timeout * 1000))

    def close(self) -> None:
        """Send what is waiting and stop; blocks for a few seconds at most when the receiver is gone."""
        if self._provider is not None:
            self._provider.shutdown()


def sampled_parent(traceparent: str) -> SpanContext | None:
    """The caller's span when `traceparent` is well-formed W3C and has the sampled flag."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or traceparent.startswith("ff") or not int(match[3], 16) & 1:
        return None
    parent = SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags(1))
    return parent if parent.is_valid else None


def _model(model: str, version: str) -> dict[str, str]:
    return {"headrace.model.name": model, "headrace.model.version": version}


def _batch(timing: BatchTiming) -> dict[str, int | float]:
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
