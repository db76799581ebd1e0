"""How much memory the process may still take, from Linux; elsewhere nobody knows, and nothing is refused."""

import math
import re
from pathlib import Path
from typing import Final

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def available(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> float:
    """Bytes that the machine has and that the process's control group (version 2) leaves; infinite when not known."""
    machine = _field(_read(meminfo), r"MemAvailable:\s+(\d+) kB") * 1024
    limit = _field(_read(cgroup / "memory.max"), r"(\d+)")
    used = _field(_read(cgroup / "memory.current"), r"(\d+)")
    if math.isinf(limit) or math.isinf(used):
        return machine
    # Files that were read and can be read again are no use of memory.
    cache = _field(_read(cgroup / "memory.stat"), r"inactive_file (\d+)")
    return min(machine, max(0.0, limit - used + (0.0 if math.isinf(cache) else cache)))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _field(text: str, pattern: str) -> float:
    match = re.search(pattern, text)
    return float(match[1]) if match else math.inf
