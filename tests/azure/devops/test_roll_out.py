"""azureml/devops/roll_out.sh, with a stand-in for `az`."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DEVOPS = Path(__file__).resolve().parents[3] / "azureml/devops"
MANIFEST = "manifest.json"
AZ = """#!{python}
import json, os, sys
from pathlib import Path
state = Path(os.environ["AZ_STATE"])
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
words = " ".join(sys.argv[1:])
# as in azure-iot (base_discovery.py): with login, only a host name is used without a search in the subscription, for which
# the role IoT Hub Data Contributor gives no right
if words.startswith("iot ") and "." not in sys.argv[sys.argv.index("--hub-name") + 1]:
    sys.exit("Unable to find IoT Hub in current subscription")
if words.startswith("iot hub query"):
    print(os.environ["AZ_BOXES"])
elif words.startswith("iot edge deployment show"):
    rows = (state / "answers").read_text().splitlines()
    (state / "answers").write_text("\\n".join(rows[1:] or rows))  # the last one stays
    if rows[0] == "error":
        sys.exit("az: the hub is busy")
    print(rows[0].replace(" ", os.environ.get("AZ_BETWEEN", "\\t")))
elif words.startswith("iot edge deployment list"):
    print("\\n".join(f"ppe-edge-canary-{{n}}" for n in (9, 100, 8, 99, 7)))
"""


@pytest.fixture
def roll_out(tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], list[list[str]]]]:
    """`roll_out(boxes, answers, ...)` runs the script with a stand-in for `az`; gives its end and the stand-in's calls."""
    az = tmp_path / "bin/az"
    az.parent.mkdir()
    az.write_text(AZ.format(python=sys.executable))
    az.chmod(az.stat().st_mode | stat.S_IXUSR)
    (tmp_path / MANIFEST).write_text("{}")

    def run(boxes: int, answers: list[str], *arguments: str, **variables: str) -> Any:
        (tmp_path / "answers").write_text("\n".join(answers))
        environment = {
            "PATH": f"{az.parent}:{os.environ['PATH']}",
            "AZ_STATE": str(tmp_path),
            "AZ_BOXES": str(boxes),
            "IOT_HUB": "hub",
            "POLL_SECONDS": "0",
        }
        done = subprocess.run(
            ["bash", str(DEVOPS / "roll_out.sh"), *(arguments or (MANIFEST, "canary", "100"))],
            cwd=tmp_path, env=environment | variables, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        calls = tmp_path / "calls"
        return done, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    return run


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def changes(calls: list[list[str]]) -> list[tuple[str, str]]:
    return [
        (c[3], option(c, "--deployment-id"))
        for c in calls
        if c[:3] == ["iot", "edge", "deployment"] and c[3] in ("create", "delete")
    ]


RollOut = Callable[..., tuple[subprocess.CompletedProcess[str], list[list[str]]]]


@pytest.mark.parametrize("between", ["\t", "\n"])
def test_roll_out_ends_when_all_boxes_run_the_build(roll_out: RollOut, between: str) -> None:
    done, calls = roll_out(3, ["0 0", "error", "2 0", "3 0"], AZ_BETWEEN=between)
    assert done.returncode == 0, done.stderr
    create = next(c for c in calls if c[3] == "create")
    assert option(create, "--target-condition") == "tags.ppe.ring='canary'"
    assert option(create, "--priority") == "100"
    assert option(create, "--content") == MANIFEST
    assert all(option(c, "--auth-type") == "login" and option(c, "--hub-name") == "hub.azure-devices.net" for c in calls)
    assert "3 run it" in done.stdout
    # the newest three (100, 99, 9) stay
    assert changes(calls)[1:] == [("delete", "ppe-edge-canary-8"), ("delete", "ppe-edge-canary-7")]


@pytest.mark.parametrize(
    ("answers", "limit", "reason"),
    [(["1 0", "1 1"], "60", "1 of 3 boxes report a failure"), (["2 0"], "1", "2 of 3 boxes run it after 1 s")],
)
def test_roll_out_failed_deployment_is_deleted(roll_out: RollOut, answers: list[str], limit: str, reason: str) -> None:
    done, calls = roll_out(3, answers, WAIT_SECONDS=limit, POLL_SECONDS="0.2")
    assert done.returncode == 1
    assert changes(calls) == [("create", "ppe-edge-canary-100"), ("delete", "ppe-edge-canary-100")]
    assert done.stderr.strip() == f"ppe-edge-canary-100: taken back: {reason}"


@pytest.mark.parametrize(
    ("boxes", "arguments", "reason"),
    [
        (0, (MANIFEST, "canary", "100"), "expected boxes whose twin has the tag ppe.ring=canary, got none"),
        (3, ("absent.json", "canary", "100"), "absent.json: no such file"),
        (3, (MANIFEST, "canary' or true", "100"), "expected a ring of small letters, got canary' or true"),
        (3, (MANIFEST, "canary", "1.2"), "expected a build's number, got 1.2"),
        (3, (MANIFEST,), "expected MANIFEST RING BUILD, got 1 arguments"),
    ],
)
def test_roll_out_user_error_changes_nothing(roll_out: RollOut, boxes: int, arguments: tuple[str, ...], reason: str) -> None:
    done, calls = roll_out(boxes, ["0 0"], *arguments)
    assert (done.returncode, done.stderr.strip()) == (2, f"roll_out: {reason}")
    assert changes(calls) == []


def test_roll_out_stopped_job_deletes_its_deployment(tmp_path: Path, roll_out: RollOut) -> None:
    (tmp_path / "answers").write_text("1 0")
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "AZ_STATE": str(tmp_path), "AZ_BOXES": "3", "IOT_HUB": "hub"}
    script = subprocess.Popen(
        ["bash", str(DEVOPS / "roll_out.sh"), MANIFEST, "canary", "100"],
        cwd=tmp_path, env=environment | {"POLL_SECONDS": "0.1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert script.stdout is not None
    script.stdout.readline()  # it is waiting for boxes
    script.terminate()
    _, errors = script.communicate(timeout=60)
    assert script.returncode == 1
    assert errors.strip().endswith("ppe-edge-canary-100: taken back: stopped")
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert changes(calls) == [("create", "ppe-edge-canary-100"), ("delete", "ppe-edge-canary-100")]
