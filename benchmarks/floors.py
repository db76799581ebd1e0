"""`make bench`: what the mesh costs over the bare parts it is made of, as ratios within one run.

Questions: how much of the same service's own throughput survives the gateway; how near is a real model call to a bare
echo behind a bare Envoy; how much of a bare loop of decode and engine is served as JPEG -> top-5; what does one call
at a time add. Rounds are interleaved, medians are reported, CPU is read per process, and the seed fixes the payloads.
"""

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import bare, load, photographs, processes
from headrace.inference import open_inference_pb2
from headrace.vision.v1 import vision_pb2

INFER = "/inference.GRPCInferenceService/ModelInfer"
CLASSIFY = "/headrace.vision.v1.VisionService/Classify"
SEED = 20261121


@dataclass(frozen=True, slots=True)
class Floor:
    """One measured ratio and the least (or, where `at_most`, the greatest) that is accepted."""

    name: str
    value: float
    bound: float
    at_most: bool = False
    unit: str = "x"

    @property
    def held(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(slots=True)
class Subject:
    """Something under load: its rounds, and CPU microseconds a call of each process that served it."""

    name: str
    target: str
    method: str
    requests: tuple[bytes, ...]
    pids: dict[str, tuple[int, ...]]
    rounds: list[load.LoadResult] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    async def measure(self, in_flight: int, seconds: float, folder: Path) -> None:
        """Add one round."""
        before = {name: processes.cpu_seconds(*pids) for name, pids in self.pids.items()}
        spec = load.LoadSpec(self.target, self.method, self.requests, in_flight, seconds)
        result = await load.measure(spec, folder)
        if result.errors:
            raise RuntimeError(f"{self.name}: calls failed: {result.errors}")
        # The client's warm-up is served as well; scale by the whole time so that the figure is per call.
        calls = result.rate * (seconds + spec.warm_up)
        for name, pids in self.pids.items():
            self.cpu.setdefault(name, []).append(1e6 * (processes.cpu_seconds(*pids) - before[name]) / calls)
        self.rounds.append(result)

    def median(self, read: Callable[[load.LoadResult], float]) -> float:
        return statistics.median(read(each) for each in self.rounds)

    @property
    def rate(self) -> float:
        return self.median(lambda result: result.rate)

    @property
    def client_cores(self) -> float:
        return self.median(lambda result: result.client_cpu_seconds / result.seconds)


def infer_request() -> bytes:
    """A ModelInfer of `double` with one FP32 row of 16 seeded values."""
    values = np.random.default_rng(SEED).standard_normal((1, 16)).astype(np.float32)
    request = open_inference_pb2.ModelInferRequest(model_name="double")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    request.raw_input_contents.append(values.tobytes())
    return bytes(request.SerializeToString())


def classify_requests() -> tuple[bytes, ...]:
    """One Classify request a photograph, in seeded order."""
    images = photographs.jpegs()
    random.Random(SEED).shuffle(images)
    return tuple(
        vision_pb2.ClassifyRequest(images=[vision_pb2.Image(content=image)], top_k=5).SerializeToString()
        for image in images
    )


async def measure_all(options: argparse.Namespace, folder: Path) -> tuple[list[Subject], list[Floor]]:
    """Run every round and derive the floors."""
    infer, classify = (infer_request(),), classify_requests()
    cores = len(os.sched_getaffinity(0))
    async with (
        processes.bare_echo(folder) as (echo, echo_envoy, echo_pid),
        processes.mesh(folder, options.models) as mesh,
    ):
        await processes.wait_until_answers(echo, bare.ECHO_METHOD, b"")
        await processes.wait_until_answers(mesh.gateway, CLASSIFY, classify[0])
        both = {"envoy": (mesh.envoy_pid,), "service": mesh.service_pids, "control": (mesh.control_pid,)}
        floor = Subject(
            "echo behind bare Envoy", echo, bare.ECHO_METHOD, infer, {"envoy": (echo_envoy,), "service": (echo_pid,)}
        )
        direct = Subject("double, service", mesh.service, INFER, infer, {"service": mesh.service_pids})
        through = Subject("double, gateway", mesh.gateway, INFER, infer, both)
        alone = Subject("double, gateway, one at a time", mesh.gateway, INFER, infer, both)
        images = Subject("JPEG to top-5, gateway", mesh.gateway, CLASSIFY, classify, both)
        loops: list[float] = []
        for turn in range(options.rounds + 1):
            progress(turn, options.rounds)
            for subject in (floor, direct, through):
                await subject.measure(64, options.seconds, folder)
            await alone.measure(1, options.seconds, folder)
            await images.measure(32, options.seconds, folder)
            loop = asyncio.to_thread(bare.classify_loop, options.models, photographs.jpegs(), cores, options.seconds)
            loops.append(await loop)
            if turn == 0:  # The first round warms everything up and is thrown away.
                loops.clear()
                for subject in (floor, direct, through, alone, images):
                    subject.rounds.clear()
                    subject.cpu.clear()
    loop_rate = statistics.median(loops)
    share = (cores - images.client_cores) / cores
    floors = [
        Floor("double: gateway / service", through.rate / direct.rate, 0.75),
        Floor("double: gateway / bare echo, bare Envoy", through.rate / floor.rate, 0.50),
        Floor("JPEG to top-5: gateway / bare loop", images.rate / (loop_rate * share), 0.85),
        Floor("one at a time, p50", alone.median(lambda result: result.p50_ms), 1.0, at_most=True, unit=" ms"),
    ]
    loop_subject = Subject(f"JPEG to top-5, bare loop, {cores} lanes", "", "", (), {})
    loop_subject.rounds = [load.LoadResult(0, loop_rate, float("nan"), float("nan"), 1.0, 0.0, {})]
    return [floor, direct, through, alone, images, loop_subject], floors


def progress(turn: int, rounds: int) -> None:
    """Say which round runs, on stderr."""
    sys.stderr.write("warming up ...\n" if turn == 0 else f"round {turn} of {rounds} ...\n")


def show(subjects: Sequence[Subject], floors: Sequence[Floor], console: Console) -> None:
    """Print both tables."""
    table = Table(title=f"Medians on {processes.machine()}", title_justify="left", box=box.SIMPLE)
    table.add_column("workload", no_wrap=True)
    for column in ("calls/s", "p50 ms", "p99 ms", "Envoy us", "service us", "control us", "client cores"):
        table.add_column(column, justify="right")
    for each in subjects:
        cpu = [
            statistics.median(each.cpu[name]) if name in each.cpu else float("nan")
            for name in ("envoy", "service", "control")
        ]
        figures = [each.rate, each.median(lambda r: r.p50_ms), each.median(lambda r: r.p99_ms), *cpu, each.client_cores]
        texts = ["-" if math.isnan(figure) else f"{figure:,.{0 if figure >= 100 else 2}f}" for figure in figures]
        table.add_row(each.name, *texts)
    console.print(table)
    console.print("CPU in us of each process a call; the client's in cores.")
    verdicts = Table(title="Floors", title_justify="left", box=box.SIMPLE)
    verdicts.add_column("ratio", no_wrap=True)
    for column in ("measured", "floor", ""):
        verdicts.add_column(column, justify="right")
    for floor in floors:
        bound = f"{'<=' if floor.at_most else '>='} {floor.bound:g}{floor.unit}"
        verdict = "[green]held[/]" if floor.held else "[red]missed[/]"
        verdicts.add_row(floor.name, f"{floor.value:.2f}{floor.unit}", bound, verdict)
    console.print(verdicts)


def record(subjects: Sequence[Subject], floors: Sequence[Floor], path: Path) -> None:
    """Keep the run as JSON beside the hardware and the commit it ran on."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=processes.ROOT, capture_output=True, text=True, check=False
    )
    document = {
        "machine": processes.machine(),
        "commit": commit.stdout.strip() or None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "subjects": [
            {
                "name": each.name,
                "rate": each.rate,
                "cpu_us_per_call": {k: statistics.median(v) for k, v in each.cpu.items()},
            }
            for each in subjects
        ],
        "floors": [asdict(floor) for floor in floors],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Measure, print, optionally keep; exit code 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.5, help="length of each round of each workload")
    parser.add_argument("--models", type=Path, default=processes.ROOT / "models")
    parser.add_argument("--output", type=Path, help="write the run as JSON, for example to benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        subjects, floors = asyncio.run(measure_all(options, Path(folder)))
    show(subjects, floors, Console(width=max(110, Console().width)))
    if options.output:
        record(subjects, floors, options.output)
    return 0 if all(floor.held for floor in floors) else 1


if __name__ == "__main__":
    sys.exit(main())
