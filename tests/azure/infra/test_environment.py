"""The environment of Azure ML installs the dependencies in pyproject.toml."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

# which the documentation of Azure ML lists for environments of parallel jobs
PARALLEL = ("azureml-core", "azureml-dataset-runtime[fuse]", "azureml-telemetry")
ROOT = Path(__file__).resolve().parents[3]


def test_conda_file_lists_the_dependencies_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # azureml installs the full mlflow instead of mlflow-skinny
    listed = (*project["dependencies"], *extras["azureml"], *extras["blob"], *extras["registry"])
    expected = {r for r in listed if not r.startswith(("mlflow-skinny", "torch>", "torchvision>"))}
    (pip,) = [d["pip"] for d in yaml.safe_load((ROOT / "azureml/environments/conda.yml").read_text())["dependencies"][2:]]
    added = ("--", "torch==", "torchvision==", *PARALLEL)
    requirements = [line for line in pip if not line.startswith(added)]
    assert set(requirements) == expected
    assert len(pip) == len(set(pip))


def test_conda_file_pins_torch_to_builds_that_the_drivers_of_azure_support() -> None:
    """Builds for CUDA 13 need driver 580; the nodes have 535. `--index-url` would hide PyPI from every other line."""
    (pip,) = [d["pip"] for d in yaml.safe_load((ROOT / "azureml/environments/conda.yml").read_text())["dependencies"][2:]]
    assert [line for line in pip if line.startswith("--")] == ["--extra-index-url https://download.pytorch.org/whl/cu126"]
    pins = {line.partition("==")[0]: line.partition("==")[2] for line in pip if line.startswith(("torch==", "torchvision=="))}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, version in pins.items():
        assert version.endswith("+cu126")
        (declared,) = [Requirement(r) for r in project["dependencies"] if re.match(rf"{name}[><=!]", r)]
        assert declared.specifier.contains(Version(version).public)
    assert set(pins) == {"torch", "torchvision"}


def test_conda_file_has_the_packages_of_parallel_jobs() -> None:
    (pip,) = [d["pip"] for d in yaml.safe_load((ROOT / "azureml/environments/conda.yml").read_text())["dependencies"][2:]]
    assert {p for p in PARALLEL if any(line.startswith(p) for line in pip)} == set(PARALLEL)


def test_training_on_azure_requires_a_gpu_by_default() -> None:
    inputs = yaml.safe_load((ROOT / "azureml/pipeline.yml").read_text())["inputs"]
    assert inputs["accelerator"] == "gpu"
    command = yaml.safe_load((ROOT / "azureml/components/train.yml").read_text())["command"]
    assert "--trainer.accelerator ${{inputs.accelerator}}" in command
    assert "--trainer.precision ${{inputs.precision}}" in command
