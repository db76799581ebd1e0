import math

import pytest

from cli.top_view import Snapshot, _relevant, compare, quantile


def sample(name: str, value: float, **labels: str) -> tuple[tuple[str, tuple[tuple[str, str], ...]], float]:
    return (name, tuple(sorted(labels.items()))), value


def test_quantiles_are_linear_within_a_bucket() -> None:
    buckets = {0.001: 0.0, 0.01: 50.0, 0.1: 100.0, math.inf: 100.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.01)
    assert quantile(buckets, 0.25) == pytest.approx(0.0055)
    assert quantile(buckets, 0.99) == pytest.approx(0.0982)
    assert quantile({0.1: 0.0, math.inf: 4.0}, 0.5) == 0.1
    assert quantile({0.1: 0.0, math.inf: 0.0}, 0.5) is None
    assert quantile({}, 0.5) is None


def test_rates_over_the_interval_summed_over_processes() -> None:
    def look(at: float, calls: float, rows: float) -> Snapshot:
        samples = []
        for process in ("vision-0", "vision-1"):
            of = {"process": process}
            method = {"rpc_method": "x.Y/Z", "rpc_status_code": "OK"}
            model = {"model": "double", "version": "1"}
            samples += [
                sample("rpc_server_call_duration_seconds_count", calls, **of, **method),
                sample("rpc_server_call_duration_seconds_bucket", calls, **of, **method, le="0.01"),
                sample("rpc_server_call_duration_seconds_bucket", calls, **of, **method, le="+Inf"),
                sample("headrace_batch_rows_count", rows / 4, **of, **model),
                sample("headrace_batch_rows_sum", rows, **of, **model),
                sample("headrace_queue_rows", 3, **of, **model),
            ]
        samples += [
            sample("rpc_server_call_duration_seconds_count", calls, rpc_method="grpc.health.v1.Health/Check"),
            sample("envoy_http_downstream_rq_total", 4 * calls, envoy_http_conn_manager_prefix="edge"),
            sample("envoy_http_downstream_rq_total", 9e9 * at, envoy_http_conn_manager_prefix="admin"),
        ]
        return Snapshot(at, dict(samples), {"vision-0": (7, at, 2**20)})

    view = compare(look(10.0, 0, 0), look(12.0, 50, 400))
    assert view.requests_per_second == 100
    (rpc,) = view.rpcs
    assert (rpc.name, rpc.per_second, rpc.errors_per_second) == ("x.Y/Z", 50, 0)
    assert rpc.p99 == pytest.approx(0.0099)
    (model,) = view.models
    assert (model.name, model.rows_per_second, model.rows_per_batch, model.queued_rows) == ("double@1", 400, 4, 6)
    assert model.queue_p50 is None
    (process,) = view.processes
    assert (process.pid, process.cpu_percent, process.memory_mib) == (7, 100, 1)


def test_a_restarted_process_counts_from_nothing_not_below() -> None:
    def look(at: float, count: float) -> Snapshot:
        key, value = sample("envoy_http_downstream_rq_total", count, envoy_http_conn_manager_prefix="edge")
        return Snapshot(at, {key: value}, {})

    assert compare(look(0.0, 100), look(1.0, 5)).requests_per_second == 0


def test_only_what_is_shown_is_parsed() -> None:
    page = "# TYPE envoy_other counter\nenvoy_other 1\n# TYPE headrace_queue_rows gauge\nheadrace_queue_rows 2\n"
    assert _relevant(page) == "# TYPE headrace_queue_rows gauge\nheadrace_queue_rows 2\n"
