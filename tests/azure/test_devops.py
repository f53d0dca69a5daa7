"""azureml/devops: the pipelines' commands exist, no secret is there, the roll-out does what it says (`az` is a stand-in)."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from ppe_yolo.cli import app

ROOT = Path(__file__).parents[2]
DEVOPS = ROOT / "azureml/devops"
PIPELINES = sorted(DEVOPS.glob("*.yml"))
FILES = [*PIPELINES, *sorted(DEVOPS.glob("steps/*.yml"))]
MANIFEST = "manifest.json"


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def scripts_of(file: Path) -> list[str]:
    """What a file runs in a shell, continued lines joined."""
    steps = list(nodes(yaml.safe_load(file.read_text())))
    texts = [s["bash"] for s in steps if "bash" in s] + [s["inlineScript"] for s in steps if "inlineScript" in s]
    return [text.replace("\\\n", " ") for text in texts]


def ppe_yolo_calls(file: Path) -> list[list[str]]:
    lines = [line.strip().split(" | ")[0] for script in scripts_of(file) for line in script.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("ppe-yolo ")]


CALLS = [(file.name, call) for file in FILES for call in ppe_yolo_calls(file)]


def test_the_pipelines_run_our_commands() -> None:
    assert {"audit", "list", "data", "azureml"} <= {call[0] for _, call in CALLS}


@pytest.mark.parametrize(("file", "call"), CALLS, ids=[f"{name} {' '.join(call[:2])}" for name, call in CALLS])
def test_every_command_and_option_exists(file: str, call: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    rest = [os.devnull if a.startswith("$") else a for a in call]
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"{file}: ppe-yolo {' '.join(call)}"
        command = command.commands[rest.pop(0)]
    command.make_context(command.name, rest).close()  # refuses unknown options and a wrong number of arguments; runs nothing


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_every_path_exists(file: Path) -> None:
    text = file.read_text()
    made = {"azureml/devops/roll_out.sh"}  # also inside of an artifact
    for path in re.findall(r"(?<![\w/.$])((?:azureml|edge|scripts|steps|\.ci)/[\w./*-]*[\w*])", text):
        if path.startswith("edge/model"):
            continue  # brought by the pipeline
        base = DEVOPS if path.startswith("steps/") else ROOT
        assert list(base.glob(path)) or path in made, f"{file.name}: {path}"
    for node in nodes(yaml.safe_load(text)):
        for filter_ in ("include", "exclude"):
            for path in node.get(filter_, []) if "paths" not in node else []:
                assert path == "main" or (ROOT / path).exists(), f"{file.name}: {path}"


@pytest.mark.parametrize("file", PIPELINES, ids=lambda f: f.name)
def test_artifacts_are_published_before_they_are_taken(file: Path) -> None:
    published: set[str] = set()
    for stage in yaml.safe_load(file.read_text())["stages"]:
        for node in nodes(stage):
            if node.get("download") == "current":
                assert node["artifact"] in published, f"{file.name}: {node}"
            if "publish" in node:
                published.add(node["artifact"])
    if file.name == "edge.yml":
        released = {n["artifact"] for n in nodes(yaml.safe_load((DEVOPS / "mlops.yml").read_text())) if "publish" in n}
        taken = {n["artifact"] for n in nodes(yaml.safe_load(file.read_text())) if n.get("download") == "mlops"}
        assert taken == {"model"} <= released


def test_what_training_leaves_is_what_later_stages_read() -> None:
    outputs = yaml.safe_load((ROOT / "azureml/pipeline.yml").read_text())["outputs"]
    read = set(re.findall(r"/training/(\w+)", (DEVOPS / "mlops.yml").read_text()))
    assert read == {"decision", "model"} <= set(outputs)


@pytest.mark.parametrize("file", [*FILES, DEVOPS / "roll_out.sh", ROOT / "azureml/infra/parameters.json"], ids=lambda f: f.name)
def test_no_secret_is_in_a_file(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"SharedAccessKey|AccountKey=|client[-_]?secret|sas_token|BEGIN [A-Z ]*PRIVATE", text, re.IGNORECASE)
    assert not re.search(r"[A-Za-z0-9+/]{40,}={0,2}", text.replace("/", " ")), "looks like a key"
    for name in re.findall(r"(\w*PASSWORD\w*):[ ]+(.+)", text):
        assert name[1].startswith(("$(", "&")) or name[1].startswith("of `az"), name
    assert "addSpnToEnvironment" not in text  # the identity's token stays inside of the task


@pytest.mark.parametrize("file", PIPELINES, ids=lambda f: f.name)
def test_every_job_is_bounded_and_every_change_of_azure_is_on_main(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    assert [v for v in document["variables"] if "group" in v]
    for stage in document["stages"]:
        for job in stage["jobs"]:
            assert int(job["timeoutInMinutes"]) <= 360
            assert ("environment" in job) == ("deployment" in job)
    if "none" not in str(document["pr"]):  # a pull request may look, not change
        firsts = [s for s in document["stages"] if any(n.get("task") == "AzureCLI@2" for n in nodes(s))]
        changing = [s for s in firsts if s["stage"] not in ("what_if", "training")]  # training waits for data
        assert changing and all("refs/heads/main" in s["condition"] for s in changing)


AZ = """#!{python}
import json, os, sys
from pathlib import Path
state = Path(os.environ["AZ_STATE"])
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
words = " ".join(sys.argv[1:])
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
def test_a_roll_out_ends_when_all_boxes_run_it(roll_out: RollOut, between: str) -> None:
    done, calls = roll_out(3, ["0 0", "error", "2 0", "3 0"], AZ_BETWEEN=between)
    assert done.returncode == 0, done.stderr
    create = next(c for c in calls if c[3] == "create")
    assert option(create, "--target-condition") == "tags.ppe.ring='canary'"
    assert option(create, "--priority") == "100"
    assert option(create, "--content") == MANIFEST
    assert all(option(c, "--auth-type") == "login" and option(c, "--hub-name") == "hub" for c in calls)
    assert "3 run it" in done.stdout
    # the newest three (100, 99, 9) stay
    assert changes(calls)[1:] == [("delete", "ppe-edge-canary-8"), ("delete", "ppe-edge-canary-7")]


