"""A real mesh for tests: `headrace up` as a user starts it, on a free port, in a folder of its own.

    with running_mesh(tmp_path, models=MODELS) as mesh:
        channel = grpc.insecure_channel(mesh.gateway)

At the end it is told to stop as by Ctrl-C, and that nothing of it is left is asserted. `start_mesh` is the same without
the ceremony, for tests that kill it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.zoo import registry
from engines.zoo.artifacts import Artifacts, default_cache
from engines.zoo.pull import pull

ROOT = Path(__file__).parents[1]
PYTHONPATH = os.pathsep.join((str(ROOT), str(ROOT / "clients/python")))
START_SECONDS = 60.0
STOP_SECONDS = 10.0
_KEEP_SECONDS = 86_400.0


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until the condition holds; its value, or AssertionError saying `what` did not happen."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return value


@dataclass(slots=True)
class RunningMesh:
    """A mesh that serves. `gateway`: "host:port"."""

    folder: Path
    supervisor: subprocess.Popen[str]
    gateway: str
    run_dir: Path
    metrics: str

    def pids(self) -> dict[str, int]:
        """Process name -> pid of all that serve now, the supervisor's children."""
        found = {}
        for path in self.run_dir.glob("*.json"):
            with contextlib.suppress(json.JSONDecodeError, FileNotFoundError):
                document = json.loads(path.read_text())
                if "pid" in document:
                    found[document["name"]] = document["pid"]
        return found

    def descendants(self) -> list[int]:
        """Every process below the supervisor, however deep."""
        parents: dict[int, int] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                parents[int(stat.parent.name)] = int(fields[1])
        below, todo = [], [self.supervisor.pid]
        while todo:
            parent = todo.pop()
            children = [pid for pid, of in parents.items() if of == parent]
            below += children
            todo += children
        return below

    def log(self, name: str) -> str:
        """What a process has logged."""
        return (self.folder / ".headrace/logs" / f"{name}.log").read_text()

    def command(self, *arguments: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run `headrace ...` in the mesh's folder."""
        return headrace(*arguments, folder=self.folder, timeout=timeout)

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Stop it with a signal, assert that nothing is left within 10 s, return the seconds it took."""
        pids = [self.supervisor.pid, *self.descendants()]
        started = time.monotonic()
        if self.supervisor.poll() is None:
            self.supervisor.send_signal(number)
        try:
            self.supervisor.wait(STOP_SECONDS)
            wait_until(lambda: not any(map(alive, pids)), 2.0, "every process of the mesh has ended")
            wait_until(lambda: not self.run_dir.exists(), 2.0, "the run folder is removed")
        finally:
            for pid in filter(alive, pids):
                os.kill(pid, signal.SIGKILL)
            for stream in (self.supervisor.stdout, self.supervisor.stderr):
                if stream is not None:
                    stream.close()
        return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class MeshPlan:
    """What to start. `settings`: headrace.toml's sections over the defaults below, e.g. {"gateway": {...}}."""

    models: Path | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def headrace(*arguments: str, folder: Path, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def write_settings(folder: Path, plan: MeshPlan) -> None:
    """Write headrace.toml: any free port, nothing to pull, one core, and what the plan says."""
    sections: dict[str, dict[str, Any]] = {
        "gateway": {"listen": "127.0.0.1:0"},
        "models": {"directory": "models" if plan.models is None else str(plan.models), "pull": []},
        "services.vision": {"cores": 1},
        "services.vision.defaults": {},
    }
    for name, values in plan.settings.items():
        sections.setdefault(name, {}).update(values)
    lines = [
        line
        for name, values in sections.items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    ]
    (folder / "headrace.toml").write_text("\n".join(lines) + "\n")


def start_mesh(folder: Path, plan: MeshPlan) -> RunningMesh:
    """Start a mesh in `folder` and wait until it serves; AssertionError with its words when it does not."""
    write_settings(folder, plan)
    errors = folder / "up.stderr"
    with errors.open("w") as stderr:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": PYTHONPATH, **plan.environment},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    state = folder / ".headrace/mesh.json"
    try:
        wait_until(lambda: supervisor.poll() is not None or state.exists(), START_SECONDS, "the mesh is ready")
        assert supervisor.poll() is None, f"headrace up ended: {errors.read_text()}"
    except AssertionError:
        supervisor.kill()
        supervisor.wait()
        raise
    document = json.loads(state.read_text())
    return RunningMesh(folder, supervisor, document["gateway"], Path(document["run_dir"]), document["metrics"])


@contextlib.contextmanager
def running_mesh(
    folder: Path, models: Path | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[RunningMesh]:
    """Have a mesh within the block; at its end it stops within 10 s and leaves no process and no run folder."""
    mesh = start_mesh(folder, MeshPlan(models, settings or {}))
    try:
        yield mesh
    finally:
        mesh.stop()


def zoo_models(directory: Path, names: Iterable[str] = registry.NAMES) -> Path:
    """Put models of the zoo into `directory`, pulled as a user pulls them; return it.

    Some train for a minute, so what was pulled is kept beside the user's downloads until a source of the zoo changes.
    """
    kept = default_cache().parent / "test-models" / _sources_digest()
    for name in names:
        pull(registry.recipe(name), kept, Artifacts(default_cache()))
        shutil.copytree(kept / name, directory / name, copy_function=_link)
    for old in kept.parent.iterdir():
        if old != kept and time.time() - old.stat().st_mtime > _KEEP_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    return directory


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for folder in ("engines/zoo", "engines/recommender"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _link(source: str, target: str) -> None:
    """Both are read only ever: a second name takes no room, where the file system can give one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def double_model(directory: Path) -> Path:
    """Put the model `double` into a repository at `directory`, from the zoo and without a network; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    cache = directory.parent / "cache"
    pull(registry.recipe("double"), directory, Artifacts(cache, None))
    shutil.rmtree(cache, ignore_errors=True)
    return directory
