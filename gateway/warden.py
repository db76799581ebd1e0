"""The last process standing: when the supervisor dies without a goodbye, it ends what the supervisor had started.

Started by path with a bare interpreter, so it imports only the standard library. It reads one command a line from
standard input ("+PID" a process group began, "-PID" it is gone, "." all is in order) and acts at the end of input,
which the kernel delivers however the supervisor died. Direct children die by PR_SET_PDEATHSIG already; this catches
theirs, and removes the sockets.
"""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterable


def watch(lines: Iterable[str], run_dir: str) -> None:
    """Follow the commands in `lines` to their end, then kill the groups that are left and remove `run_dir`."""
    groups: set[int] = set()
    for line in lines:
        mark, number = line[0], line[1:].strip()
        if mark == ".":
            return
        (groups.add if mark == "+" else groups.discard)(int(number))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(run_dir, ignore_errors=True)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watch(sys.stdin, sys.argv[1])
