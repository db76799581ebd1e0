"""Start what is measured and read what it used: a whole mesh, the bare echo, the bare Envoy; CPU time by process."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from benchmarks.bare import envoy_configuration
from gateway.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Mesh:
    """A running mesh: the gateway's address, the first vision replica's own socket, the pids whose CPU time is read."""

    gateway: str
    service: str
    envoy_pid: int
    service_pids: tuple[int, ...]
    control_pid: int


def cpu_seconds(*pids: int) -> float:
    """User and system CPU seconds that these processes have used."""
    return sum(map(_cpu_seconds, pids))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


async def wait_until_answers(target: str, method: str, request: bytes, patience: float = 60.0) -> None:
    """Call until the first success. Raises TimeoutError after `patience` seconds."""
    async with asyncio.timeout(patience), aio.insecure_channel(target) as channel:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        while True:
            try:
                await call(request)
                return
            except aio.AioRpcError:
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def child(*command: str, quiet: bool = True) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child process that ends with the block: SIGTERM first, SIGKILL after ten seconds."""
    sink = asyncio.subprocess.DEVNULL if quiet else None
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(12):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def bare_echo(folder: Path) -> AsyncIterator[tuple[str, int, int]]:
    """The bare echo behind a bare Envoy: (target, Envoy's pid, the echo's pid)."""
    echo_socket, target = folder / "echo.sock", free_port("127.0.0.1:0")
    configuration = folder / "bare-envoy.json"
    configuration.write_text(envoy_configuration(int(target.rpartition(":")[2]), str(echo_socket)), encoding="utf-8")
    envoy = shutil.which("envoy", path=str(Path(sys.executable).parent)) or "envoy"
    flags = ("--concurrency", "1", "--use-dynamic-base-id", "--log-level", "off")
    async with (
        child(sys.executable, "-m", "benchmarks.bare", str(echo_socket)) as echo,
        child(envoy, "-c", str(configuration), *flags) as proxy,
    ):
        yield target, proxy.pid, echo.pid


@contextlib.asynccontextmanager
async def mesh(folder: Path, models: Path) -> AsyncIterator[Mesh]:
    """The default mesh as `headrace up` starts it, on a free port, over the given models."""
    gateway = free_port("127.0.0.1:0")
    configuration = folder / "headrace.toml"
    text = (ROOT / "headrace.toml").read_text(encoding="utf-8")
    text = text.replace('"127.0.0.1:8080"', json.dumps(gateway)).replace('"models"', json.dumps(str(models)))
    configuration.write_text(text, encoding="utf-8")
    command = (sys.executable, "-m", "cli.main", "up", "--config", str(configuration))
    async with child(*command):
        state = await written(folder / ".headrace" / "mesh.json")
        replicas = running(Path(state["run_dir"]), "vision-*")
        pids = tuple(replica["pid"] for replica in replicas)
        control = running(Path(state["run_dir"]), "control")[0]["pid"]
        yield Mesh(gateway, replicas[0]["listen"], envoy_pid(state["pid"]), pids, control)


async def written(path: Path, patience: float = 60.0) -> dict[str, Any]:
    """The JSON document that another process will put there whole: the mesh's, once it is ready."""
    async with asyncio.timeout(patience):
        while not path.exists():  # noqa: ASYNC110, ASYNC240  # Another process writes it; a look costs microseconds.
            await asyncio.sleep(0.05)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))  # noqa: ASYNC240  # As above.
    return document


def running(run_dir: Path, pattern: str) -> list[dict[str, Any]]:
    """What the processes of that name say of themselves: pid, listen."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run_dir.glob(f"{pattern}.json"))]


def envoy_pid(supervisor: int) -> int:
    """The pid of the supervisor's Envoy child."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="utf-8").split()
    for pid in map(int, children):
        if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "envoy":
            return pid
    raise RuntimeError(f"process {supervisor} has no Envoy child")


def machine() -> str:
    """The processor's name and the number of cores this process may use."""
    names = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    name = names[0].partition(":")[2].strip() if names else "unknown processor"
    return f"{name}, {len(os.sched_getaffinity(0))} cores, grpcio {grpc.__version__}"
