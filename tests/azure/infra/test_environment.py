"""The environment of Azure ML installs the dependencies in pyproject.toml."""

import os
import re
import shutil
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from ppe_yolo.azure.lint.linter import lint

# which the documentation of Azure ML lists for environments of parallel jobs
PARALLEL = ("azureml-core", "azureml-dataset-runtime[fuse]", "azureml-telemetry")
ROOT = Path(__file__).resolve().parents[3]
# the request for the digest of the base image: without these types, the registry sends that of another form of the manifest
_DOCKER, _OCI = "application/vnd.docker.distribution.manifest", "application/vnd.oci.image.index"
HEADERS_ONLY = ["-sSfI", "-H", f"Accept: {_DOCKER}.v2+json,{_DOCKER}.list.v2+json,{_OCI}.v1+json"]
MANIFESTS = "https://mcr.microsoft.com/v2/azureml/openmpi5.0-cuda12.4-ubuntu22.04/manifests"


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
    # PyTorch releases them in pairs: torch 2.11 and torchvision 0.26, torch 2.14 and torchvision 0.29
    minors = {name: Version(version).minor for name, version in pins.items()}
    assert minors["torchvision"] == minors["torch"] + 15 and set(pins) == {"torch", "torchvision"}


def test_conda_file_has_the_packages_of_parallel_jobs() -> None:
    (pip,) = [d["pip"] for d in yaml.safe_load((ROOT / "azureml/environments/conda.yml").read_text())["dependencies"][2:]]
    assert {p for p in PARALLEL if any(line.startswith(p) for line in pip)} == set(PARALLEL)


def test_training_on_azure_requires_a_gpu_by_default() -> None:
    inputs = yaml.safe_load((ROOT / "azureml/pipeline.yml").read_text())["inputs"]
    assert inputs["accelerator"] == "gpu"
    command = yaml.safe_load((ROOT / "azureml/components/train.yml").read_text())["command"]
    assert "--trainer.accelerator ${{inputs.accelerator}}" in command
    assert "--trainer.precision ${{inputs.precision}}" in command


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A copy of lock.sh. uv and curl are stand-ins: neither PyTorch's index nor Microsoft's registry is needed."""
    folder = tmp_path / "azureml/environments"
    shutil.copytree(ROOT / "azureml/environments", folder)
    commands = {
        "uv": 'cat > "$0.in"; printf "%s\\n" "numpy==2.4.6" "torch==2.11.0+cu126"',
        "curl": 'printf "HTTP/2 200\\r\\nDocker-Content-Digest: sha256:0a1b\\r\\n"',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f'#!/usr/bin/env bash\nprintf \'%s\\n\' "$@" > "$0.arguments"\n{text}\n')
        (tmp_path / name).chmod(0o755)
    return folder / "lock.sh"


def run_lock(lock: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, list[str]]]:
    """Runs lock.sh; returns the process, and the arguments of uv and curl."""
    folder = lock.parents[2]
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", lock], env=environment, capture_output=True, text=True, check=False)
    return done, {file.stem: file.read_text().splitlines() for file in folder.glob("*.arguments")}


def test_lock_writes_exact_versions_that_lint_accepts(lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lock.parent
    done, arguments = run_lock(lock)
    assert done.returncode == 0, done.stderr
    conda_file, image = (line.partition(": ")[2] for line in done.stdout.splitlines())
    assert image == "mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04@sha256:0a1b"
    pip = yaml.safe_load((folder / conda_file).read_text())["dependencies"][2]["pip"]
    assert pip == ["--extra-index-url https://download.pytorch.org/whl/cu126", "numpy==2.4.6", "torch==2.11.0+cu126"]
    assert {("--python-version", "3.11"), ("--python-platform", "x86_64-manylinux_2_28")} <= set(pairwise(arguments["uv"]))
    assert arguments["curl"] == [*HEADERS_ONLY, f"{MANIFESTS}/latest"]
    assert "torch==2.11.0+cu126" in (tmp_path / "uv.in").read_text().splitlines()  # all lines of conda.yml
    file = folder / "ppe-yolo.yml"
    text = re.sub("image: .*", f"image: {image}", file.read_text()).replace(
        "conda_file: conda.yml", f"conda_file: {conda_file}"
    )
    file.write_text(text)
    monkeypatch.setattr("ppe_yolo.azure.lint.linter.validate", lambda files: None)
    (mistake,) = lint(file).mistakes
    version = re.search("expected ([0-9a-f]{12})", mistake.message)
    assert mistake.kind == "outdated-version" and version is not None
    file.write_text(re.sub('version: ".*"', f'version: "{version[1]}"', text))
    assert lint(file).mistakes == ()
    # and once more, with the digest instead of the tag, and another Python
    conda = folder / "conda.yml"
    conda.write_text(conda.read_text().replace("python=3.11", "python=3.12"))
    again, arguments = run_lock(lock)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert arguments["curl"] == [*HEADERS_ONLY, f"{MANIFESTS}/sha256:0a1b"]
    assert ("--python-version", "3.12") in pairwise(arguments["uv"])


def test_lock_without_the_registry_ends_with_one_line_and_keeps_the_files(lock: Path, tmp_path: Path) -> None:
    (tmp_path / "curl").write_text('#!/usr/bin/env bash\necho "curl: (6) Could not resolve host" >&2\nexit 6\n')
    files = sorted(lock.parent.iterdir())
    done, arguments = run_lock(lock)
    assert done.returncode == 2 and done.stdout == "" and arguments == {}
    assert done.stderr.splitlines() == [
        "lock: ppe-yolo.yml: image: mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04:latest: "
        "curl: (6) Could not resolve host: check the name and the connection to mcr.microsoft.com"
    ]
    assert sorted(lock.parent.iterdir()) == files
