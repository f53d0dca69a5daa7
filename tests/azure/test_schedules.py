"""azureml/schedules: the commands that the scheduled jobs run."""

import datetime
import json
import subprocess
from pathlib import Path

import pytest

from ppe_yolo.azure.lint.linter import load_checked_pipeline
from ppe_yolo.azure.yaml.assets import kind_of
from ppe_yolo.azure.yaml.bindings import Own, resolve_command
from ppe_yolo.azure.yaml.document import read_document

SCHEDULES = Path(__file__).resolve().parents[2] / "azureml/schedules"


def submit_arguments(schedule: str, tmp_path: Path) -> list[str]:
    """The arguments of scripts/submit.py in the job of a schedule, after bash has evaluated the command."""
    job_file = SCHEDULES / str(read_document(SCHEDULES / schedule).value["create_job"])
    assert kind_of(read_document(job_file).value) == "pipeline"
    pipeline, _ = load_checked_pipeline(job_file, ())
    component = pipeline.jobs["submit"].component
    assert component is not None

    def value(own: Own) -> str:
        return str(pipeline.inputs[own.name].default)

    python = tmp_path / "python"
    python.write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    command = resolve_command(component.value["command"], value)
    result = subprocess.run(
        ["bash", "-c", command], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    script, *arguments = result.stdout.splitlines()
    assert script == "scripts/submit.py"
    return arguments


def test_new_data_schedule_submits_only_new_data(tmp_path: Path) -> None:
    expected = ["azureml/pipeline.yml", "--no-wait", "--set", "inputs.class_map=default", "--only-new-data"]
    assert submit_arguments("new-data.yml", tmp_path) == expected


def test_weekly_schedule_trains_on_the_latest_data_with_a_new_seed(tmp_path: Path) -> None:
    arguments = submit_arguments("weekly.yml", tmp_path)
    year, week, _ = datetime.date.today().isocalendar()
    settings = [arguments[n + 1] for n, word in enumerate(arguments) if word == "--set"]
    assert settings == [
        "inputs.class_map=default",
        "inputs.data.path=azureml:site-photos@latest",
        f"inputs.seed={year}{week:02}",
    ]
    _, changed = load_checked_pipeline(SCHEDULES.parent / "pipeline.yml", settings)
    assert changed["inputs.data.path"] == "azureml:site-photos@latest" and changed["inputs.seed"] == int(f"{year}{week:02}")


@pytest.mark.parametrize("name", ["new-data-job.yml", "weekly-job.yml", "samples-job.yml"])
def test_scheduled_jobs_always_run_again(name: str) -> None:
    assert json.dumps(read_document(SCHEDULES / name).value["settings"]["force_rerun"]) == "true"
