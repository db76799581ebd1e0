"""ControlService: what `headrace trace` asks for."""

# The names and signatures of rpcs are the protocol's.
# ruff: noqa: N802, ARG002

from typing import Any

from gateway.traces import AmbiguousTraceError, Span, TraceStore, UnknownTraceError
from headrace.control.v1 import control_pb2 as pb
from services.chassis.call import Call
from services.chassis.errors import invalid_argument, not_found

_PAGE = 20
_MAX_PAGE = 1000


class TraceService:
    """Answers from the trace store."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    async def GetTrace(self, request: Any, call: Call) -> pb.GetTraceResponse:
        """Return one trace; NOT_FOUND when none matches, INVALID_ARGUMENT when several do."""
        try:
            trace_id = self._store.find(request.trace_id)
        except UnknownTraceError:
            raise not_found("trace", request.trace_id, []) from None
        except AmbiguousTraceError as error:
            raise invalid_argument("trace_id", str(error)) from None
        return pb.GetTraceResponse(trace_id=trace_id, spans=[_span(span) for span in self._store.spans(trace_id)])

    async def ListTraces(self, request: Any, call: Call) -> pb.ListTracesResponse:
        """Return the newest traces."""
        if request.page_size < 0:
            raise invalid_argument("page_size", "must be 0 (20 traces) or more")
        response = pb.ListTracesResponse()
        for summary in self._store.newest(min(request.page_size or _PAGE, _MAX_PAGE)):
            entry = response.traces.add(
                trace_id=summary.trace_id, name=summary.name, span_count=summary.spans, failed=summary.failed
            )
            entry.start_time.FromNanoseconds(summary.start)
            entry.duration.FromNanoseconds(summary.duration)
        return response


def _span(span: Span) -> pb.Span:
    message = pb.Span(
        trace_id=span.ref.trace_id,
        span_id=span.ref.span_id,
        parent_span_id=span.parent_id,
        name=span.name,
        service=span.service,
        kind=span.kind,
        attributes=span.attributes,
        links=[pb.Link(trace_id=link.trace_id, span_id=link.span_id) for link in span.links],
        failed=span.failed,
        status_message=span.status_message,
    )
    message.start_time.FromNanoseconds(span.start)
    message.duration.FromNanoseconds(span.end - span.start)
    return message
