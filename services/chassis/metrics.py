"""Prometheus metrics of one process, and the page they are read from.

prometheus_client rather than OTel instruments: this page is what Prometheus scrapes anyway. What every request observes
goes into histograms of our own (DECISIONS.md has the measurement).
"""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.exposition import ThreadingWSGIServer

from engines.work import BatchTiming
from services.chassis.addresses import check_free, split
from services.chassis.call import Receipt
from services.chassis.histograms import Histogram, Series

#: Seconds. The recommended buckets of rpc durations start at 5 ms; small models answer faster.
DURATION_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
_STAGE_BUCKETS: Final = (0.0001, 0.00025, *DURATION_BUCKETS)
_ROWS_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_RATIO_BUCKETS: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
_MODEL: Final = ("model", "version")
_POLL_SECONDS: Final = 0.1  # How soon the page's thread notices that it should end.

#: Reasons of refusals that are counted per model; every other error is counted by its status alone.
_REFUSALS: Final = frozenset({"QUEUE_FULL", "DEADLINE_UNMEETABLE", "DEADLINE_EXCEEDED", "MODEL_UNAVAILABLE"})


# Twice the series for nothing that Prometheus reads.
disable_created_metrics()  # type: ignore[no-untyped-call]  # The package types everything but this.


@dataclass(frozen=True, slots=True)
class _ModelMetrics:
    queue: Series
    engine: Series
    rows: Series
    padding: Series


class Metrics:
    """The instruments of one process. Label values are resolved once and kept, so that recording is cheap."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._calls = Histogram(
            "rpc_server_call_duration_seconds",
            "Time from the start of an rpc to its end.",
            ("rpc_method", "rpc_status_code"),
            DURATION_BUCKETS,
            registry,
        )
        self._queue = Histogram(
            "headrace_request_queue_seconds",
            "Longest wait for an engine of one request.",
            _MODEL,
            _STAGE_BUCKETS,
            registry,
        )
        self._engine = Histogram(
            "headrace_engine_batch_seconds",
            "Time of one engine run.",
            _MODEL,
            _STAGE_BUCKETS,
            registry,
        )
        self._rows = Histogram("headrace_batch_rows", "Rows of one engine run.", _MODEL, _ROWS_BUCKETS, registry)
        self._padding = Histogram(
            "headrace_batch_padding_ratio",
            "Share of one engine run that was padding.",
            _MODEL,
            _RATIO_BUCKETS,
            registry,
        )
        self._queue_rows = Gauge("headrace_queue_rows", "Rows waiting for an engine.", _MODEL, registry=registry)
        self._rejected = Counter(
            "headrace_rejected", "Requests refused for want of room or time.", ("model", "reason"), registry=registry
        )
        self._call = lru_cache(maxsize=4096)(self._calls.series)
        self._model = lru_cache(maxsize=4096)(self._make_model)

    def _make_model(self, model: str, version: str) -> _ModelMetrics:
        parts = (self._queue, self._engine, self._rows, self._padding)
        return _ModelMetrics(*(part.series(model, version) for part in parts))

    def call_ended(self, method: str, status: str, seconds: float) -> None:
        """An rpc of a registered method ended; `status` is the name of its code."""
        self._call(method, status).observe(seconds)

    def request_computed(self, receipt: Receipt) -> None:
        """A request's items have been through the batcher."""
        self._model(receipt.model, receipt.version).queue.observe(receipt.queue_ms * 1e-3)

    def batch_ran(self, model: str, version: str, timing: BatchTiming) -> None:
        """An engine ran one batch."""
        metrics = self._model(model, version)
        metrics.engine.observe(timing.ended - timing.started)
        metrics.rows.observe(timing.rows)
        metrics.padding.observe(timing.padding_ratio)

    def refused(self, model: str, reason: str) -> None:
        """A request was answered with the error `reason`; counted when it is a refusal for want of room or time."""
        if model and reason in _REFUSALS:
            self._rejected.labels(model, reason).inc()

    def watch_queue(self, model: str, version: str, queued_rows: Callable[[], float]) -> None:
        """Read the depth of a queue whenever the page is."""
        self._queue_rows.labels(model, version).set_function(queued_rows)


class MetricsPage:
    """The Prometheus page of `metrics`, served by a thread of its own until the block ends. `url` has the real port."""

    def __init__(self, metrics: Metrics, listen: str) -> None:
        """Listen on "host:port". Raises StartError."""
        check_free(listen)
        host, port = split(listen)
        kind = _Server6 if ":" in host else ThreadingWSGIServer
        self._server = make_server(host, port, make_wsgi_app(metrics.registry), kind, _QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), name="metrics-page")
        self.url = f"http://{listen.rpartition(':')[0]}:{self._server.server_port}/metrics"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing about scrapes."""
