"""Every kind of mistake planted in a copy of our own YAML, one at a time: found with file and line, and nothing else."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIPELINE, TRAIN, EXPORT = "pipeline.yml", "components/train.yml", "components/export.yml"
ENVIRONMENT, GPU, WEEKLY, SCORE = (
    "environments/ppe-yolo.yml",
    "compute/gpu-cluster.yml",
    "schedules/weekly.yml",
    "components/score.yml",
)
RunCli = Callable[..., int]

# name: file, text, what it becomes, a piece of the line that is to be named, kind, piece of the message
PLANTED: dict[str, tuple[str, str, str, str, str, str]] = {
    "unknown parent input": (
        PIPELINE,
        "max_epochs: ${{parent.inputs.max_epochs}}",
        "max_epochs: ${{parent.inputs.max_epoch}}",
        "parent.inputs.max_epoch}}",
        "unknown-parent-input",
        "no input max_epoch",
    ),
    "unknown job in a binding": (
        PIPELINE,
        "model: ${{parent.jobs.export.outputs.model}}",
        "model: ${{parent.jobs.exprot.outputs.model}}",
        "exprot",
        "unknown-job",
        "no job exprot",
    ),
    "unknown output in a binding": (
        PIPELINE,
        "model: ${{parent.jobs.export.outputs.model}}",
        "model: ${{parent.jobs.export.outputs.onnx}}",
        "outputs.onnx",
        "unknown-output",
        "has no output onnx, only model",
    ),
    "binding of no known form": (
        PIPELINE,
        "model: ${{parent.jobs.export.outputs.model}}",
        "model: ${{jobs.export.outputs.model}}",
        "{{jobs.export",
        "unknown-binding",
        "expected ${{parent.inputs.NAME}}",
    ),
    "input that the component does not declare": (
        PIPELINE,
        "      margin: ${{parent.inputs.margin}}",
        "      margin: ${{parent.inputs.margin}}\n      marign: 1",
        "marign: 1",
        "undeclared-input",
        "promote.yml has no input marign",
    ),
    "output that the component does not declare": (
        PIPELINE,
        "      decision: ${{parent.outputs.decision}}",
        "      decisoin: ${{parent.outputs.decision}}",
        "decisoin",
        "undeclared-output",
        "has no output decisoin",
    ),
    "required input missing": (
        PIPELINE,
        "      validation: ${{parent.jobs.evaluate.outputs.validation}}\n",
        "",
        "^    inputs:$",
        "missing-input",
        "expected the input validation of report.yml",
    ),
    "literal of the wrong type": (
        PIPELINE,
        "  max_epochs: 120",
        "  max_epochs: many",
        "max_epochs: many",
        "wrong-value",
        "expected integer, got 'many'",
    ),
    "literal that YAML takes for a truth value": (
        PIPELINE,
        "  model_name: helmet",
        "  model_name: on",
        "model_name: on",
        "wrong-value",
        "got True (boolean)",
    ),
    "literal out of range": (
        PIPELINE,
        "  max_epochs: 120",
        "  max_epochs: 0",
        "max_epochs: 0",
        "wrong-value",
        "expected 1 or more, got 0",
    ),
    "literal above its range": (
        PIPELINE,
        "  min_recall: 0.5",
        "  min_recall: 50",
        "min_recall: 50",
        "wrong-value",
        "expected at most 1, got 50",
    ),
    "literal not among the values allowed": (
        PIPELINE,
        "  on_error: stop",
        "  on_error: ignore",
        "on_error: ignore",
        "wrong-value",
        "expected one of stop, skip",
    ),
    "folder given as a file": (
        "components/promote.yml",
        "  model: {type: uri_folder}",
        "  model: {type: uri_file}",
        "model: ${{parent.jobs.export.outputs.model}}",
        "type-mismatch",
        "expected uri_file, is bound to uri_folder",
    ),
    "output of another type than the pipeline's": (
        PIPELINE,
        "  decision: {type: uri_folder}",
        "  decision: {type: uri_file}",
        "decision: ${{parent.outputs.decision}}",
        "type-mismatch",
        "the pipeline's output decision is uri_file",
    ),
    "text where a number is expected": (
        PIPELINE,
        "      max_epochs: ${{parent.inputs.max_epochs}}",
        "      max_epochs: ${{parent.inputs.recipe}}",
        "recipe: yolov3",
        "wrong-value",
        "which job train is given as max_epochs: expected integer",
    ),
    "cycle": (
        PIPELINE,
        "      validation: ${{parent.jobs.evaluate.outputs.validation}}",
        "      validation: ${{parent.jobs.export.outputs.model}}",
        "^  report:",
        "cycle",
        "jobs report, export, promote wait",
    ),
    "script absent from the code": (
        TRAIN,
        "python scripts/train.py",
        "python scripts/trian.py",
        "scripts/trian.py",
        "missing-script",
        "no such file",
    ),
    "code folder that is not there": (TRAIN, "code: ../..", "code: ../../src", "code:", "missing-code", "no such folder"),
    "misspelt key of the distribution": (
        PIPELINE,
        "      process_count_per_instance: 1",
        "      process_count_per_node: 1",
        "process_count_per_node",
        "unknown-key",
        "did you mean process_count_per_instance?",
    ),
    "misspelt key of a component": (
        EXPORT,
        "display_name: Export",
        "dispaly_name: Export",
        "dispaly",
        "unknown-key",
        "did you mean display_name?",
    ),
    "environment without a version": (
        EXPORT,
        "azureml:ppe-yolo:1",
        "azureml:ppe-yolo",
        "environment:",
        "missing-version",
        "azureml:ppe-yolo:VERSION",
    ),
    "environment version that no file declares": (
        EXPORT,
        "azureml:ppe-yolo:1",
        "azureml:ppe-yolo:7",
        "environment:",
        "unknown-reference",
        "declare version 1",
    ),
    "environment name misspelt": (
        EXPORT,
        "azureml:ppe-yolo:1",
        "azureml:ppe-yola:1",
        "environment:",
        "unknown-reference",
        "did you mean ppe-yolo?",
    ),
    "data without a version": (
        PIPELINE,
        "azureml:site-photos:1",
        "azureml:site-photos",
        "path:",
        "missing-version",
        "@latest",
    ),
    "illegal component name": (
        EXPORT,
        "name: ppe_yolo_export",
        "name: PPE-export",
        "name: PPE-export",
        "illegal-name",
        "lower-case",
    ),
    "component file that is not there": (
        PIPELINE,
        "component: ./components/export.yml",
        "component: ./components/exprot.yml",
        "exprot.yml",
        "missing-component",
        "no such component file",
    ),
    "cluster that no file declares": (
        PIPELINE,
        "default_compute: azureml:gpu-cluster",
        "default_compute: azureml:gpu-clutser",
        "default_compute",
        "unknown-reference",
        "did you mean gpu-cluster?",
    ),
    "cluster not written as a reference": (
        PIPELINE,
        "default_compute: azureml:gpu-cluster",
        "default_compute: gpu-cluster",
        "default_compute",
        "unknown-reference",
        "expected azureml:NAME",
    ),
    "no cluster at all": (
        PIPELINE,
        "settings:\n  default_compute: azureml:gpu-cluster\n",
        "settings:\n",
        "^  (train|evaluate):",
        "missing-compute",
        "expected compute",
    ),
    "unknown distribution": (
        PIPELINE,
        "      type: pytorch",
        "      type: pytoch",
        "type: pytoch",
        "unknown-distribution",
        "expected one of pytorch",
    ),
    "no instance": (
        PIPELINE,
        "      instance_count: 1",
        "      instance_count: 0",
        "instance_count: 0",
        "wrong-count",
        "1 or more",
    ),
    "unknown type of an input": (
        EXPORT,
        "  run: {type: uri_folder}",
        "  run: {type: uri_foldr}",
        "uri_foldr",
        "unknown-type",
        "got 'uri_foldr'",
    ),
    "default out of range": (
        EXPORT,
        "min: 1, default: 200",
        "min: 1, default: 0",
        "default: 0",
        "wrong-default",
        "expected 1 or more",
    ),
    "mode that an input cannot have": (
        PIPELINE,
        "    mode: ro_mount",
        "    mode: rw_mount",
        "mode: rw_mount",
        "unknown-mode",
        "got 'rw_mount'",
    ),
    "command with an input that is not declared": (
        EXPORT,
        "--max-drop ${{inputs.max_drop}}",
        "--max-drop ${{inputs.max_loss}} ${{inputs.max_drop}}",
        "inputs.max_loss",
        "undeclared-in-command",
        "no such input is declared",
    ),
    "command with an expression that does not end": (
        EXPORT,
        "--max-drop ${{inputs.max_drop}}",
        "--max-drop ${{inputs.max_drop ${{inputs.max_drop}}",
        "--max-drop",
        "unknown-binding",
        "got ${{inputs.max_drop",
    ),
    "input that the command does not use": (
        EXPORT,
        "--max-drop ${{inputs.max_drop}}",
        "--max-drop 1",
        "max_drop: {",
        "unused-port",
        "input max_drop",
    ),
    "optional input outside brackets": (
        TRAIN,
        "$[[--model.weights ${{inputs.weights}}]]",
        "--model.weights ${{inputs.weights}}",
        "--model.weights",
        "optional-not-bracketed",
        "put what needs it into",
    ),
    "output of the pipeline that no job writes": (
        PIPELINE,
        "      model: ${{parent.outputs.model}}\n",
        "      model: {mode: rw_mount}\n",
        "^  model: ",
        "unwritten-output",
        "expected one job that writes it, got none",
    ),
    "output of the pipeline that is not declared": (
        PIPELINE,
        "      run: ${{parent.outputs.run}}",
        "      run: ${{parent.outputs.runs}}",
        "parent.outputs.runs",
        "unknown-parent-output",
        "no output runs",
    ),
    "input of the pipeline that no job is given": (
        PIPELINE,
        "  seed: 0\n",
        "  seed: 0\n  sede: 0\n",
        "sede: 0",
        "unused-input",
        "no job is given it",
    ),
    "key that stands twice": (
        PIPELINE,
        "  seed: 0\n",
        "  seed: 0\n  seed: 1\n",
        "seed: 1",
        "duplicate-key",
        "for the second time",
    ),
    "no YAML": (GPU, "tier: low_priority", "tier: [low_priority", "", "unreadable", "expected YAML"),
    "conda file that is not there": (
        ENVIRONMENT,
        "conda_file: conda.yml",
        "conda_file: cnoda.yml",
        "conda_file",
        "missing-file",
        "no such file cnoda.yml",
    ),
    "more nodes at least than at most": (
        GPU,
        "min_instances: 0",
        "min_instances: 9",
        "min_instances",
        "wrong-count",
        "at most max_instances, 4",
    ),
    "unknown tier": (GPU, "tier: low_priority", "tier: spot", "tier: spot", "unknown-type", "got 'spot'"),
    "cron expression that Azure does not take": (
        WEEKLY,
        '"0 2 * * 0"',
        '"0 25 * * 0"',
        "expression",
        "wrong-schedule",
        "hour: expected numbers from 0 to 23",
    ),
    "cron expression of six fields": (
        WEEKLY,
        '"0 2 * * 0"',
        '"0 0 2 * * 0"',
        "expression",
        "wrong-schedule",
        "expected five fields",
    ),
    "schedule of a job that is not there": (
        WEEKLY,
        "../pipeline.yml",
        "../pipelin.yml",
        "create_job",
        "missing-file",
        "no such file",
    ),
    "entry script that is not there": (
        SCORE,
        "scripts/score_batch.py",
        "scripts/score.py",
        "entry_script",
        "missing-script",
        "no such file",
    ),
    "schema that there is not": (
        GPU,
        "amlCompute.schema.json",
        "amlcomput.schema.json",
        "schema.json",
        "unknown-schema",
        "expected one of",
    ),
    "no type": (EXPORT, "type: command\n", "", "", "missing-key", "expected type"),
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our YAML, with empty scripts: lint only looks whether they are there. Azure's validation has a test of its own."""
    shutil.copytree(ROOT / "azureml", tmp_path / "azureml", ignore=shutil.ignore_patterns("devops", "infra"))
    (tmp_path / "scripts").mkdir()
    for script in (ROOT / "scripts").glob("*.py"):
        (tmp_path / "scripts" / script.name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ppe_yolo.azure.lint.lint.validate", lambda files: None)
    return tmp_path


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found(name: str, checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    file, text, becomes, where, kind, message = PLANTED[name]
    path = checkout / "azureml" / file
    before = path.read_text()
    assert before.count(text) >= 1
    path.write_text(before.replace(text, becomes, 1))
    assert run_cli("azureml", "lint", "azureml") == 1
    found = [
        match.groups()
        for line in capsys.readouterr().out.splitlines()
        if (match := re.fullmatch(r"(\S+?):(\d+): (.*) \[(\S+)\]", line))
    ]
    assert [m for m in found if m[3] == kind and message in m[2]], found
    for at, number, _, its_kind in found:
        if its_kind == kind and where:
            line = (checkout / at).read_text().splitlines()[int(number) - 1]
            assert re.search(where if where.startswith("^") else re.escape(where), line), (at, number, line)


def test_lint_has_nothing_to_say_against_ours(checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("azureml", "lint", "azureml") == 0
    printed = capsys.readouterr().out
    assert "0 mistakes" in printed
    assert "Azure's own validation was not run" in printed.replace("\n", " ")
    files = [p for p in (checkout / "azureml").rglob("*.yml") if "$schema" in p.read_text()]
    assert f"{len(files)} files checked" in printed


def test_a_later_version_of_data_is_no_mistake(checkout: Path, run_cli: RunCli) -> None:
    path = checkout / "azureml" / PIPELINE
    path.write_text(path.read_text().replace("azureml:site-photos:1", "azureml:site-photos:17"))
    assert run_cli("azureml", "lint", "azureml") == 0
