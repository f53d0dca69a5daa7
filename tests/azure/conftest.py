"""A stand-in for `az` that has the limits of the real command."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Each call is recorded. `responses.json` maps the start of a command to exit code and output. As in azure-cli,
# download-batch rejects a destination that is not an existing folder (storage/_validators.py).
AZ = """#!{python}
import json, os, sys
from pathlib import Path
state, arguments = Path(os.environ["AZ_STATE"]), sys.argv[1:]
with (state / "az-calls").open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
words = " ".join(arguments)
if words.startswith("storage blob download-batch"):
    destination = Path(arguments[arguments.index("--destination") + 1])
    if not destination.is_dir():
        sys.exit("incorrect usage: destination must be an existing directory")
for start, (code, output) in json.loads((state / "responses.json").read_text()).items():
    if words.startswith(start):
        print(output)
        sys.exit(code)
"""

RunScript = Callable[..., tuple[subprocess.CompletedProcess[str], list[list[str]]]]


@pytest.fixture
def run_script(tmp_path: Path) -> RunScript:
    """`run_script(text, {"ml data show": (1, "")}, NAME=value)` runs a shell script; returns the process and its az calls."""

    def run(
        text: str, responses: dict[str, tuple[int, str]], ppe_yolo: str = "exit 0", **variables: str
    ) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        commands = {"az": AZ.format(python=sys.executable), "ppe-yolo": f"#!/usr/bin/env bash\n{ppe_yolo}\n"}
        for name, content in commands.items():
            file = tmp_path / "bin" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "responses.json").write_text(json.dumps(responses))
        environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "AZ_STATE": str(tmp_path), **variables}
        done = subprocess.run(
            ["bash", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        calls = tmp_path / "az-calls"
        return done, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    return run
