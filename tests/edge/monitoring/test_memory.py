"""Memory of freed images returns to the system, even next to one that is kept, and threads share few heaps."""

import platform
import subprocess
import sys

import pytest
from helpers import child_environment

IMAGES = """
import sys
from pathlib import Path
import numpy as np
from ppe_edge.monitoring.memory import limit_heaps

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "back":
    limit_heaps()
first = np.ones(1_200_000, np.uint8)
del first  # from now on, glibc serves images of this size from its heap
before = resident()
images = [np.ones(1_200_000, np.uint8) for _ in range(100)]
last = images.pop()
del images
print((resident() - before) / 1e6)
"""

THREADS = """
import ctypes, re, sys, threading
from ppe_edge.monitoring.memory import limit_heaps

if sys.argv[1] == "few":
    limit_heaps()
barrier = threading.Barrier(9)

def work():
    kept = [bytes(1000) for _ in range(100)]
    barrier.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
barrier.wait()
libc = ctypes.CDLL("libc.so.6")
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="specific to glibc")


def test_limit_heaps_returns_memory_to_system() -> None:
    def kept(how: str) -> float:
        command = [sys.executable, "-c", IMAGES, how]
        environment = child_environment(MALLOC_ARENA_MAX="1")
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert kept("back") < 10 < 100 < kept("as it is")


def test_limit_heaps_threads_share_two_heaps() -> None:
    def heaps(how: str) -> int:
        command = [sys.executable, "-c", THREADS, how]
        environment = child_environment()
        environment.pop("MALLOC_ARENA_MAX", None)  # the number of heaps is under test
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.count("<heap nr=")

    assert heaps("few") == 2 < heaps("many")
