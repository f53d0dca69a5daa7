"""A pipeline as a versioned component."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ppe_yolo.azure.lint.linter import load_checked_pipeline
from ppe_yolo.azure.publish import pipeline_component, published_components

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "azureml/pipeline.yml"
RunCli = Callable[..., int]


def test_pipeline_component_has_the_steps_of_its_version_and_passes_lint(tmp_path: Path, run_cli: RunCli) -> None:
    file = tmp_path / "training.yml"
    assert run_cli("azureml", "component", PIPELINE, "--version", "17", "--out", file) == 0
    assert run_cli("azureml", "lint", file) == 0
    component = yaml.safe_load(file.read_text())
    assert (component["name"], component["version"]) == ("ppe_yolo_training", "17")
    steps = {name: job["component"] for name, job in component["jobs"].items()}
    assert steps == {
        name: f"azureml:ppe_yolo_{name}:17" for name in ("prepare", "train", "evaluate", "report", "export", "promote")
    }
    # a component has no default cluster
    assert {job["compute"] for job in component["jobs"].values()} == {"azureml:gpu-cluster", "azureml:cpu-cluster"}
    assert component["inputs"]["data"] == {"type": "uri_folder"}
    assert component["inputs"]["max_epochs"] == {"type": "integer", "default": 120}
    file.write_text(file.read_text().replace("${{parent.inputs.rule}}", "${{parent.inputs.rules}}"))
    assert run_cli("azureml", "lint", file) == 1


def test_published_pipeline_job_names_the_component(
    capsys: pytest.CaptureFixture[str], run_cli: RunCli, tmp_path: Path
) -> None:
    job = load_checked_pipeline(ROOT / "azureml/published.yml", ())[0].jobs["training"]
    pipeline, _ = load_checked_pipeline(PIPELINE, ())
    component = pipeline_component(pipeline, "1")
    assert job.value["component"] == f"azureml:{component['name']}:1"
    assert set(job.inputs) <= set(component["inputs"]) and set(job.outputs) <= set(component["outputs"])
    data = f"inputs.data={tmp_path}"
    assert run_cli("azureml", "run", ROOT / "azureml/published.yml", "--local", "--out", tmp_path / "o", "--set", data) == 2
    assert "job training: the component is only on Azure" in capsys.readouterr().err.replace("\n", " ")


def test_published_components_replace_the_files_of_all_jobs() -> None:
    pipeline, _ = load_checked_pipeline(PIPELINE, ())
    references = published_components(pipeline, "17")
    assert references["jobs.train.component"] == "azureml:ppe_yolo_train:17" and len(references) == len(pipeline.jobs)
