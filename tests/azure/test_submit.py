"""Submission. Azure itself (the MLClient) is a stand-in; azure-ai-ml, where it is installed, is the real one."""

import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ppe_yolo.azure.lint.lint import checked_pipeline
from ppe_yolo.azure.lint.official import is_installed
from ppe_yolo.azure.submit import PLACE, Workspace, connect, find_workspace, submit
from ppe_yolo.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "azureml/pipeline.yml"
needs_azure = pytest.mark.skipif(not is_installed(), reason="azure-ai-ml is not installed: pip install '.[azureml]'")


class Client:
    """What an MLClient would do: remembers what it is told; a job ends as `status`."""

    def __init__(self, status: str = "Completed", before: list[Any] | None = None, data_version: str = "1") -> None:
        self.submitted: list[Any] = []
        self.fetched: list[str] = []
        self.status = status
        self.before = before or []
        self.data_version = data_version
        self.jobs = self.data = self

    def create_or_update(self, job: Any) -> Any:
        self.submitted.append(job)
        return SimpleNamespace(name="calm_tree", studio_url="https://studio/calm_tree")

    def stream(self, name: str) -> None:
        if self.status == "Failed":
            from azure.ai.ml.exceptions import JobException

            raise JobException("train ran out of memory", no_personal_data_message="")

    def get(self, name: str, label: str | None = None) -> Any:
        return SimpleNamespace(status=self.status, version=self.data_version)

    def download(self, name: str, download_path: str, all: bool) -> None:
        self.fetched.append(download_path)

    def list(self) -> list[Any]:
        return self.before


def run(client: Client, *settings: str, **options: Any) -> tuple[bool, str]:
    pipeline, changed = checked_pipeline(PIPELINE, settings)
    printed = StringIO()
    console = Console(width=500, file=printed)
    return submit(pipeline, changed, client, console=console, **{"out": None, **options}), printed.getvalue()


@needs_azure
def test_settings_reach_the_job_that_is_submitted() -> None:
    client = Client()
    done, printed = run(client, "inputs.max_epochs=3", "jobs.train.resources.instance_count=2")
    job = client.submitted[0]
    assert done and "calm_tree: Completed" in printed
    assert job.inputs["max_epochs"]._data == 3
    assert job.jobs["train"].resources.instance_count == 2
    assert job.inputs["data"]._data.path == "site-photos:1"
    assert json.loads(job.tags["data_versions"]) == {"data": "azureml:site-photos:1"}


@needs_azure
def test_a_job_that_fails_is_no_success_and_its_outputs_are_fetched() -> None:
    client = Client("Failed")
    done, printed = run(client, out=Path("fetched"))
    assert not done
    assert client.fetched == ["fetched"]
    assert "calm_tree: Failed" in printed and "train ran out of memory" in printed


@needs_azure
def test_only_new_data_is_trained_on() -> None:
    tags = {"data_versions": json.dumps({"data": "azureml:site-photos:4"})}
    earlier = SimpleNamespace(name="old_tree", experiment_name="ppe-yolo-training", status="Completed", tags=tags)
    same = Client(before=[earlier], data_version="4")
    assert run(same, only_new_data=True, wait=False)[0] and same.submitted == []
    newer = Client(before=[earlier], data_version="5")
    run(newer, only_new_data=True, wait=False)
    assert newer.submitted[0].inputs["data"]._data.path == "site-photos:5"
    failed = Client(before=[SimpleNamespace(**{**vars(earlier), "status": "Failed"})], data_version="4")
    run(failed, only_new_data=True, wait=False)
    assert len(failed.submitted) == 1


@needs_azure
def test_what_azure_refuses_is_told_in_one_line() -> None:
    class Refusing(Client):
        def create_or_update(self, job: Any) -> Any:
            from azure.core.exceptions import ResourceNotFoundError

            raise ResourceNotFoundError("workspace\nnot found")

    with pytest.raises(UserError, match=r"submit: Azure refuses .workspace not found"):
        run(Refusing())


def test_a_workspace_from_a_file_or_from_variables(tmp_path: Path) -> None:
    values = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert find_workspace(tmp_path / "config.json", {}) == Workspace("s", "g", "w")
    assert find_workspace(None, {variable: values[key] for key, variable in PLACE.items()}) == Workspace("s", "g", "w")


def test_what_is_missing_of_a_workspace_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got no resource_group, workspace_name: give --workspace"):
        find_workspace(None, {"AZUREML_SUBSCRIPTION_ID": "s"})
    (tmp_path / "config.json").write_text('{"subscription_id": "s", "resource_group": ""}')
    with pytest.raises(UserError, match=r"config.json, got no resource_group, workspace_name"):
        find_workspace(tmp_path / "config.json", {})
    with pytest.raises(UserError, match="cannot be read"):
        find_workspace(tmp_path / "other.json", {})


@pytest.mark.skipif(is_installed(), reason="azure-ai-ml is installed")
def test_without_azure_ai_ml_it_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"needs azure-ai-ml: pip install 'ppe-yolo\[azureml\]'"):
        connect(Workspace("s", "g", "w"))


def test_the_command_line_imports_nothing_of_azure(tmp_path: Path) -> None:
    code = (
        "import sys; from ppe_yolo.cli import main\n"
        "try: main(['azureml', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith(('azure', 'mlflow', 'torch'))])"
    )
    if shutil.which("bash") is None or is_installed():
        pytest.skip("an environment with azure-ai-ml need not have what the command line needs")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")
