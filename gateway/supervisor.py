"""The supervisor of a mesh's processes: start, restart with back-off, report, and leave nothing behind."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gateway import child, warden
from gateway.child import Backoff, ChildSpec, StartError

_POLL = 0.05
"""Seconds between two looks at whether a starting process serves."""


class _Supervised:
    """One process across its restarts."""

    def __init__(self, spec: ChildSpec, supervisor: "Supervisor") -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = asyncio.Event()
        self.stopping = False
        self._supervisor = supervisor
        self._served_once = False

    async def run(self) -> None:
        """Keep the process running until `stop`; raise StartError when it ends before it ever served."""
        delay = 0.0
        while not self.stopping:
            started = time.monotonic()
            status = await self._run_once()
            if self.stopping:
                return
            if not self._served_once:
                raise StartError(self._why(status))
            delay = self._supervisor.backoff.after(delay, time.monotonic() - started)
            self._supervisor.report(f"{self.spec.name} {_ended(status)}; restarting in {delay:g} s")
            await asyncio.sleep(delay)

    async def _run_once(self) -> int:
        self.spec.prepare()
        self.process = process = child.spawn(self.spec)
        self._supervisor.watch(process.pid)
        readiness = asyncio.create_task(self._wait_ready(process.pid))
        try:
            return await child.wait_for(process)
        finally:
            readiness.cancel()
            self.ready.clear()
            # Its own children, should it have left some: they are in its group.
            child.kill_group(process.pid)
            self._supervisor.unwatch(process.pid)

    async def _wait_ready(self, pid: int) -> None:
        while True:
            if await self.spec.ready(pid):
                break
            await asyncio.sleep(_POLL)
        if self._served_once:
            self._supervisor.report(f"{self.spec.name} is back")
        self._served_once = True
        self.ready.set()

    async def stop(self, task: asyncio.Task[None]) -> None:
        """Drain, then SIGTERM, then SIGKILL after the grace; returns when the process is gone."""
        self.stopping = True
        process = self.process
        if process is None or process.poll() is not None:
            task.cancel()  # it waits for its next restart
        else:
            if self.spec.drain is not None and self.ready.is_set():
                await self.spec.drain()
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        done, _ = await asyncio.wait([task], timeout=self.spec.grace)
        if not done and process is not None:
            self._supervisor.report(f"{self.spec.name} did not end within {self.spec.grace:g} s; killing it")
            child.kill_group(process.pid)
            await asyncio.wait([task])

    def kill(self) -> None:
        """SIGKILL, now."""
        self.stopping = True
        if self.process is not None and self.process.poll() is None:
            child.kill_group(self.process.pid)

    def _why(self, status: int) -> str:
        words = child.last_words(self.spec.log) or f"it {_ended(status)} without a word"
        return f"{self.spec.name} could not start: {words} (log: {self.spec.log})"


class Supervisor:
    """Runs processes until told to stop. Everything it starts ends with it, even when it is killed.

    `run_dir` is removed at the end. `report` receives a line for people whenever a process dies or comes back.
    """

    def __init__(self, run_dir: Path, report: Callable[[str], None], backoff: Backoff | None = None) -> None:
        self.run_dir = run_dir
        self.report = report
        self.backoff = backoff or Backoff()
        self._children: dict[str, _Supervised] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(warden.__file__)), str(run_dir)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def start(self, specs: Iterable[ChildSpec]) -> None:
        """Start processes; the first that ends before it ever served makes `failed` raise StartError."""
        for spec in specs:
            supervised = _Supervised(spec, self)
            self._children[spec.name] = supervised
            task = asyncio.create_task(supervised.run(), name=f"supervise-{spec.name}")
            task.add_done_callback(self._note_end)
            self._tasks[spec.name] = task

    async def ready(self, names: Sequence[str]) -> None:
        """Wait until all of `names` serve; raise StartError as soon as one cannot."""
        waiting = asyncio.create_task(self._all_ready(names))
        try:
            await asyncio.wait([waiting, self._failed], return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
        finally:
            waiting.cancel()

    async def _all_ready(self, names: Sequence[str]) -> None:
        for name in names:
            await self._children[name].ready.wait()

    def waiting_for(self) -> list[str]:
        """Return the names of the processes that do not serve at this moment."""
        return [name for name, supervised in self._children.items() if not supervised.ready.is_set()]

    async def failed(self) -> None:
        """Wait for a process that cannot start, for ever if all can; raises its StartError."""
        await asyncio.shield(self._failed)

    async def stop(self, stages: Sequence[Sequence[str]]) -> None:
        """Stop processes stage by stage, those of one stage together; names that never started are skipped."""
        for stage in stages:
            names = [name for name in stage if name in self._children]
            await asyncio.gather(*(self._children[name].stop(self._tasks[name]) for name in names))

    def kill(self) -> None:
        """SIGKILL every process that is left, now."""
        for supervised in self._children.values():
            supervised.kill()

    async def close(self) -> None:
        """Kill what is left and dismiss the warden, which removes nothing then."""
        self.kill()
        for task in self._tasks.values():
            if not task.done() and self._waits(task):
                task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._failed.done():
            self._failed.exception()
        self._tell(".")
        if self._warden.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._warden.stdin.close()
        await child.wait_for(self._warden)

    def watch(self, pid: int) -> None:
        """Tell the warden of a process group that has begun."""
        self._tell(f"+{pid}")

    def unwatch(self, pid: int) -> None:
        """Tell the warden that a process group is gone."""
        self._tell(f"-{pid}")

    def _waits(self, task: asyncio.Task[None]) -> bool:
        """Whether the task sleeps before a restart, with no process to wait for."""
        process = self._children[task.get_name().removeprefix("supervise-")].process
        return process is None or process.returncode is not None

    def _tell(self, line: str) -> None:
        if self._warden.stdin is not None and self._warden.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._warden.stdin.write(f"{line}\n".encode())
                self._warden.stdin.flush()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)


def _ended(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
