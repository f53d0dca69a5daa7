"""Submission of pipelines. The MLClient is a stand-in; azure-ai-ml is real where it is installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from ppe_yolo.azure.cli import azureml_app
from ppe_yolo.azure.lint.linter import load_checked_pipeline
from ppe_yolo.azure.lint.official import is_installed
from ppe_yolo.azure.publish import published_components
from ppe_yolo.azure.submit import (
    RECENT_JOBS,
    WORKSPACE_VARIABLES,
    Submission,
    Workspace,
    connect,
    find_workspace,
    follow,
    submit,
)
from ppe_yolo.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "azureml/pipeline.yml"
needs_azure = pytest.mark.skipif(not is_installed(), reason="azure-ai-ml is not installed: pip install '.[azureml]'")


class Client:
    """A stand-in for MLClient: records its calls; a job ends with `status`."""

    def __init__(self, status: str = "Completed", earlier: list[Any] | None = None, data_version: str = "1") -> None:
        self.submitted: list[Any] = []
        self.downloaded: list[tuple[str, str | None]] = []
        self.status = status
        self.earlier = earlier or []
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

    def download(self, name: str, *, download_path: str, output_name: str | None, all: bool) -> None:
        assert all is (output_name is None)
        self.downloaded.append((download_path, output_name))

    def list(self) -> list[Any]:
        return self.earlier


def run(client: Client, *settings: str, only_new_data: bool = False) -> Submission:
    pipeline, changed = load_checked_pipeline(PIPELINE, settings)
    return submit(pipeline, changed, client, only_new_data=only_new_data)


@needs_azure
def test_submit_applies_settings_to_the_job() -> None:
    client = Client()
    submission = run(client, "inputs.max_epochs=3", "jobs.train.resources.instance_count=2")
    job = client.submitted[0]
    assert submission.is_new and follow(submission.job, client, None).succeeded
    assert job.inputs["max_epochs"]._data == 3
    assert job.jobs["train"].resources.instance_count == 2
    assert job.inputs["data"]._data.path == "site-photos:1"
    assert json.loads(job.tags["data_versions"]) == {"data": "azureml:site-photos:1"}


@needs_azure
def test_submit_runs_published_components() -> None:
    client = Client()
    pipeline, changed = load_checked_pipeline(PIPELINE, ())
    submit(pipeline, {**changed, **published_components(pipeline, "17")}, client)
    assert client.submitted[0].jobs["train"].component == "ppe_yolo_train:17"


@needs_azure
def test_follow_failed_job_downloads_its_outputs() -> None:
    client = Client("Failed")
    finished = follow(run(client).job, client, Path("outputs"))
    assert not finished.succeeded
    assert client.downloaded == [("outputs", None)]
    assert finished.status == "Failed" and "train ran out of memory" in str(finished.failure)


@needs_azure
def test_follow_downloads_only_the_named_outputs() -> None:
    client = Client()
    follow(run(client).job, client, Path("outputs"), ["model", "decision"])
    assert client.downloaded == [("outputs", "model"), ("outputs", "decision")]


@needs_azure
def test_follow_with_limit_waits_for_the_end_and_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("Running")
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        client.status = "Completed" if len(looks) == 3 else "Running"

    monkeypatch.setattr("ppe_yolo.azure.submit.time.sleep", sleep)
    followed = follow("calm_tree", client, Path("outputs"), ["model"], minutes=5)
    assert followed.succeeded and len(looks) == 3
    assert client.downloaded == [("outputs", "model")]


@needs_azure
def test_follow_past_its_limit_leaves_the_job_running() -> None:
    client = Client("Queued")
    followed = follow("calm_tree", client, Path("outputs"), ["model"], minutes=0)
    assert not followed.ended and followed.status == "Queued"
    assert client.downloaded == []


@needs_azure
@pytest.mark.parametrize(
    ("status", "options", "code"),
    [("Running", [], 0), ("Running", ["--out", "outputs"], 1), ("Completed", ["--out", "outputs"], 0), ("Canceled", [], 1)],
)
def test_follow_command_exit_code_tells_whether_the_pipeline_may_continue(
    status: str, options: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppe_yolo.azure.submit.connect", lambda workspace: Client(status))
    for variable in WORKSPACE_VARIABLES.values():
        monkeypatch.setenv(variable, "x")
    result = CliRunner().invoke(azureml_app, ["follow", "calm_tree", "--minutes", "0", *options])
    assert result.exit_code == code, result.output
    assert f"calm_tree: {status}" in result.output


@needs_azure
def test_submit_only_new_data_skips_a_known_version() -> None:
    tags = {"data_versions": json.dumps({"data": "azureml:site-photos:4"})}
    earlier = SimpleNamespace(name="old_tree", experiment_name="ppe-yolo-training", status="Completed", tags=tags)
    same = Client(earlier=[earlier], data_version="4")
    assert not run(same, only_new_data=True).is_new and same.submitted == []
    newer = Client(earlier=[earlier], data_version="5")
    run(newer, only_new_data=True)
    assert newer.submitted[0].inputs["data"]._data.path == "site-photos:5"


def earlier_job(status: str, name: str = "old_tree") -> SimpleNamespace:
    tags = {"data_versions": json.dumps({"data": "azureml:site-photos:4"})}
    return SimpleNamespace(name=name, experiment_name="ppe-yolo-training", status=status, tags=tags)


@needs_azure
def test_submit_only_new_data_repeats_failed_jobs_at_most_three_times() -> None:
    twice = Client(earlier=[earlier_job("Failed")] * 2, data_version="4")
    assert run(twice, only_new_data=True).is_new and len(twice.submitted) == 1
    thrice = Client(earlier=[earlier_job("Failed")] * 3, data_version="4")
    submission = run(thrice, only_new_data=True)
    assert not submission.is_new and submission.failed_attempts == 3 and thrice.submitted == []
    # a success after failures counts
    succeeded = Client(earlier=[earlier_job("Completed", "good_tree"), *[earlier_job("Failed")] * 3], data_version="4")
    assert run(succeeded, only_new_data=True) == Submission(
        job="good_tree",
        is_new=False,
        failed_attempts=0,
        studio_url=None,
        data_versions={"data": "azureml:site-photos:4"},
    )


@needs_azure
def test_submit_only_new_data_does_not_repeat_cancelled_jobs() -> None:
    cancelled = Client(earlier=[earlier_job("Canceled")], data_version="4")
    assert not run(cancelled, only_new_data=True).is_new and cancelled.submitted == []


@needs_azure
def test_submit_only_new_data_skips_jobs_that_the_client_cannot_parse() -> None:
    client = Client(earlier=[None, earlier_job("Completed")], data_version="4")
    assert not run(client, only_new_data=True).is_new


@needs_azure
def test_submit_trigger_starts_one_training_per_version_of_the_data() -> None:
    """`--only-new-data` jobs do not count: they were not started by the figure."""

    def retrain(client: Client) -> Submission:
        pipeline, changed = load_checked_pipeline(PIPELINE, ())
        return submit(pipeline, changed, client, trigger="unsure_share>0.2")

    first = Client(earlier=[earlier_job("Completed")], data_version="4")
    assert retrain(first).is_new and first.submitted[0].tags["trigger"] == "unsure_share>0.2"
    done = earlier_job("Completed")
    done.tags["trigger"] = "unsure_share>0.2"
    assert not retrain(Client(earlier=[done], data_version="4")).is_new
    assert retrain(Client(earlier=[done], data_version="5")).is_new


@needs_azure
def test_submit_looks_at_recent_jobs_only() -> None:
    class Long(Client):
        def list(self) -> Any:
            yield from [None] * RECENT_JOBS
            pytest.fail("looked further back")

    assert run(Long(data_version="4"), only_new_data=True).is_new


@needs_azure
def test_submit_azure_error_is_one_line() -> None:
    class RejectingClient(Client):
        def create_or_update(self, job: Any) -> Any:
            from azure.core.exceptions import ResourceNotFoundError

            raise ResourceNotFoundError("workspace\nnot found")

    with pytest.raises(UserError, match=r"submit: Azure rejects the request .workspace not found"):
        run(RejectingClient())


def test_find_workspace_reads_file_or_variables(tmp_path: Path) -> None:
    values = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert find_workspace(tmp_path / "config.json", {}) == Workspace("s", "g", "w")
    assert find_workspace(None, {variable: values[key] for key, variable in WORKSPACE_VARIABLES.items()}) == Workspace(
        "s", "g", "w"
    )


def test_find_workspace_names_missing_values(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got no resource_group, workspace_name: give --workspace"):
        find_workspace(None, {"AZUREML_SUBSCRIPTION_ID": "s"})
    (tmp_path / "config.json").write_text('{"subscription_id": "s", "resource_group": ""}')
    with pytest.raises(UserError, match=r"config.json, got no resource_group, workspace_name"):
        find_workspace(tmp_path / "config.json", {})
    with pytest.raises(UserError, match="cannot be read"):
        find_workspace(tmp_path / "other.json", {})


@pytest.mark.skipif(is_installed(), reason="azure-ai-ml is installed")
def test_connect_without_azure_ai_ml_names_the_package() -> None:
    with pytest.raises(UserError, match=r"expected azure-ai-ml, got none: pip install 'ppe-yolo\[azureml\]'"):
        connect(Workspace("s", "g", "w"))


def test_command_line_help_imports_no_azure_libraries(tmp_path: Path) -> None:
    code = (
        "import sys; from ppe_yolo.cli import main\n"
        "try: main(['azureml', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith(('azure', 'mlflow', 'torch'))])"
    )
    if shutil.which("bash") is None or is_installed():
        pytest.skip("an environment with azure-ai-ml may lack the packages of the command line")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")
