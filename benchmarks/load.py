"""A closed-loop gRPC load client in a process of its own: N calls in flight, raw request bytes, no protobuf work.

`python -m benchmarks.load --target 127.0.0.1:8080 --method /pkg.Service/Rpc --request FILE --in-flight 64 --seconds 3`
prints one JSON line. It measures throughput and service latency at a fixed concurrency; being a closed loop it says
nothing of latency under a given arrival rate.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import uvloop
from grpc import aio


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One run: calls that ended in it, their rate per second, latency, the client's CPU seconds, errors by code."""

    calls: int
    rate: float
    p50_ms: float
    p99_ms: float
    seconds: float
    client_cpu_seconds: float
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to send where: serialized `requests` in turn, for `seconds` after an uncounted `warm_up`."""

    target: str
    method: str
    requests: tuple[bytes, ...]
    in_flight: int
    seconds: float
    warm_up: float = 0.5
    channels: int = 2


def percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of an ascending list; NaN when it is empty."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def run(spec: LoadSpec) -> LoadResult:
    """Keep `in_flight` calls going for the given time and measure those that end within it."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channels = [aio.insecure_channel(spec.target, options=options) for _ in range(spec.channels)]
    calls: list[aio.UnaryUnaryMultiCallable[bytes, bytes]] = [channel.unary_unary(spec.method) for channel in channels]
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    begin = time.perf_counter() + spec.warm_up
    end = begin + spec.seconds

    async def keep_calling(slot: int) -> None:
        call, turn = calls[slot % len(calls)], slot
        while (sent := time.perf_counter()) < end:
            request = spec.requests[turn % len(spec.requests)]
            turn += spec.in_flight
            try:
                await call(request)
            except aio.AioRpcError as error:
                errors[error.code().name] += 1
                await asyncio.sleep(0.001)
                continue
            done = time.perf_counter()
            if begin <= sent and done <= end:
                latencies.append(done - sent)

    async def cpu_after_warm_up() -> float:
        await asyncio.sleep(max(0.0, begin - time.perf_counter()))
        return cpu_seconds()

    before = asyncio.create_task(cpu_after_warm_up())
    await asyncio.gather(*(keep_calling(slot) for slot in range(spec.in_flight)))
    used = cpu_seconds() - await before
    for channel in channels:
        await channel.close()
    latencies.sort()
    return LoadResult(
        calls=len(latencies),
        rate=len(latencies) / spec.seconds,
        p50_ms=1e3 * percentile(latencies, 0.50),
        p99_ms=1e3 * percentile(latencies, 0.99),
        seconds=spec.seconds,
        client_cpu_seconds=used,
        errors=dict(errors),
    )


def cpu_seconds() -> float:
    """User and system CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(spec: LoadSpec, folder: Path) -> LoadResult:
    """Run `spec` in a client process of its own; `folder` holds the request files meanwhile."""
    files = []
    for index, request in enumerate(spec.requests):
        path = folder / f"request-{index}.bin"
        path.write_bytes(request)
        files.append(str(path))
    arguments = ["--target", spec.target, "--method", spec.method, "--in-flight", str(spec.in_flight)]
    arguments += ["--seconds", str(spec.seconds), "--warm-up", str(spec.warm_up), "--request", *files]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load client ended with exit code {process.returncode}")
    return LoadResult(**json.loads(output))


def main() -> None:
    """Parse the command line, run, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="host:port or unix:path")
    parser.add_argument("--method", required=True, help="/package.Service/Rpc")
    parser.add_argument("--request", required=True, nargs="+", type=Path, help="files of serialized request messages")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    given = parser.parse_args()
    requests = tuple(path.read_bytes() for path in given.request)
    spec = LoadSpec(given.target, given.method, requests, given.in_flight, given.seconds, given.warm_up)
    sys.stdout.write(json.dumps(asdict(uvloop.run(run(spec)))) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, grpc.RpcError) as error:
        sys.exit(f"error: {error}")
