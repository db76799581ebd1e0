import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.trace.v1 import trace_pb2

from gateway.otlp import read_spans
from gateway.traces import AmbiguousTraceError, Span, SpanRef, TraceStore, UnknownTraceError


def span(trace: str, number: int, *, parent: str = "", kind: str = "INTERNAL", links: tuple[SpanRef, ...] = ()) -> Span:
    start = number * 1_000_000
    return Span(
        SpanRef(trace, f"{number:016x}"), parent, f"span {number}", "vision", kind, start, start + 500_000, links=links
    )


A, B, C = "a" * 32, "ab" * 16, "c" * 32


def test_an_empty_store_says_what_to_do() -> None:
    with pytest.raises(UnknownTraceError, match="make a call through the gateway first"):
        TraceStore(10).find("")


def test_finds_by_id_by_prefix_and_the_newest() -> None:
    store = TraceStore(100)
    store.add([span(A, 1, kind="SERVER"), span(B, 2, kind="SERVER"), span(A, 3)])
    assert store.find(A) == A
    assert store.find("AB") == B
    assert store.find("") == B
    assert [s.name for s in store.spans(A)] == ["span 1", "span 3"]
    with pytest.raises(AmbiguousTraceError, match="2 traces begin with 'a'"):
        store.find("a")
    with pytest.raises(UnknownTraceError, match="no trace 'f'"):
        store.find("f")
    with pytest.raises(UnknownTraceError):
        store.find(A + "0")


def test_a_batch_is_found_through_its_links_and_is_no_request_itself() -> None:
    store = TraceStore(100)
    store.add([span(A, 1, kind="SERVER"), span(B, 2, kind="SERVER")])
    members = (SpanRef(A, f"{1:016x}"), SpanRef(B, f"{2:016x}"))
    store.add([span(C, 3, links=members)])
    assert [s.ref.trace_id for s in store.spans(A)] == [A, C]
    assert [s.ref.trace_id for s in store.spans(B)] == [B, C]
    assert {summary.trace_id for summary in store.newest(10)} == {A, B}


def test_the_newest_by_start_not_by_arrival() -> None:
    store = TraceStore(100)
    store.add([span(A, 9, kind="SERVER"), span(B, 4, kind="SERVER")])
    assert [summary.trace_id for summary in store.newest(5)] == [A, B]
    assert [summary.trace_id for summary in store.newest(1)] == [A]


def test_a_summary_spans_the_whole_trace() -> None:
    store = TraceStore(100)
    store.add([span(A, 3), span(A, 1, kind="SERVER")])
    (summary,) = store.newest(1)
    assert (summary.name, summary.start, summary.duration, summary.spans) == ("span 1", 1_000_000, 2_500_000, 2)


def test_memory_is_bounded_and_forgotten_spans_leave_no_trace() -> None:
    store = TraceStore(4)
    for number in range(1, 200):
        trace = f"{number:032x}"
        own = span(trace, number, kind="SERVER")
        store.add([own, span(C, number, links=(own.ref, own.ref))])
        assert len(store) <= 4
    assert len(store._traces) == 3
    assert len(store._linked) == 2
    assert len(store._requests) == 2


def test_reads_otlp_and_skips_what_has_no_proper_ids() -> None:
    request = collector.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "gateway"
    scope = resource.scope_spans.add()
    scope.spans.add(trace_id=b"short", span_id=b"1" * 8, name="broken")
    good = scope.spans.add(
        trace_id=b"\xaa" * 16,
        span_id=b"\x01" * 8,
        name="Classify",
        kind=trace_pb2.Span.SPAN_KIND_SERVER,
        start_time_unix_nano=5,
        end_time_unix_nano=9,
    )
    good.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    good.status.message = "no"
    good.links.add(trace_id=b"\xbb" * 16, span_id=b"\x02" * 8)
    values = {"text": "x", "flag": True, "count": 7, "ratio": 0.25}
    for key, value in values.items():
        attribute = good.attributes.add(key=key).value
        field = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}[type(value)]
        setattr(attribute, field, value)
    good.attributes.add(key="list").value.array_value.values.add().int_value = 1
    good.attributes.add(key="raw").value.bytes_value = b"\x00"
    good.attributes.add(key="none")
    assert list(read_spans(request.resource_spans)) == [
        Span(
            ref=SpanRef("aa" * 16, "01" * 8),
            parent_id="",
            name="Classify",
            service="gateway",
            kind="SERVER",
            start=5,
            end=9,
            attributes={
                "text": "x",
                "flag": "true",
                "count": "7",
                "ratio": "0.25",
                "list": '{"arrayValue": {"values": [{"intValue": "1"}]}}',
                "raw": "AA==",
                "none": "",
            },
            links=(SpanRef("bb" * 16, "02" * 8),),
            failed=True,
            status_message="no",
        )
    ]
