"""How many cores this process may use."""

import math
import os
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores that the CPU affinity and the cgroup quota leave to this process, at least 1.

    A container that may use one core of a large host sees all of them, and a thread per core would spend its time waiting for
    the quota. A quota of 1.5 cores counts as 2.

    Args:
        root: Where /proc and /sys are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """Returns the quotas of the cgroup of this process and of all above it, in cores (cgroup v2: cpu.max; v1: cpu.cfs_*)."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / name for name in ("cpu", controllers)]
        else:
            continue
        # in a container, the path is the host's, or /, and the limit is in the top folder
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            quotas += [_quota(mount.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
    return [quota for quota in quotas if quota is not None]


def _quota(folder: Path) -> float | None:
    """Returns the quota of one cgroup in cores; None if it has none."""
    limit = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu.cfs_quota_us").strip(),
        _read(folder / "cpu.cfs_period_us").strip(),
    ]
    try:
        quota, period = float(limit[0]), float(limit[1])
    except (ValueError, IndexError):  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
