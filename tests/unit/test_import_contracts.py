"""The import contracts in pyproject.toml: `lint-imports` reports forbidden imports, planted in a copy of the packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copied_packages(tmp_path: Path) -> Path:
    python_only = shutil.ignore_patterns("__pycache__", "*.ckpt", "*.onnx", "*.png")
    shutil.copytree(ROOT / "ppe_yolo", tmp_path / "ppe_yolo", ignore=python_only)
    shutil.copytree(ROOT / "edge" / "ppe_edge", tmp_path / "ppe_edge", ignore=python_only)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},  # or it would wrap what it reports
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_lint_imports_passes_for_the_packages_as_they_are(copied_packages: Path) -> None:
    code, output = lint_imports(copied_packages)
    assert code == 0, output


PLANTED = [  # module, import, what the contract reports
    ("ppe_yolo/core/letterbox.py", "from ppe_yolo.data import images", "ppe_yolo.core.letterbox -> ppe_yolo.data.images"),
    ("ppe_yolo/inference/tiled.py", "import ppe_yolo.gate", "ppe_yolo.inference.tiled -> ppe_yolo.gate"),
    ("ppe_yolo/data/audit/habits.py", "import ppe_yolo.data.dataset", "ppe_yolo.data.audit.habits -> ppe_yolo.data.dataset"),
    ("ppe_yolo/core/boxes.py", "import torch", "ppe_yolo.core.boxes -> torch"),
    ("ppe_yolo/core/files.py", "import yaml", "ppe_yolo.core.files -> yaml"),
    ("ppe_yolo/evaluation/report/texts.py", "import torchmetrics", "ppe_yolo.evaluation.report.texts -> torchmetrics"),
    ("ppe_edge/cameras/sources.py", "from ppe_yolo.data import splits", "ppe_edge.cameras.sources -> ppe_yolo.data.splits"),
    ("ppe_edge/rules/tracker.py", "import ppe_yolo.model.boxes", "ppe_edge.rules.tracker -> ppe_yolo.model.boxes"),
    ("ppe_edge/runtime.py", "from ppe_yolo.tracking import sqlite_file", "ppe_edge.runtime -> ppe_yolo.tracking"),
    ("ppe_edge/pipeline.py", "from ppe_yolo import load_detector", "ppe_edge.pipeline -> ppe_yolo"),
    ("ppe_edge/control.py", "import ppe_yolo.added_later", "ppe_edge.control -> ppe_yolo.added_later"),
    ("ppe_edge/rules/votes.py", "import ppe_edge.web.server", "ppe_edge.rules.votes -> ppe_edge.web.server"),
    ("ppe_yolo/training/matchers.py", "import pytorch_lightning", "ppe_yolo.training.matchers -> pytorch_lightning"),
]


def test_lint_imports_reports_each_planted_import(copied_packages: Path) -> None:
    (copied_packages / "ppe_yolo" / "added_later.py").write_text('"""A module that no contract names."""\n')
    for module, statement, _ in PLANTED:
        with (copied_packages / module).open("a") as file:
            file.write(f"\n{statement}\n")
    code, output = lint_imports(copied_packages)
    assert code == 1
    assert "KEPT" not in output  # each contract is broken by one of them
    missing = [reported for *_, reported in PLANTED if f"{reported} (l." not in output]
    assert not missing, output
