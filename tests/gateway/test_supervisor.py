import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.child import Backoff, ChildSpec, StartError, last_words
from gateway.supervisor import Supervisor
from tests.mesh import alive

SLEEPER = "import time; time.sleep(600)"
WITH_GRANDCHILD = """
import pathlib, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(grandchild.pid))
time.sleep(600)
"""


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        await asyncio.sleep(0.01)


async def at_once(pid: int) -> bool:
    return True


async def never(pid: int) -> bool:
    return False


class Harness:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.supervisor = Supervisor(folder / "run", self.lines.append, Backoff(first=0.02, limit=0.1, healthy=5.0))

    def spec(self, name: str, code: str, *arguments: str, **changes: object) -> ChildSpec:
        command = (sys.executable, "-c", textwrap.dedent(code), *arguments)
        return ChildSpec(name, command, self.folder / f"{name}.log", **{"ready": at_once, **changes})

    def pid(self, name: str) -> int:
        process = self.supervisor._children[name].process
        assert process is not None
        return process.pid


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path)
    yield made
    await made.supervisor.close()


async def test_starts_reports_ready_and_stops_politely(harness: Harness) -> None:
    code = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
    print("here", flush=True)
    time.sleep(600)
    """
    log = harness.folder / "a.log"

    async def has_spoken(pid: int) -> bool:
        return log.exists() and "here" in log.read_text()

    harness.supervisor.start([harness.spec("a", code, ready=has_spoken)])
    await harness.supervisor.ready(["a"])
    pid = harness.pid("a")
    await harness.supervisor.stop([["absent"], ["a"]])
    assert not alive(pid)
    assert log.read_text().split() == ["here", "bye"]
    assert harness.lines == []


async def test_stages_are_drained_in_order(harness: Harness) -> None:
    order: list[str] = []

    def drain(name: str) -> Callable[[], object]:
        async def note() -> None:
            order.append(name)

        return note

    harness.supervisor.start([harness.spec(name, SLEEPER, drain=drain(name)) for name in "abc"])
    await harness.supervisor.ready(["a", "b", "c"])
    await harness.supervisor.stop([["c"], ["a"], ["b"]])
    assert order == ["c", "a", "b"]


async def test_a_process_deaf_to_sigterm_is_killed_after_its_grace(harness: Harness) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    log = harness.folder / "a.log"

    async def is_deaf(pid: int) -> bool:
        return log.exists() and "deaf" in log.read_text()

    harness.supervisor.start([harness.spec("a", code, ready=is_deaf, grace=0.1)])
    await harness.supervisor.ready(["a"])
    pid = harness.pid("a")
    await harness.supervisor.stop([["a"]])
    assert not alive(pid)
    assert harness.lines == ["a did not end within 0.1 s; killing it"]


async def test_restarts_what_dies_and_says_so(harness: Harness) -> None:
    harness.supervisor.start([harness.spec("a", SLEEPER)])
    await harness.supervisor.ready(["a"])
    first = harness.pid("a")
    os.kill(first, signal.SIGKILL)
    await until(lambda: len(harness.lines) == 2)
    assert harness.lines == ["a was ended by signal 9; restarting in 0.02 s", "a is back"]
    assert harness.pid("a") != first


async def test_backs_off_while_it_keeps_dying(harness: Harness) -> None:
    marker = harness.folder / "served"

    async def served_at_first(pid: int) -> bool:
        if marker.exists():
            return False
        marker.touch()
        return True

    harness.supervisor.start([harness.spec("a", "import time; time.sleep(0.2)", ready=served_at_first)])
    await until(lambda: len(harness.lines) == 4)
    assert [line.split()[-2] for line in harness.lines] == ["0.02", "0.04", "0.08", "0.1"]


def test_back_off_starts_afresh_after_a_healthy_life() -> None:
    backoff = Backoff()
    assert backoff.after(0.0, alive=0.1) == 0.1
    assert backoff.after(0.1, alive=0.1) == 0.2
    assert backoff.after(3.2, alive=0.1) == 5.0
    assert backoff.after(5.0, alive=11.0) == 0.1


async def test_what_never_served_ends_the_start_with_its_last_words(harness: Harness) -> None:
    code = "import sys; sys.exit('error: models/x/model.toml: nmae: unknown key, did you mean \\'name\\'?')"
    harness.supervisor.start([harness.spec("good", SLEEPER, ready=never), harness.spec("bad", code, ready=never)])
    with pytest.raises(StartError, match=r"bad could not start: models/x/model.toml: nmae: unknown key"):
        await harness.supervisor.ready(["good", "bad"])


async def test_a_missing_program_is_named(harness: Harness) -> None:
    spec = ChildSpec("envoy", ("/nowhere/envoy",), harness.folder / "envoy.log", ready=never)
    harness.supervisor.start([spec])
    with pytest.raises(StartError, match="envoy: cannot run /nowhere/envoy: there is no such program"):
        await harness.supervisor.ready(["envoy"])


async def test_grandchildren_of_a_dead_child_end_too(harness: Harness) -> None:
    note = harness.folder / "grandchild"
    harness.supervisor.start([harness.spec("a", WITH_GRANDCHILD, str(note))])
    await until(lambda: note.exists() and note.read_text() != "")
    grandchild = int(note.read_text())
    os.kill(harness.pid("a"), signal.SIGKILL)
    await until(lambda: not alive(grandchild))


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from gateway.child import ChildSpec
from gateway.supervisor import Supervisor

async def at_once(pid): return True

async def main():
    folder = Path(sys.argv[1])
    supervisor = Supervisor(folder / "run", print)
    code = Path(sys.argv[2]).read_text()
    command = (sys.executable, "-c", code, str(folder / "grandchild"))
    supervisor.start([ChildSpec("a", command, folder / "a.log", at_once)])
    await supervisor.ready(["a"])
    print(supervisor._children["a"].process.pid, supervisor._warden.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_killed_supervisor_leaves_no_process_and_no_run_dir(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "code.py").write_text(WITH_GRANDCHILD)
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), str(tmp_path / "code.py")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(  # noqa: ASYNC220  # it is waited for in the loop's own time
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    ) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(word) for word in supervisor.stdout.readline().split()]
        note = tmp_path / "grandchild"
        await until(lambda: note.exists() and note.read_text() != "")
        pids.append(int(note.read_text()))
        assert all(alive(pid) for pid in pids)
        supervisor.send_signal(number)
    await until(lambda: not any(alive(pid) for pid in pids))
    assert not (tmp_path / "run").exists()


def test_last_words_prefer_what_was_meant_for_people(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log) == ""
    log.write_text("one\n\ntwo\n")
    assert last_words(log) == "two"
    log.write_text('{"level": "error", "message": "port in use"}\n{"level": "info", "message": "bye"}\n')
    assert last_words(log) == "port in use"
    log.write_text("error: what to do\nTraceback\n")
    assert last_words(log) == "what to do"
