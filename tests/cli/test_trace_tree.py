from typing import Any

from cli.trace_tree import build, is_whole, render
from headrace.control.v1 import control_pb2 as pb

TRACE, OTHER = "a" * 32, "b" * 32
MS = 1_000_000


def span(number: int, parent: int, name: str, service: str, start: int, length: int, **more: Any) -> pb.Span:
    made = pb.Span(trace_id=TRACE, span_id=f"{number:016x}", name=name, service=service, **more)
    if parent:
        made.parent_span_id = f"{parent:016x}"
    made.start_time.FromNanoseconds(start * MS)
    made.duration.FromNanoseconds(length * MS)
    return made


def trace() -> pb.GetTraceResponse:
    attributes = {"headrace.batch.rows": "7", "headrace.batch.members": "3", "headrace.model.name": "double"}
    batch = span(9, 0, "headrace.batch", "vision-0", 4, 4, attributes=attributes)
    batch.trace_id = OTHER
    batch.links.add(trace_id=TRACE, span_id=f"{2:016x}")
    engine = span(4, 2, "engine", "vision-0", 4, 4, links=[pb.Link(trace_id=OTHER, span_id=batch.span_id)])
    receipt = {
        "headrace.queue_ms": "1.5",
        "headrace.engine_ms": "4",
        "headrace.batch.rows": "7",
        "rpc.status_code": "OK",
    }
    return pb.GetTraceResponse(
        trace_id=TRACE,
        spans=[
            span(1, 5, "/x.Service/Call", "headrace-gateway", 0, 10),
            span(2, 1, "x.Service/Call", "vision-0", 1, 8, attributes=receipt),
            span(3, 2, "queue", "vision-0", 2, 2),
            engine,
            batch,
        ],
    )


def test_the_tree_has_times_bars_receipt_and_the_batch_below_its_engine_span() -> None:
    lines = str(render(TRACE, build(trace()))).splitlines()
    assert lines[0] == f"trace {TRACE}   10.00 ms   headrace-gateway, vision-0"
    assert lines[1].startswith("x.Service/Call ")
    assert lines[2].startswith("└─ x.Service/Call ")
    assert "   ├─ queue" in lines[3]
    assert "   └─ engine" in lines[4]
    assert "      └─ batch of 7 rows from 3 requests" in lines[5]
    assert "receipt: queue 1.5 ms, engine 4 ms, batch 7" in lines[2]
    assert "status=" not in lines[2]
    bars = [line.index("━") for line in lines[1:]]
    assert bars == sorted(bars)
    assert lines[1].count("━") == 24


def test_a_span_whose_parent_is_missing_is_a_root_and_a_batch_without_a_place_is_left_out() -> None:
    response = trace()
    del response.spans[:2]
    assert [root.span.name for root in build(response)] == ["queue", "engine"]
    del response.spans[1]
    assert [root.span.name for root in build(response)] == ["queue"]


def test_failed_spans_say_why() -> None:
    response = pb.GetTraceResponse(trace_id=TRACE, spans=[span(1, 0, "x", "vision-0", 0, 1, failed=True)])
    response.spans[0].attributes["error.type"] = "INTERNAL"
    response.spans[0].status_message = "it broke"
    text = render(TRACE, build(response))
    assert "error=INTERNAL it broke" in str(text)
    assert any(str(piece.style) == "red" for piece in text.spans)


def test_a_trace_is_whole_once_the_gateways_span_is_the_only_root() -> None:
    response = trace()
    assert is_whole(response, settled_before=0)
    del response.spans[0]
    assert not is_whole(response, settled_before=0)
    assert is_whole(response, settled_before=10**18)
