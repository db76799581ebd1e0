import math
import time

import pytest

from engines.batcher import BatchTiming, Outcome
from services.chassis.call import Call


def outcome(
    batch: int, queued: float, rows: int, batch_rows: int, seconds: float = 0.2, padding: float = 0.0
) -> Outcome:
    return Outcome({}, queued, BatchTiming(batch, batch_rows, 1, padding, 10.0, 10.0 + seconds), rows)


def test_a_receipt_adds_up_the_items_of_a_call():
    call = Call("a.B/C")
    items = [outcome(1, 9.9, 1, 8), outcome(1, 9.5, 3, 8), outcome(2, 9.8, 2, 16, seconds=0.4, padding=0.25)]
    receipt = call.record("m", "2", items)
    assert receipt is call.receipt
    assert receipt.queue_ms == pytest.approx(500)
    assert receipt.engine_ms == pytest.approx(400)
    assert receipt.engine_share_ms == pytest.approx(200 * 4 / 8 + 400 * 2 / 16)
    assert (receipt.batch_rows, receipt.padding_ratio) == (16, 0.25)
    assert dict(receipt.metadata())["headrace-model"] == "m@2"


def test_a_stream_adds_its_items_up():
    call = Call("a.B/C")
    first = call.record("m", "1", [outcome(1, 9.9, 1, 1)])
    second = call.record("m", "1", [outcome(2, 9.7, 1, 4)])
    assert first.engine_share_ms == pytest.approx(200)
    assert second.queue_ms == pytest.approx(300)
    assert call.receipt.engine_share_ms == pytest.approx(250)
    assert call.receipt.queue_ms == pytest.approx(300)
    assert call.receipt.batch_rows == 4


def test_deadlines_of_items():
    now = time.monotonic()
    assert math.isinf(Call("a").item_deadline())
    assert Call("a", item_timeout=5.0).item_deadline() == pytest.approx(now + 5, abs=0.5)
    assert Call("a", deadline=now + 1, item_timeout=5.0).item_deadline() == now + 1


def test_the_trace_id_is_read_from_the_header():
    assert Call("a").trace_id == ""
    assert Call("a", metadata={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-00"}).trace_id == "a" * 32
