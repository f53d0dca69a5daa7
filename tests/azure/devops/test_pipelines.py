"""The Azure Pipelines in azureml/devops: their commands, options, paths and artifacts exist, and they hold no secret."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from ppe_yolo.cli import app

ROOT = Path(__file__).resolve().parents[3]
DEVOPS = ROOT / "azureml/devops"
PIPELINES = sorted(DEVOPS.glob("*.yml"))
FILES = [*PIPELINES, *sorted(DEVOPS.glob("steps/*.yml"))]


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def scripts_of(file: Path) -> list[str]:
    """The shell scripts of a file, with continued lines joined."""
    steps = list(nodes(yaml.safe_load(file.read_text())))
    texts = [s["bash"] for s in steps if "bash" in s] + [s["inlineScript"] for s in steps if "inlineScript" in s]
    return [text.replace("\\\n", " ") for text in texts]


def ppe_yolo_calls(file: Path) -> list[list[str]]:
    lines = [line.strip().split(" | ")[0] for script in scripts_of(file) for line in script.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("ppe-yolo ")]


CALLS = [(file.name, call) for file in FILES for call in ppe_yolo_calls(file)]


def test_pipelines_run_commands_of_ppe_yolo() -> None:
    assert {"audit", "list", "data", "azureml"} <= {call[0] for _, call in CALLS}


@pytest.mark.parametrize(("file", "call"), CALLS, ids=[f"{name} {' '.join(call[:2])}" for name, call in CALLS])
def test_pipeline_commands_and_options_exist(file: str, call: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    rest = [os.devnull if a.startswith("$") else a for a in call]
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"{file}: ppe-yolo {' '.join(call)}"
        command = command.commands[rest.pop(0)]
    command.make_context(command.name, rest).close()  # rejects unknown options and wrong arguments; runs nothing


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_pipeline_paths_exist(file: Path) -> None:
    text = file.read_text()
    made = {"azureml/devops/roll_out.sh"}  # also part of an artifact
    for path in re.findall(r"(?<![\w/.$])((?:azureml|edge|scripts|steps|\.ci)/[\w./*-]*[\w*])", text):
        if path.startswith("edge/model"):
            continue  # created by the pipeline
        base = DEVOPS if path.startswith("steps/") else ROOT
        assert list(base.glob(path)) or path in made, f"{file.name}: {path}"
    for node in nodes(yaml.safe_load(text)):
        for filter_ in ("include", "exclude"):
            for path in node.get(filter_, []) if "paths" not in node else []:
                assert path == "main" or (ROOT / path).exists(), f"{file.name}: {path}"


@pytest.mark.parametrize("file", PIPELINES, ids=lambda f: f.name)
def test_artifacts_are_published_before_they_are_downloaded(file: Path) -> None:
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


def test_edge_builds_download_only_released_models_of_main() -> None:
    """The latest successful run may be of a pull request, or not promoted: it has no artifact `model` then."""
    edge = yaml.safe_load((DEVOPS / "edge.yml").read_text())
    (mlops,) = edge["resources"]["pipelines"]
    assert (mlops["branch"], mlops["tags"]) == ("main", ["released"])
    assert mlops["trigger"] == {"stages": ["release"], "branches": {"include": ["main"]}}
    stages = yaml.safe_load((DEVOPS / "mlops.yml").read_text())["stages"]
    tagging = [s["stage"] for s in stages if any("[build.addbuildtag]released" in str(n.get("bash")) for n in nodes(s))]
    assert tagging == ["release"]


def test_edge_builds_do_not_start_on_changes_of_other_pipelines() -> None:
    paths = yaml.safe_load((DEVOPS / "edge.yml").read_text())["trigger"]["paths"]["include"]
    changed = [f"azureml/devops/{name}" for name in ("mlops.yml", "infra.yml", "steps/install.yml")]
    assert not [c for c in changed if any(c.startswith(path) for path in paths)]


def test_merges_do_not_start_a_training() -> None:
    stages = {s["stage"]: s for s in yaml.safe_load((DEVOPS / "mlops.yml").read_text())["stages"]}
    assert "ne(variables['Build.Reason'], 'IndividualCI')" in stages["data"]["condition"]
    assert stages["training"]["dependsOn"] == "data"


def test_infrastructure_has_its_own_service_connection() -> None:
    defaults = {f.name: yaml.safe_load(f.read_text())["parameters"][0]["default"] for f in PIPELINES}
    assert defaults["infra.yml"] not in {default for name, default in defaults.items() if name != "infra.yml"}


def test_training_outputs_contain_what_later_stages_read() -> None:
    outputs = yaml.safe_load((ROOT / "azureml/pipeline.yml").read_text())["outputs"]
    read = set(re.findall(r"/training/(\w+)", (DEVOPS / "mlops.yml").read_text()))
    assert read == {"decision", "model"} <= set(outputs)


def test_training_downloads_no_images_and_no_checkpoints() -> None:
    calls = [call for name, call in CALLS if name == "mlops.yml" and "--out" in call and call[:2] == ["azureml", "follow"]]
    downloaded = {call[n + 1] for call in calls for n, word in enumerate(call) if word == "--output"}
    assert all("--output" in call for call in calls)
    assert downloaded == {"model", "decision", "test_report"}
    assert "'torch==2.11.0+cpu'" in (DEVOPS / "steps/install.yml").read_text()  # not the 6 GB for GPUs


def test_artifacts_hold_no_images_and_no_secrets() -> None:
    steps = [node for file in FILES for node in nodes(yaml.safe_load(file.read_text()))]
    published = {node["publish"] for node in steps if "publish" in node}
    assert published == {
        *("audit.json", "lists", "training/named-outputs"),
        *("$(Pipeline.Workspace)/training/model", "$(Build.ArtifactStagingDirectory)"),
    }
    (fill,) = [s for s in scripts_of(DEVOPS / "edge.yml") if "fill_manifest.py edge/deployment.template.json" in s]
    assert set(re.findall(r"--keep (\w+)", fill)) == {"REGISTRY_PULL_PASSWORD", "WEB_TOKEN"}


@pytest.mark.parametrize("file", [*FILES, DEVOPS / "roll_out.sh", ROOT / "azureml/infra/parameters.json"], ids=lambda f: f.name)
def test_files_hold_no_secret(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"SharedAccessKey|AccountKey=|client[-_]?secret|sas_token|BEGIN [A-Z ]*PRIVATE", text, re.IGNORECASE)
    assert not re.search(r"[A-Za-z0-9+/]{40,}={0,2}", text.replace("/", " ")), "looks like a key"
    for name in re.findall(r"(\w*PASSWORD\w*):[ ]+(.+)", text):
        assert name[1].startswith(("$(", "&")) or name[1].startswith("from `az"), name
    assert "addSpnToEnvironment" not in text  # the identity's token stays inside the task


@pytest.mark.parametrize("file", PIPELINES, ids=lambda f: f.name)
def test_jobs_have_timeouts_and_change_azure_only_on_main(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    assert [v for v in document["variables"] if "group" in v]
    for stage in document["stages"]:
        for job in stage["jobs"]:
            assert int(job["timeoutInMinutes"]) <= 360
            assert ("environment" in job) == ("deployment" in job)
    if "none" not in str(document["pr"]):  # a pull request may read, but not change anything
        firsts = [s for s in document["stages"] if any(n.get("task") == "AzureCLI@2" for n in nodes(s))]
        changing = [s for s in firsts if s["stage"] != "training"]  # training depends on data
        assert changing and all("refs/heads/main" in s["condition"] for s in changing)
