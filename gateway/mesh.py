"""`headrace up`: from settings to a running mesh and back to nothing.

1. check what can be checked before anything starts (port, Envoy, state folder)
2. start the control process; it writes Envoy's bootstrap file
3. start Envoy and the services together, and fetch missing models behind them; wait until all serve what they found
   and Envoy has accepted its configuration
4. say so, then supervise until a signal comes
5. drain Envoy, end Envoy, the services, the control process; remove the run folder
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import runfile
from gateway.child import ChildSpec, StartError
from gateway.envoy.binary import EnvoyNotFoundError, find_envoy
from gateway.fetch import Fetch
from gateway.plain_http import HttpError, fetch
from gateway.plan import (
    BOOTSTRAP_FILE,
    CONTROL_PROCESS,
    ENVOY_PROCESS,
    admin_address,
    control_address,
    internal_address,
    local_replicas,
)
from gateway.ports import CannotStartError, check_port_free
from gateway.runfile import MeshFile, MeshStatus, RunFile
from gateway.supervisor import Supervisor
from gateway.topology import TopologyError
from services.chassis.settings import Settings

_DRAIN_SECONDS = 3.0
_GRACE = {ENVOY_PROCESS: 1.5, CONTROL_PROCESS: 1.5}
_SERVICE_GRACE = 5.5  # a service finishes its own work in flight within 5 s of SIGTERM
_STOP_LIMIT = 9.5
_POLL = 0.05
_ENVOY_LOG = '{"time": "%Y-%m-%dT%T.%e%z", "level": "%l", "process": "envoy", "logger": "%n", "message": "%j"}'


@dataclass(frozen=True, slots=True)
class Observer:
    """Who is told what happens: a line for people, what is still awaited, the running mesh, how fetching goes ("" =
    it has ended)."""

    line: Callable[[str], None]
    waiting: Callable[[list[str]], None]
    ready: Callable[[MeshFile, MeshStatus], None]
    fetching: Callable[[str], None]


@dataclass(slots=True)
class _Stop:
    """The signals so far: the first asks for an orderly end, the second for an immediate one."""

    first: asyncio.Event = field(default_factory=asyncio.Event)
    second: asyncio.Event = field(default_factory=asyncio.Event)

    def signal(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def run_mesh(settings: Settings, observer: Observer, missing: Sequence[str] = ()) -> None:
    """Run the mesh until SIGINT, SIGTERM or SIGHUP, and fetch the `missing` models of the zoo behind it.

    Raises CannotStartError or MeshBusyError when it cannot start.
    """
    stop = _Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.signal)
    with runfile.claim(settings.state_dir), _run_folder() as run_dir:
        check_port_free(settings.gateway.listen)
        mesh = _Mesh(settings, run_dir, observer)
        try:
            async with mesh.supervised():
                fetching = asyncio.create_task(mesh.fetch(missing))
                try:
                    await _unless(stop.first, mesh.start())
                    await stop.first.wait()
                finally:
                    fetching.cancel()
                    await asyncio.gather(fetching, return_exceptions=True)
                observer.line("stopping (Ctrl-C again to kill at once) ...")
                await _unless(stop.second, mesh.stop())
        except (StartError, TopologyError, EnvoyNotFoundError) as error:
            raise CannotStartError(str(error)) from error


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work unless told to stop; what the work raises is raised here."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    else:
        task.result()


@contextlib.contextmanager
def _run_folder() -> Iterator[Path]:
    """A private folder with a path short enough for UNIX sockets; removed with everything in it."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-"))
    if len(str(folder)) > 70:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="headrace-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Mesh:
    """The processes of one mesh."""

    def __init__(self, settings: Settings, run_dir: Path, observer: Observer) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._observer = observer
        self._logs = settings.state_dir / "logs"
        self._replicas = local_replicas(settings, run_dir)
        self._envoy = find_envoy(settings.gateway.envoy)
        self._supervisor: Supervisor

    @contextlib.asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Have a supervisor within the block; whatever still runs at its end is killed."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for old in self._logs.glob("*.log"):
            old.unlink()
        self._supervisor = Supervisor(self._run_dir, self._observer.line)
        try:
            yield
        finally:
            await self._supervisor.close()

    async def fetch(self, names: Sequence[str]) -> None:
        """Fetch models into the repository of the running mesh."""
        if not names:
            return
        try:
            await Fetch(self._settings, self._observer.line, self._observer.fetching).run(names, self._supervisor)
        except OSError as error:
            self._observer.line(f"fetching models has stopped: {error}; the mesh serves without them")

    async def start(self) -> None:
        """Start everything and wait until it serves; raise StartError with the reason when it cannot."""
        self._supervisor.start([self._control()])
        await self._wait([CONTROL_PROCESS])
        services = [self._service(name, address) for name, address in self._replicas.items()]
        self._supervisor.start([self._envoy_spec(), *services])
        await self._wait([ENVOY_PROCESS, *self._replicas])
        while True:
            status = self._status()
            if status.ready:
                break
            self._observer.waiting([service.name for service in status.services if not service.ready] or ["Envoy"])
            await asyncio.sleep(_POLL)
        mesh = self._mesh_file()
        runfile.write_json(self._settings.state_dir / runfile.MESH_FILE, mesh)
        self._observer.ready(mesh, status)

    async def _wait(self, names: list[str]) -> None:
        ready = asyncio.create_task(self._supervisor.ready(names))
        try:
            while not ready.done():
                self._observer.waiting(self._supervisor.waiting_for())
                self._status()
                await asyncio.wait([ready], timeout=_POLL)
            ready.result()
        finally:
            ready.cancel()

    def _status(self) -> MeshStatus:
        """Return what the control process says; raise StartError when Envoy refused its configuration."""
        status = runfile.read_status(self._run_dir) or MeshStatus(False, False, "", ())
        if status.rejected:
            raise StartError(f"Envoy refused its configuration: {status.rejected}")
        return status

    async def stop(self) -> None:
        """End everything in order, within the limit."""
        try:
            async with asyncio.timeout(_STOP_LIMIT):
                await self._supervisor.stop([[ENVOY_PROCESS], list(self._replicas), [CONTROL_PROCESS]])
        except TimeoutError:
            self._observer.line(f"not everything ended within {_STOP_LIMIT:g} s; killing the rest")

    def _mesh_file(self) -> MeshFile:
        control = runfile.read_run_file(self._run_dir, CONTROL_PROCESS)
        return MeshFile(
            pid=os.getpid(),
            gateway=self._settings.gateway.listen,
            run_dir=str(self._run_dir),
            envoy_admin=admin_address(self._run_dir),
            metrics=control.metrics if control else "",
        )

    def _headrace(self, *arguments: str) -> tuple[str, ...]:
        file = self._settings.file
        config = () if file is None else ("--config", str(file))
        return (sys.executable, "-P", "-m", "cli.main", "serve", *arguments, *config, "--run-dir", str(self._run_dir))

    def _spec(self, name: str, command: tuple[str, ...], address: str) -> ChildSpec:
        def prepare() -> None:
            (self._run_dir / f"{name}.json").unlink(missing_ok=True)
            if address.startswith("unix:"):
                Path(address.removeprefix("unix:")).unlink(missing_ok=True)

        async def ready(pid: int) -> bool:
            found = runfile.read_run_file(self._run_dir, name)
            return found is not None and found.pid == pid

        return ChildSpec(
            name=name,
            command=command,
            log=self._logs / f"{name}.log",
            ready=ready,
            prepare=prepare,
            grace=_GRACE.get(name, _SERVICE_GRACE),
            # What flags or free ports have changed in the file's settings; a restarted process finds the same.
            environment={
                "HEADRACE_GATEWAY_LISTEN": self._settings.gateway.listen,
                "HEADRACE_METRICS_LISTEN": self._settings.metrics.listen,
                "PYTHONUNBUFFERED": "1",
            },
        )

    def _control(self) -> ChildSpec:
        return self._spec(CONTROL_PROCESS, self._headrace("control"), control_address(self._run_dir))

    def _service(self, name: str, address: str) -> ChildSpec:
        service = name.rpartition("-")[0]
        mesh = internal_address(self._run_dir)
        return self._spec(name, self._headrace(service, "--listen", address, "--name", name, "--mesh", mesh), address)

    def _envoy_spec(self) -> ChildSpec:
        command = (
            str(self._envoy),
            *("--config-path", str(self._run_dir / BOOTSTRAP_FILE)),
            *("--concurrency", str(self._settings.gateway.concurrency)),
            *("--log-level", "warning", "--log-format", _ENVOY_LOG),
            # Two meshes on one machine must not share hot-restart memory.
            "--disable-hot-restart",
            *("--drain-time-s", str(int(_DRAIN_SECONDS))),
            *("--drain-strategy", "immediate"),
        )
        base = self._spec(ENVOY_PROCESS, command, admin_address(self._run_dir))
        return ChildSpec(
            name=base.name,
            command=base.command,
            log=base.log,
            ready=self._envoy_ready,
            prepare=base.prepare,
            drain=self._drain_envoy,
            grace=base.grace,
        )

    async def _envoy_ready(self, pid: int) -> bool:
        """Whether Envoy has its first whole configuration; note its pid for `headrace top` then."""
        admin = admin_address(self._run_dir)
        try:
            page = await fetch(admin, "/ready")
        except HttpError:
            return False
        if page.status != 200:
            return False
        runfile.write_json(self._run_dir / f"{ENVOY_PROCESS}.json", RunFile(ENVOY_PROCESS, pid, admin))
        return True

    async def _drain_envoy(self) -> None:
        """Refuse new connections, tell the old ones to go, and wait until no call is in flight."""
        admin = admin_address(self._run_dir)
        with contextlib.suppress(HttpError, TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await fetch(admin, "/healthcheck/fail", "POST")
                await fetch(admin, "/drain_listeners?inboundonly", "POST")
                while True:
                    page = await fetch(admin, "/stats?filter=^http\\.edge\\.downstream_rq_active$")
                    if not sum(int(line.rpartition(b":")[2]) for line in page.body.splitlines() if b":" in line):
                        break
                    await asyncio.sleep(_POLL)
