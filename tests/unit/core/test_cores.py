"""Number of cores, with a drawn tree of /proc and /sys."""

import os
from pathlib import Path

import pytest

from ppe_yolo.core.cores import available_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def draw(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


GROUP, SYS = "proc/self/cgroup", "sys/fs/cgroup"
TOP = "0::/\n"
V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({GROUP: TOP, f"{SYS}/cpu.max": "max 100000\n"}, 8),
        ({GROUP: TOP, f"{SYS}/cpu.max": "100000 100000\n"}, 1),
        ({GROUP: TOP, f"{SYS}/cpu.max": "150000 100000\n"}, 2),
        ({GROUP: TOP, f"{SYS}/cpu.max": "10000 100000\n"}, 1),
        ({GROUP: TOP, f"{SYS}/cpu.max": "9900000 100000\n"}, 8),
        ({GROUP: "0::/a/b\n", f"{SYS}/a/cpu.max": "300000 100000\n", f"{SYS}/a/b/cpu.max": "max 1"}, 3),
        ({GROUP: V1, f"{SYS}/cpu/cpu.cfs_quota_us": "200000", f"{SYS}/cpu/cpu.cfs_period_us": "100000"}, 2),
        ({GROUP: V1, f"{SYS}/cpu/cpu.cfs_quota_us": "-1", f"{SYS}/cpu/cpu.cfs_period_us": "100000"}, 8),
        ({GROUP: TOP, f"{SYS}/cpu.max": "corrupt"}, 8),
    ],
)  # fmt: skip
def test_available_cores_follow_cgroup_quota(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert available_cores(draw(tmp_path, files)) == cores


def test_available_cores_follow_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert available_cores(tmp_path) == 1
