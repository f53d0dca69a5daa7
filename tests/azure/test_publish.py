"""A pipeline as a versioned component."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ppe_yolo.azure.lint.linter import load_checked_pipeline
from ppe_yolo.azure.publish import pipeline_component, published_components
from ppe_yolo.azure.yaml.document import read_document
from ppe_yolo.azure.yaml.pipeline import read_pipeline
from ppe_yolo.core.errors import UserError

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


def test_pipeline_component_declares_the_ranges_of_its_inputs(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yml"
    step = {"name": "step", "type": "command", "command": "true"}
    inputs = {
        "share": {"type": "number", "default": 0, "min": 0, "max": 1},
        "kind": {"type": "string", "optional": True, "enum": ["a", "b"]},
        "mask": {"type": "uri_file", "optional": True},
        "fast": False,
    }
    (tmp_path / "step.yml").write_text(yaml.safe_dump(step))
    file.write_text(yaml.safe_dump({"inputs": inputs, "jobs": {"step": {"component": "step.yml"}}}))
    component = pipeline_component(read_pipeline(read_document(file), []), "1")
    assert component["inputs"] == {**inputs, "fast": {"type": "boolean", "default": False}}
    assert component["jobs"] == {"step": {"component": "azureml:step:1"}}


def test_published_pipeline_job_names_the_component(
    capsys: pytest.CaptureFixture[str], run_cli: RunCli, tmp_path: Path
) -> None:
    published, _ = load_checked_pipeline(ROOT / "azureml/published.yml", ())
    job = published.jobs["training"]
    pipeline, _ = load_checked_pipeline(PIPELINE, ())
    component = pipeline_component(pipeline, "1")
    assert job.value["component"] == f"azureml:{component['name']}:1"
    assert set(job.inputs) <= set(component["inputs"]) and set(job.outputs) <= set(component["outputs"])
    assert component["outputs"]["data_set"] == {"type": "uri_folder", "mode": "upload"}  # as in pipeline.yml
    # Azure ML ignores settings of a component, so both files have them
    assert [p.value["settings"]["continue_on_step_failure"] for p in (pipeline, published)] == [False, False]
    with pytest.raises(UserError, match=r"such as pipeline\.yml; published\.yml already names a version"):
        published_components(published, "1")
    data = f"inputs.data={tmp_path}"
    assert run_cli("azureml", "run", ROOT / "azureml/published.yml", "--local", "--out", tmp_path / "o", "--set", data) == 2
    assert "job training: the component is only on Azure" in capsys.readouterr().err.replace("\n", " ")


def test_published_components_replace_the_files_of_all_jobs() -> None:
    pipeline, _ = load_checked_pipeline(PIPELINE, ())
    references = published_components(pipeline, "17")
    assert references["jobs.train.component"] == "azureml:ppe_yolo_train:17" and len(references) == len(pipeline.jobs)
