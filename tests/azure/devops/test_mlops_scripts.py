"""The scripts of azureml/devops/mlops.yml, run with stand-ins for `az` and `ppe-yolo`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

MLOPS = Path(__file__).resolve().parents[3] / "azureml/devops/mlops.yml"
RunScript = Callable[..., Any]


def inline_scripts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "inlineScript" in node:
            yield node["inlineScript"]
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from inline_scripts(child)


def scripts_of_stage(name: str) -> list[str]:
    stages = yaml.safe_load(MLOPS.read_text())["stages"]
    return list(inline_scripts(next(s for s in stages if s["stage"] == name)))


@pytest.mark.parametrize("exists", [False, True])
def test_data_stage_creates_the_data_asset_of_the_pushed_version_once(exists: bool, run_script: RunScript) -> None:
    (script,) = scripts_of_stage("data")
    done, calls = run_script(
        script,
        {"ml data show": (0 if exists else 1, "")},
        ppe_yolo='if [ "$1 $2" = "data push" ]; then echo "version 0a1b2c: 3 files"; fi',
        AZURE_STORAGE_ACCOUNT_NAME="store",
        AZUREML_RESOURCE_GROUP="group",
        AZUREML_WORKSPACE_NAME="workspace",
        INCOMING="incoming",
        CLASS_MAP="default",
        DATA_SET="site-photos",
    )
    assert done.returncode == 0, done.stderr
    assert "##vso[task.setvariable variable=version;isOutput=true]0a1b2c" in done.stdout
    (shown,) = [c for c in calls if c[:3] == ["ml", "data", "show"]]
    assert shown[-6:-2] == ["--name", "site-photos", "--version", "0a1b2c"]
    paths = [c[c.index("--path") + 1] for c in calls if c[:3] == ["ml", "data", "create"]]
    assert paths == ([] if exists else ["https://store.blob.core.windows.net/photos/site-photos/0a1b2c"])


def test_training_stage_publishes_the_components_that_it_submits(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "azureml").symlink_to(MLOPS.parents[1])
    # Azure Pipelines replaces $(Build.BuildId) before bash reads the script
    publish, submit, *_ = (script.replace("$(Build.BuildId)", "17") for script in scripts_of_stage("training"))
    make = 'if [ "$2" = component ]; then echo "name: ppe_yolo_training" > training.yml; fi; echo "submitted: $*" >&2'
    settings = {"AZUREML_RESOURCE_GROUP": "group", "AZUREML_WORKSPACE_NAME": "workspace"}
    place = "--resource-group group --workspace-name workspace"
    listed = {
        f"ml component list {place} --name ppe_yolo_prepare ": (0, "16"),
        f"ml component list {place} --name ppe_yolo_train ": (0, "17\n16"),  # from an earlier run of this stage
        f"ml component list {place} --name": (1, ""),  # never created
        "ml component list": (0, "ppe_yolo_prepare\nppe_yolo_train"),
    }
    done, calls = run_script(publish, listed, ppe_yolo=make, **settings)
    assert done.returncode == 0, done.stderr
    made = [c for c in calls if c[:3] == ["ml", "component", "create"]]
    assert {c[c.index("--version") + 1] for c in made} == {"17"}
    files = {c[c.index("--file") + 1] for c in made}
    steps = {f"azureml/components/{file.name}" for file in (MLOPS.parents[1] / "components").glob("*.yml")}
    assert files == (steps | {"training.yml"}) - {"azureml/components/train.yml"} and len(made) == len(files)
    data = {"DATA_SET": "site-photos", "DATA_VERSION": "0a1b2c", "CLASS_MAP": "default", "CRITICAL_CLASS": "none"}
    done, _ = run_script(submit, {}, ppe_yolo=make, **settings, **data)
    assert done.returncode == 0 and "--components 17" in done.stderr


def test_training_stage_creates_nothing_if_the_components_cannot_be_listed(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "azureml").symlink_to(MLOPS.parents[1])
    publish = scripts_of_stage("training")[0].replace("$(Build.BuildId)", "17")
    settings = {"AZUREML_RESOURCE_GROUP": "group", "AZUREML_WORKSPACE_NAME": "workspace"}
    make = 'if [ "$2" = component ]; then echo "name: ppe_yolo_training" > training.yml; fi'
    done, calls = run_script(publish, {"ml component": (1, "")}, ppe_yolo=make, **settings)
    assert done.returncode == 1
    assert not [c for c in calls if c[:3] == ["ml", "component", "create"]]


def test_training_stage_passes_the_name_of_the_submitted_job_on(run_script: RunScript) -> None:
    _, submit, wait, download = scripts_of_stage("training")
    settings = {"DATA_SET": "site-photos", "DATA_VERSION": "0a1b2c", "CLASS_MAP": "default", "CRITICAL_CLASS": "none"}
    done, _ = run_script(submit, {}, ppe_yolo='echo "submitted: calm_tree https://studio/calm_tree"', **settings)
    assert done.returncode == 0, done.stderr
    assert "##vso[task.setvariable variable=job;isOutput=true]calm_tree\n" in done.stdout
    for script in (wait, download):
        done, _ = run_script(script, {}, ppe_yolo='echo "$@"', JOB="calm_tree")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("azureml follow calm_tree --minutes ")


def test_training_stage_waits_longer_than_one_agent_may() -> None:
    stages = yaml.safe_load(MLOPS.read_text())["stages"]
    (wait,) = [j for s in stages if s["stage"] == "training" for j in s["jobs"] if j["job"] == "wait"]
    assert wait["strategy"]["maxParallel"] == "1"
    assert len(wait["strategy"]["matrix"]) * 330 >= 17 * 60  # minutes; YOLOv3 on a T4
