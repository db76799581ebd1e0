"""Fetching the models that a mesh still lacks, behind it: one after the other, at low priority, never in its way."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from gateway import child
from gateway.supervisor import Supervisor
from services.chassis.settings import Settings

_NICENESS = 10
_ERROR = "error: "
_NOTICE = ": note: "


def missing_models(settings: Settings) -> tuple[str, ...]:
    """Return the models of `models.pull` that are not in the repository, in that order."""
    return tuple(name for name in settings.models.pull if not (settings.models_dir / name / "model.toml").is_file())


class Fetch:
    """Pulls models of the zoo, each in a process of its own: what converting takes is given back, and may fail alone.

    `line` receives a line for people when a model has come or cannot be fetched, `progress` what is being done at this
    moment ("" at the end). `log`: the file that keeps what the processes say.
    """

    def __init__(self, settings: Settings, line: Callable[[str], None], progress: Callable[[str], None]) -> None:
        self._directory = settings.models_dir
        self._log = settings.state_dir / "logs" / "fetch.log"
        self._line = line
        self._progress = progress
        self._notices: set[str] = set()

    async def run(self, names: Sequence[str], supervisor: Supervisor) -> None:
        """Pull every model of `names`; one that cannot be pulled keeps no other from being so."""
        failed: dict[str, str] = {}
        for number, name in enumerate(names, 1):
            problem = await self._pull(name, f"{number} of {len(names)}", supervisor)
            if problem:
                failed[name] = problem
                if len(failed) == 1:
                    self._line(_failure([name], problem))
            else:
                self._line(f"fetched {name} ({number} of {len(names)})")
        self._progress("")
        if len(failed) > 1:
            self._line(_failure(list(failed), next(iter(failed.values()))))

    async def _pull(self, name: str, count: str, supervisor: Supervisor) -> str:
        """Pull one model; return why that did not work, or ""."""
        command = (sys.executable, "-P", "-m", "cli.main", "models", "pull", "--models", str(self._directory), name)
        process = await asyncio.create_subprocess_exec(
            *child.bound(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        supervisor.watch(process.pid)
        try:
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
            self._progress(f"fetching {name} ({count})")
            last = await self._follow(process, count)
            status = await process.wait()
        finally:
            # With it goes what it has started, however this ends.
            child.kill_group(process.pid)
            supervisor.unwatch(process.pid)
        if not status:
            return ""
        return last.removeprefix(_ERROR) or f"its process ended with status {status}"

    async def _follow(self, process: asyncio.subprocess.Process, count: str) -> str:
        """Show what the process says and keep it in the log; return its last line."""
        assert process.stderr is not None  # noqa: S101  # It was asked for.
        last = ""
        with self._log.open("a", encoding="utf-8") as log:
            while raw := await _line_of(process.stderr):
                last = raw.strip() or last
                log.write(f"{last}\n")
                log.flush()
                self._progress(f"{last} ({count})")
                self._notice(last)
        return last

    def _notice(self, said: str) -> None:
        """Pass on, once, what a pull says that people must know of a model: such as a licence against commerce."""
        notice = said.partition(_NOTICE)[2]
        if notice and notice not in self._notices:
            self._notices.add(notice)
            self._line(said)


async def _line_of(stream: asyncio.StreamReader) -> str:
    """Return the next line, "" at the end; one beyond the reader's limit is dropped in parts."""
    while True:
        try:
            return (await stream.readline()).decode(errors="replace")
        except ValueError:
            continue


def _failure(names: Sequence[str], problem: str) -> str:
    what = names[0] if len(names) == 1 else f"{len(names)} models ({', '.join(names)})"
    command = f"headrace models pull {' '.join(names)}"
    return f"could not fetch {what}: {problem}. The mesh serves without; try again by: {command}"
