"""A real disk that is small: a tmpfs in a mount namespace of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import child_environment


def with_small_disk(folder: Path, size: str, *, is_full: bool = False) -> list[str]:
    """Returns the beginning of a command for which a folder is a small disk. Skips the test where that is impossible.

    Args:
        folder: The folder; empty.
        size: Such as 2m.
        is_full: Whether a file `filler` takes all of the room.
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "none", str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*namespace, *mount], capture_output=True).returncode:
        pytest.skip("needs unshare and a kernel that lets users mount a tmpfs in a namespace of their own")
    fill = 'head -c 2000000 /dev/zero > "$0/filler" 2> /dev/null; ' if is_full else ""
    return [*namespace, "sh", "-c", f'mount -t tmpfs -o size={size} none "$0" && {{ {fill}exec "$@"; }}', str(folder)]


def run_on_small_disk(folder: Path, size: str, script: str) -> dict[str, Any]:
    """Runs a script with a small disk at the folder, its argument; returns the JSON that it prints, and its errors as `log`."""
    command = [*with_small_disk(folder, size), sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout), "log": done.stderr}
