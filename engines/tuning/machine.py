"""Which machine this is, as far as the speed of engines follows from it."""

import os
import platform
import time
from pathlib import Path
from typing import Final

import onnxruntime as ort

_CPU_INFO: Final = Path("/proc/cpuinfo")
_STAT: Final = Path("/proc/stat")
#: CPUs that multiply bytes and add them up to 32 bits in one instruction; others may saturate at 16 bits in between.
_BYTE_PRODUCTS: Final = frozenset({"avx512_vnni", "avx_vnni", "avx512vnni", "i8mm"})


def fingerprint() -> str:
    """The CPU's model, how many of its cores this process may use, and the runtime: what a measurement is valid for."""
    model = _cpu_info("model name") or platform.processor() or platform.machine()
    return f"{model}, {cores()} cores, ONNX Runtime {ort.__version__}"


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Not on Linux.
        return os.cpu_count() or 1


def busy() -> tuple[float, float]:
    """Seconds of CPU that all processes of the machine together, and this one, have taken; the first 0 if unknown."""
    own = time.process_time()
    try:
        words = _STAT.read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0, own
    ticks = [int(word) for word in words]
    idle = sum(ticks[3:5])
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), own


def multiplies_bytes() -> bool:
    """Whether 8-bit products are summed up without saturation (VNNI and the like)."""
    features = _cpu_info("flags") or _cpu_info("Features")
    return bool(_BYTE_PRODUCTS & set(features.split()))


def _cpu_info(key: str) -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key), ""
    )