@pytest.mark.parametrize(
    ("answers", "limit", "reason"),
    [(["1 0", "1 1"], "60", "1 of 3 boxes report a failure"), (["2 0"], "1", "2 of 3 boxes run it after 1 s")],
)
def test_a_roll_out_that_fails_is_taken_back(roll_out: RollOut, answers: list[str], limit: str, reason: str) -> None:
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
def test_a_mistake_changes_nothing(roll_out: RollOut, boxes: int, arguments: tuple[str, ...], reason: str) -> None:
    done, calls = roll_out(boxes, ["0 0"], *arguments)
    assert (done.returncode, done.stderr.strip()) == (2, f"roll_out: {reason}")
    assert changes(calls) == []


def test_a_job_that_is_stopped_takes_its_roll_out_back(tmp_path: Path, roll_out: RollOut) -> None:
    (tmp_path / "answers").write_text("1 0")
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "AZ_STATE": str(tmp_path), "AZ_BOXES": "3", "IOT_HUB": "hub"}
    script = subprocess.Popen(
        ["bash", str(DEVOPS / "roll_out.sh"), MANIFEST, "canary", "100"],
        cwd=tmp_path, env=environment | {"POLL_SECONDS": "0.1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert script.stdout is not None
    script.stdout.readline()  # it waits for boxes now
    script.terminate()
    _, errors = script.communicate(timeout=60)
    assert script.returncode == 1
    assert errors.strip().endswith("ppe-edge-canary-100: taken back: stopped")
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert changes(calls) == [("create", "ppe-edge-canary-100"), ("delete", "ppe-edge-canary-100")]
