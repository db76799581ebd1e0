"""One supervised process: started so that it cannot outlive its parent, restarted when it dies, stopped politely."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run and how to tell that it works.

    `ready`: answers whether the process with this pid serves. `prepare`: removes what an earlier run left behind.
    `drain`: asked before SIGTERM, to finish work in flight. `grace`: seconds from SIGTERM to SIGKILL. `log`: the file
    that receives its output.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    ready: Callable[[int], Awaitable[bool]]
    prepare: Callable[[], None] = lambda: None
    drain: Callable[[], Awaitable[None]] | None = None
    grace: float = 5.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before each restart: doubling from `first` to `limit`, afresh after `healthy` seconds alive."""

    first: float = 0.1
    limit: float = 5.0
    healthy: float = 10.0

    def after(self, previous: float, alive: float) -> float:
        """Return the next wait, given the `previous` one (0 = none) and how long the process was `alive`."""
        if previous == 0.0 or alive >= self.healthy:
            return self.first
        return min(previous * 2.0, self.limit)


class StartError(Exception):
    """A process ended before it ever served; the text says why, from its own last words."""


def bound(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that runs `command` as a child which cannot outlive this process."""
    return (sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command)


def spawn(spec: ChildSpec) -> subprocess.Popen[bytes]:
    """Start the process in a group of its own (a terminal's Ctrl-C reaches only the supervisor), output to its log."""
    if shutil.which(spec.command[0]) is None:
        raise StartError(f"{spec.name}: cannot run {spec.command[0]}: there is no such program")
    with spec.log.open("ab") as log:
        return subprocess.Popen(
            bound(spec.command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **spec.environment},
            start_new_session=True,
        )


async def wait_for(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status once the process has ended (negative: the signal that ended it)."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to what is left of the process group that `pid` began."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def last_words(log: Path) -> str:
    """Return the line of a log that best says why its process ended, or "" when it said nothing."""
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return ""
    for line in reversed(lines[-50:]):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
        if (message := _logged_error(line)) is not None:
            return message
    return lines[-1].strip() if lines else ""


def _logged_error(line: str) -> str | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    if str(record.get("level", "")).lower() not in {"error", "critical"}:
        return None
    return str(record.get("message", "")) or None
