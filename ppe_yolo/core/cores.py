"""The number of processor cores that this process may use."""

import math
import os
from pathlib import Path


def available_cores(system: Path = Path("/")) -> int:
    """Number of cores, limited by the affinity of this process and by the quota of its container (cgroup v1 or v2).

    Args:
        system: The root of the file system.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(system)]))


def _quotas(system: Path) -> list[int]:
    """Limits of the control groups of this process, in cores, rounded up."""
    base = system / "sys/fs/cgroup"
    limits = []
    for group in _groups(system):
        text = _read(base / group / "cpu.max").split()
        if len(text) == 2 and text[0] != "max":
            limits.append(math.ceil(int(text[0]) / int(text[1])))
    quota, period = (_read(base / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if quota and period and int(quota) > 0:
        limits.append(math.ceil(int(quota) / int(period)))
    return limits


def _groups(system: Path) -> list[str]:
    """The control group of this process and those above it, relative to the root of the hierarchy."""
    for line in _read(system / "proc/self/cgroup").splitlines():
        if line.startswith("0::/"):
            path = Path(line.removeprefix("0::/"))
            return [str(path), *(str(parent) for parent in path.parents)]
    return ["."]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
