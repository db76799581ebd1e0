"""Check the protos with buf, offline: style and comments, then compatibility with what was published before.

    python protos/lint.py                    lint, then compare with the last release, or else with main
    python protos/lint.py --against REF      compare with another git revision

Compatibility is judged against the newest `v*` tag that the working tree descends from, else origin/main, else main,
else HEAD. Outside of a git checkout, or where the revision has no protos, there is nothing to compare and that is said.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from google.api import annotations_pb2

PROTOS = Path(__file__).resolve().parent
GOOGLEAPIS = Path(annotations_pb2.__file__).parents[2]
IMPORTED = ("google/api/annotations.proto", "google/api/http.proto", "google/rpc/status.proto")
"""The google protos that ours import, directly or not; protobuf's own ones are part of buf."""


class LintError(Exception):
    """A tool or a revision that the checks need is missing."""


def assemble(source: Path, folder: Path) -> Path:
    """Copy the protos of `source` and the google protos they import into `folder`, ready for buf; returns `folder`."""
    for path in source.rglob("*.proto"):
        _copy(path, folder / path.relative_to(source))
    for name in IMPORTED:
        _copy(GOOGLEAPIS / name, folder / name)
    _copy(PROTOS / "buf.yaml", folder / "buf.yaml")
    return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def buf(*arguments: str) -> int:
    """Run buf, from the environment of this Python or else from the path; returns its exit status."""
    beside = Path(sys.executable).parent / "buf"
    command = str(beside) if beside.exists() else shutil.which("buf")
    if command is None:
        raise LintError("buf is not installed (package buf-bin)")
    return subprocess.run([command, *arguments], check=False).returncode


def _git(*arguments: str) -> bytes | None:
    """What git prints in the project's folder; None when it fails, as it does outside of a checkout."""
    command = shutil.which("git")
    if command is None:
        return None
    done = subprocess.run([command, "-C", str(PROTOS.parent), *arguments], check=False, capture_output=True)
    return done.stdout if done.returncode == 0 else None


def baseline() -> str | None:
    """The revision to be compatible with; None where there is no history."""
    tag = _git("describe", "--tags", "--abbrev=0", "--match", "v*")
    if tag:
        return tag.decode().strip()
    return next((name for name in ("origin/main", "main", "HEAD") if _git("rev-parse", "--verify", "-q", name)), None)


def extract(revision: str, folder: Path) -> bool:
    """Write the protos of a revision into `folder`; False when it has none."""
    archive = _git("archive", revision, PROTOS.name)
    if archive is None:
        return False
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return any((folder / PROTOS.name).rglob("*.proto"))


def check(against: str | None) -> int:
    """Lint, then compare; returns an exit status.

    Raises:
        LintError: buf is missing, or the revision that the caller named does not exist.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        current = assemble(PROTOS, root / "current")
        if (status := buf("lint", str(current))) != 0:
            return status
        revision = against or baseline()
        if revision is None:
            sys.stdout.write("lint: no git history here, so there is no older API to compare with\n")
            return 0
        if against and _git("rev-parse", "--verify", "-q", f"{against}^{{commit}}") is None:
            raise LintError(f"--against {against}: git knows no such revision")
        if not extract(revision, root / "archive"):
            sys.stdout.write(f"lint: {revision} has no protos, so there is no older API to compare with\n")
            return 0
        older = assemble(root / "archive" / PROTOS.name, root / "older")
        return buf("breaking", str(current), "--against", str(older))


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status is 0 when style and compatibility hold."""
    parser = argparse.ArgumentParser(description="Check the protos' style and compatibility with buf, offline.")
    parser.add_argument("--against", metavar="REF", help="git revision to compare with (default: last release or main)")
    try:
        return check(parser.parse_args(argv).against)
    except LintError as error:
        sys.stderr.write(f"lint: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
