"""Small JSON files by which the processes of a mesh find each other; always written whole, by rename."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

MESH_FILE = "mesh.json"
STATUS_FILE = "status.json"


class MeshBusyError(Exception):
    """Another supervisor owns this state directory; the text says which and what to do."""


class NoMeshError(Exception):
    """No mesh runs from this state directory; the text says what to do."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """`<run_dir>/<name>.json`, written by a process once it serves.

    `listen`: its gRPC address; `metrics`: "http://host:port/metrics" or "" when it has no page.
    """

    name: str
    pid: int
    listen: str = ""
    metrics: str = ""


@dataclass(frozen=True, slots=True)
class MeshFile:
    """`<state_dir>/mesh.json`: how to reach the running mesh. `envoy_admin` is "unix:/path" or "host:port"."""

    pid: int
    gateway: str
    run_dir: str
    envoy_admin: str
    metrics: str


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One replica as the control process sees it.

    `models` maps each of its models to READY, LOADING or UNAVAILABLE; `problem` is "" when all is well.
    """

    name: str
    endpoint: str
    ready: bool
    models: dict[str, str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """`<run_dir>/status.json`, kept current by the control process.

    `configured`: Envoy has accepted a configuration; `rejected`: why it refused the newest one, or "".
    """

    ready: bool
    configured: bool
    rejected: str
    services: tuple[ServiceStatus, ...]
    sample_ratio: float = 1.0

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Self:
        """Read what `write_json` made of one."""
        services = tuple(ServiceStatus(**service) for service in document.pop("services"))
        return cls(**document, services=services)


def write_json(path: Path, value: Any) -> None:
    """Write the dataclass `value` to `path` in one step: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(value)) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_run_file(run_dir: Path, name: str) -> RunFile | None:
    """Return the run file of process `name`, or None while it has none."""
    document = _read(run_dir / f"{name}.json")
    if document is None or not {"name", "pid"} <= document.keys():
        return None
    return RunFile(**{key: document[key] for key in ("name", "pid", "listen", "metrics") if key in document})


def read_run_files(run_dir: Path) -> list[RunFile]:
    """Return every process's run file, by name."""
    names = sorted(path.stem for path in run_dir.glob("*.json") if path.name != STATUS_FILE and path.name[0] != ".")
    return [found for name in names if (found := read_run_file(run_dir, name)) is not None]


def read_status(run_dir: Path) -> MeshStatus | None:
    """Return what the control process last wrote, or None before it did."""
    document = _read(run_dir / STATUS_FILE)
    return None if document is None else MeshStatus.parse(document)


def find_mesh(state_dir: Path) -> MeshFile:
    """Return the mesh running from `state_dir`; raise NoMeshError when there is none (a dead one's file is ignored)."""
    document = _read(state_dir / MESH_FILE)
    if document is None or not _held(state_dir):
        raise NoMeshError(f"no mesh is running from {state_dir}; start one with `headrace up`")
    return MeshFile(**document)


@contextlib.contextmanager
def claim(state_dir: Path) -> Iterator[None]:
    """Own `state_dir` until the block ends; raise MeshBusyError when a running supervisor does. Freed by any death."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read(state_dir / MESH_FILE)
            who = f"process {owner['pid']}, gateway {owner['gateway']}" if owner else "still starting"
            raise MeshBusyError(
                f"a mesh already runs from {state_dir} ({who}); stop it, or start this one from another folder"
            ) from None
        (state_dir / MESH_FILE).unlink(missing_ok=True)
        try:
            yield
        finally:
            (state_dir / MESH_FILE).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return document if isinstance(document, dict) else None


def _held(state_dir: Path) -> bool:
    """Whether a supervisor holds the lock; a pid alone could belong to anyone by now."""
    try:
        with (state_dir / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
