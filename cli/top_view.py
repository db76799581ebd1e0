"""What `headrace top` shows, computed from two snapshots of the metrics page and of /proc. No drawing here."""

import os
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_CALLS = "rpc_server_call_duration_seconds"
_QUEUE = "headrace_request_queue_seconds"
_ENGINE = "headrace_engine_batch_seconds"
_ROWS = "headrace_batch_rows"
_QUEUED = "headrace_queue_rows"
_EDGE = "envoy_http_downstream_rq_total"
_WANTED = (_CALLS, _QUEUE, _ENGINE, _ROWS, _QUEUED)
_HOUSEKEEPING = (
    "grpc.health.",
    "grpc.reflection.",
    "headrace.control.",
    "inference.GRPCInferenceService/RepositoryIndex",
    "inference.GRPCInferenceService/ServerMetadata",
)

Buckets = Mapping[float, float]
"""Upper bound in seconds -> observations up to it (cumulative)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look. `samples`: (name, labels) -> value; `processes`: name -> (pid, CPU seconds, resident bytes)."""

    at: float
    samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
    processes: Mapping[str, tuple[int, float, int]]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model over the interval; times in seconds, None when nothing happened."""

    name: str
    batches_per_second: float
    rows_per_second: float
    rows_per_batch: float
    queued_rows: float
    queue_p50: float | None
    queue_p99: float | None
    engine_p50: float | None
    engine_p99: float | None


@dataclass(frozen=True, slots=True)
class RpcRow:
    """One rpc over the interval; times in seconds as the service measured them, None when it was not called."""

    name: str
    per_second: float
    errors_per_second: float
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process: percent of one core, resident memory in MiB."""

    name: str
    pid: int
    cpu_percent: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one look shows."""

    requests_per_second: float
    models: list[ModelRow]
    rpcs: list[RpcRow]
    processes: list[ProcessRow]

    def document(self) -> dict[str, Any]:
        """Return it as JSON would have it."""
        return asdict(self)


def take(page: str, pids: Mapping[str, int]) -> Snapshot:
    """Look at the metrics page (a URL) and at the processes. Raises OSError when the page does not answer."""
    with urllib.request.urlopen(page, timeout=5.0) as response:  # noqa: S310  # the address is the mesh's own
        text = response.read().decode()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(_relevant(text))
        for sample in family.samples
    }
    processes = {name: found for name, pid in pids.items() if (found := _process(pid)) is not None}
    return Snapshot(time.monotonic(), samples, processes)


def _relevant(text: str) -> str:
    """Envoy's page has hundreds of families; only these are read."""
    names = (*_WANTED, _EDGE)
    heads = tuple(f"# {kind} {name}" for kind in ("HELP", "TYPE") for name in names)
    return "".join(line + "\n" for line in text.splitlines() if line.startswith((*names, *heads)))


def _process(pid: int) -> tuple[int, float, int] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return pid, ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def compare(before: Snapshot, now: Snapshot) -> View:
    """Return what happened between two looks."""
    seconds = max(now.at - before.at, 1e-9)
    grown = {key: max(value - before.samples.get(key, 0.0), 0.0) for key, value in now.samples.items()}
    edge = sum(
        value
        for (name, labels), value in grown.items()
        if name == _EDGE and ("envoy_http_conn_manager_prefix", "edge") in labels
    )
    return View(
        requests_per_second=edge / seconds,
        models=_models(grown, now, seconds),
        rpcs=_rpcs(grown, seconds),
        processes=[
            ProcessRow(
                name, pid, 100 * max(cpu - before.processes.get(name, (pid, cpu, 0))[1], 0.0) / seconds, size / 2**20
            )
            for name, (pid, cpu, size) in now.processes.items()
        ],
    )


def _models(grown: Mapping[Any, float], now: Snapshot, seconds: float) -> list[ModelRow]:
    queue, engine = _histograms(grown, _QUEUE, ("model", "version")), _histograms(grown, _ENGINE, ("model", "version"))
    batches = _sums(grown.items(), _ROWS + "_count", ("model", "version"))
    rows = _sums(grown.items(), _ROWS + "_sum", ("model", "version"))
    queued = _sums(now.samples.items(), _QUEUED, ("model", "version"))
    return [
        ModelRow(
            name="@".join(key),
            batches_per_second=batches[key] / seconds,
            rows_per_second=rows[key] / seconds,
            rows_per_batch=rows[key] / batches[key] if batches[key] else 0.0,
            queued_rows=queued[key],
            queue_p50=quantile(queue[key], 0.5),
            queue_p99=quantile(queue[key], 0.99),
            engine_p50=quantile(engine[key], 0.5),
            engine_p99=quantile(engine[key], 0.99),
        )
        for key in sorted({*queued, *batches})
    ]


def _rpcs(grown: Mapping[Any, float], seconds: float) -> list[RpcRow]:
    durations = _histograms(grown, _CALLS, ("rpc_method",))
    calls = _sums(grown.items(), _CALLS + "_count", ("rpc_method", "rpc_status_code"))
    total: dict[str, float] = defaultdict(float)
    failed: dict[str, float] = defaultdict(float)
    for (method, code), count in calls.items():
        total[method] += count
        failed[method] += 0.0 if code == "OK" else count
    return [
        RpcRow(
            name=method,
            per_second=total[method] / seconds,
            errors_per_second=failed[method] / seconds,
            p50=quantile(durations[method,], 0.5),
            p99=quantile(durations[method,], 0.99),
        )
        for method in sorted(total)
        if not method.startswith(_HOUSEKEEPING)
    ]


def _sums(samples: Iterable[tuple[Any, float]], name: str, by: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    """Add up a metric over processes, by some of its labels."""
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for (sample, labels), value in samples:
        if sample == name:
            of = dict(labels)
            found[tuple(of.get(label, "") for label in by)] += value
    return found


def _histograms(
    samples: Mapping[Any, float], name: str, by: tuple[str, ...]
) -> dict[tuple[str, ...], dict[float, float]]:
    found: dict[tuple[str, ...], dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for key, value in _sums(samples.items(), name + "_bucket", (*by, "le")).items():
        found[key[:-1]][float(key[-1])] += value
    return found


def quantile(buckets: Buckets, share: float) -> float | None:
    """Estimate a quantile (0..1) from a cumulative histogram, linear within a bucket; None when it is empty."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted, lower, below = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return lower
            within = buckets[bound] - below
            return lower + (bound - lower) * ((wanted - below) / within if within else 1.0)
        lower, below = bound, buckets[bound]
    return lower
