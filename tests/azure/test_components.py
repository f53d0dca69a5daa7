"""The commands of azureml/components."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ppe_yolo.azure.lint.linter import load_checked_pipeline
from ppe_yolo.azure.yaml.bindings import Own, resolve_command
from ppe_yolo.cli import app

ROOT = Path(__file__).resolve().parents[2]


def arguments_of(job: str, tmp_path: Path, settings: list[str] | None = None, **variables: str) -> list[list[str]]:
    """The arguments of each Python script that a step of the pipeline starts, after bash has evaluated its command."""
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/pipeline.yml", settings or ())
    step = pipeline.jobs[job]
    assert step.component is not None

    def value(own: Own) -> str | None:
        port = (step.component.inputs if own.side == "inputs" else step.component.outputs)[own.name]  # type: ignore[union-attr]
        if port.optional:
            return None
        given = pipeline.inputs.get(own.name)
        default = port.default if given is None or given.default is None else given.default
        return str(tmp_path / own.name) if port.is_path else str(default)

    python = tmp_path / "python"
    python.write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\" ---\n")
    python.chmod(0o755)
    result = subprocess.run(
        ["bash", "-c", resolve_command(step.component.value["command"], value)],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [part.splitlines() for part in result.stdout.removesuffix("---\n").split("---\n")]


@pytest.mark.parametrize(
    ("variables", "nodes", "devices"),
    [
        ({"WORLD_SIZE": "1"}, "1", "1"),  # only the documented variables
        ({"WORLD_SIZE": "4", "AZUREML_NODE_COUNT": "2"}, "2", "2"),
    ],
)
def test_train_counts_nodes_and_devices(variables: dict[str, str], nodes: str, devices: str, tmp_path: Path) -> None:
    (arguments,) = arguments_of("train", tmp_path, **variables)
    assert arguments[arguments.index("--trainer.num_nodes") + 1] == nodes
    assert arguments[arguments.index("--trainer.devices") + 1] == devices


def test_promote_passes_the_critical_class_of_the_pipeline(tmp_path: Path) -> None:
    _, promote = arguments_of("promote", tmp_path, ["inputs.critical_class=helmet"])
    assert promote[promote.index("--critical-class") + 1] == "helmet"


def test_promote_uses_the_identity_of_the_cluster(tmp_path: Path) -> None:
    """DefaultAzureCredential reads AZURE_CLIENT_ID; without it, a cluster with a user-assigned identity has no credential."""
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/pipeline.yml", ())
    assert pipeline.jobs["promote"].value["identity"] == {"type": "managed"}
    python = tmp_path / "python"
    python.write_text("#!/usr/bin/env bash\necho $AZURE_CLIENT_ID\n")
    python.chmod(0o755)
    component = pipeline.jobs["promote"].component
    assert component is not None
    command = resolve_command(component.value["command"], lambda own: "x")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DEFAULT_IDENTITY_CLIENT_ID": "cluster-id"}
    result = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["cluster-id"] * 2


def test_images_are_downloaded_for_training_and_uploaded_by_prepare() -> None:
    """Every epoch reads every image; a mount would transfer each small file by itself."""
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/pipeline.yml", ())
    assert pipeline.jobs["train"].inputs["data_set"]["mode"] == "download"
    large, _ = load_checked_pipeline(ROOT / "azureml/prepare-large.yml", ())
    for each in (pipeline, large):
        component = each.jobs["prepare"].component
        assert component is not None
        assert each.value["outputs"]["data_set"]["mode"] == component.value["outputs"]["data_set"]["mode"] == "upload"


COMMANDS = {
    "prepare_data.py": "prepare",
    "evaluate.py": "evaluate",
    "report.py": "report",
    "export_onnx.py": "export",
    "quantize.py": "quantize",
    "promote.py": "promote",
}


@pytest.mark.parametrize("job", ["prepare", "evaluate", "report", "export", "promote"])
def test_components_use_existing_options(job: str, tmp_path: Path) -> None:
    """The options of every script exist; nothing is run."""
    commands: Any = typer.main.get_command(app)
    for script, *arguments in arguments_of(job, tmp_path):
        command = commands.commands[COMMANDS[Path(script).name]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= known
