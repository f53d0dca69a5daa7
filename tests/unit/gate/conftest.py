"""A registry on sqlite."""

import shutil
from pathlib import Path

import pytest

from ppe_yolo.gate.registry import Registry


@pytest.fixture
def registry(tmp_path: Path, empty_registry_file: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return Registry(f"sqlite:///{shutil.copy(empty_registry_file, tmp_path / 'registry.db')}", "helmet")
