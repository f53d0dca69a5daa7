"""Memory of freed images returns to the system, even next to one that is kept."""

import platform
import subprocess
import sys

import pytest
from helpers import child_environment

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from ppe_edge.monitoring.memory import return_freed_images

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "back":
    return_freed_images()
first = np.ones(1_200_000, np.uint8)
del first  # from now on, glibc serves images of this size from its heap
before = resident()
images = [np.ones(1_200_000, np.uint8) for _ in range(100)]
last = images.pop()
del images
print((resident() - before) / 1e6)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="specific to glibc")
def test_return_freed_images_returns_memory_to_system() -> None:
    def kept(how: str) -> float:
        command = [sys.executable, "-c", PROGRAM, how]
        environment = child_environment(MALLOC_ARENA_MAX="1")
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert kept("back") < 10 < 100 < kept("as it is")
