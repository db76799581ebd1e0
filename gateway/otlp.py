"""The embedded OTLP receiver: what Envoy and the services export, reduced to the spans the trace store keeps."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from gateway.traces import Span, SpanRef

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_MAX_TEXT = 2048
"""Characters kept of one attribute value."""


def read_spans(resource_spans: Sequence[trace_pb2.ResourceSpans]) -> Iterator[Span]:
    """Yield the spans of an export, skipping those whose ids are not 16 and 8 bytes."""
    for resource in resource_spans:
        service = next((_text(item.value) for item in resource.resource.attributes if item.key == "service.name"), "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                if len(span.trace_id) == 16 and len(span.span_id) == 8:
                    yield _read(span, service)


def _read(span: trace_pb2.Span, service: str) -> Span:
    return Span(
        ref=SpanRef(span.trace_id.hex(), span.span_id.hex()),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        service=service,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start=span.start_time_unix_nano,
        end=max(span.end_time_unix_nano, span.start_time_unix_nano),
        attributes={item.key: _text(item.value) for item in span.attributes},
        links=tuple(SpanRef(link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        status_message=span.status.message[:_MAX_TEXT],
    )


def _text(value: common_pb2.AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    read = _READERS.get(kind)
    text = json.dumps(MessageToDict(value)) if read is None else read(getattr(value, kind))
    return text[:_MAX_TEXT]


_READERS: dict[str, Callable[[Any], str]] = {
    "string_value": str,
    "bool_value": lambda flag: "true" if flag else "false",
    "int_value": str,
    "double_value": "{:.6g}".format,
    "bytes_value": lambda raw: base64.b64encode(raw).decode(),
}
