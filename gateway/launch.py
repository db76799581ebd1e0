"""Becomes another program, which then cannot outlive the process that started it.

Run by path with a bare interpreter, so it imports only the standard library:
`python -I -S launch.py PARENT PROGRAM ...`. A `preexec_fn` would do the same without the interpreter's 15 ms, but makes
`subprocess` fork, and a fork of a process in which gRPC runs threads may die before it becomes anything.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel to kill this process when its parent ends, and execute the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before the line above.
        sys.exit(1)
    try:
        os.execvp(program[0], program)  # noqa: S606  # Becoming it is the purpose.
    except OSError as error:
        sys.exit(f"error: cannot run {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
