"""The import contracts in pyproject.toml: a forbidden import, planted in a copy of the packages, breaks `lint-imports`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def copied_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contracts")
    python_only = shutil.ignore_patterns("__pycache__", "*.ckpt", "*.onnx", "*.png")
    shutil.copytree(ROOT / "ppe_yolo", folder / "ppe_yolo", ignore=python_only)
    shutil.copytree(ROOT / "edge" / "ppe_edge", folder / "ppe_edge", ignore=python_only)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_lint_imports_passes_for_the_packages_as_they_are(copied_packages: Path) -> None:
    code, output = lint_imports(copied_packages)
    assert code == 0, output


@pytest.mark.parametrize(
    ("module", "planted", "broken"),
    [
        ("ppe_edge/cameras/sources.py", "from ppe_yolo.data import class_map", "The box imports nothing"),
        ("ppe_edge/rules/tracker.py", "from ppe_yolo.model.boxes import pairwise_iou", "The box imports nothing"),
        ("ppe_edge/runtime.py", "from ppe_yolo.tracking import sqlite_file", "The box imports nothing"),
        ("ppe_edge/runtime.py", "from ppe_yolo import load_detector", "The box imports nothing"),
        ("ppe_edge/runtime.py", "import ppe_yolo.added_later", "The box imports nothing"),
        ("ppe_yolo/core/boxes.py", "import torch", "The core imports numpy"),
        ("ppe_yolo/core/files.py", "import yaml", "The core imports numpy"),
        ("ppe_yolo/core/letterbox.py", "from ppe_yolo.data import images", "Dependencies point one way"),
    ],
)
def test_lint_imports_fails_for_a_planted_import(copied_packages: Path, module: str, planted: str, broken: str) -> None:
    (copied_packages / "ppe_yolo" / "added_later.py").write_text('"""A module that no contract names."""\n')
    file = copied_packages / module
    before = file.read_text()
    try:
        file.write_text(f"{before}\n{planted}\n")
        code, output = lint_imports(copied_packages)
    finally:
        file.write_text(before)
        (copied_packages / "ppe_yolo" / "added_later.py").unlink()
    assert code == 1
    assert any(line.startswith(broken) and "BROKEN" in line for line in output.splitlines()), output
