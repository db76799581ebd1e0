import urllib.request
from types import SimpleNamespace

import pytest

from engines.batcher import BatchTiming
from services.chassis.addresses import StartError
from services.chassis.call import Receipt
from services.chassis.metrics import Metrics, MetricsPage

MODEL = {"model": "m", "version": "1"}


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310  # Our own page.
        return page.read().decode()


def test_the_page_shows_what_was_measured():
    metrics = Metrics()
    metrics.call_ended("a.B/C", "OK", 0.02)
    metrics.request_computed(Receipt("m", "1", 3.0, 1.0, 1.0, 4, 0.0))
    metrics.batch_ran("m", "1", BatchTiming(1, 12, 3, 0.25, 10.0, 10.5))
    metrics.refused("m", "QUEUE_FULL")
    metrics.refused("m", "MODEL_NOT_FOUND")
    metrics.refused("", "QUEUE_FULL")
    queue = SimpleNamespace(rows=7)
    metrics.watch_queue("m", "1", lambda: queue.rows)
    sample = metrics.registry.get_sample_value
    assert sample("headrace_request_queue_seconds_sum", MODEL) == pytest.approx(0.003)
    assert sample("headrace_engine_batch_seconds_sum", MODEL) == 0.5
    assert sample("headrace_batch_rows_sum", MODEL) == 12
    assert sample("headrace_batch_padding_ratio_sum", MODEL) == 0.25
    assert sample("headrace_rejected_total", {"model": "m", "reason": "QUEUE_FULL"}) == 1
    assert sample("headrace_rejected_total", {"model": "m", "reason": "MODEL_NOT_FOUND"}) is None
    with MetricsPage(metrics, "127.0.0.1:0") as page:
        assert ":0/" not in page.url
        text = scrape(page.url)
        assert 'rpc_server_call_duration_seconds_count{rpc_method="a.B/C",rpc_status_code="OK"} 1.0' in text
        assert 'headrace_queue_rows{model="m",version="1"} 7.0' in text
        queue.rows = 0
        assert 'headrace_queue_rows{model="m",version="1"} 0.0' in scrape(page.url)


def test_a_page_on_a_port_in_use_is_one_line():
    with MetricsPage(Metrics(), "127.0.0.1:0") as page:
        listen = page.url.removeprefix("http://").removesuffix("/metrics")
        with pytest.raises(StartError, match="the port is in use"):
            MetricsPage(Metrics(), listen)
