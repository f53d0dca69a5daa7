"""The registry: versions, their files, and which of them is the champion."""

from pathlib import Path

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.gate.registry import Registry, registry_uri


def test_register_inside_job_uses_its_run(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    run = registry._client.create_run(registry._experiment())
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    (tmp_path / "files").mkdir()
    for text in ("one", "two"):
        (tmp_path / "files/decision.json").write_text(text)
        assert registry.register(tmp_path / "files", {}).tags["run_id"] == run.info.run_id
    for version, text in zip(registry.versions(), ("one", "two"), strict=True):
        (tmp_path / text).mkdir()
        assert (registry.files(version, tmp_path / text) / "decision.json").read_text() == text
    assert registry._client.get_run(run.info.run_id).info.status == "RUNNING"  # the job ends it


def test_registry_two_champions_last_promotion_counts(tmp_path: Path, registry: Registry) -> None:
    """Of two champions the one promoted last counts, and the next promotion repairs the tags."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/decision.json").write_text("{}")
    first, second, third = (registry.register(tmp_path / "files", {}) for _ in range(3))
    registry.promote(first)
    registry._tag(second.number, "promotion", "2")
    assert registry.champion().number == first.number  # it died before the second became champion
    registry._tag(second.number, "stage", "champion")
    assert registry.champion().number == second.number  # it died before it retired the first
    old, new = registry.roll_back()
    assert (old.number, new.number) == (second.number, first.number)
    with registry.locked():
        registry.promote(third)
    assert [v.tags["stage"] for v in registry.versions()] == ["retired", "rejected", "champion"]


def test_registry_uri_comes_from_option_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="got neither it nor MLFLOW_TRACKING_URI"):
        registry_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "azureml://east")
    assert registry_uri(None) == "azureml://east"
    assert registry_uri("sqlite:///a.db") == "sqlite:///a.db"
    with pytest.raises(UserError, match="expected sqlite:///FILE"):
        registry_uri("sqlite:///")


@pytest.mark.parametrize("parameters", ["", "?timeout=30"])
def test_registry_file_is_missing_until_it_exists(tmp_path: Path, parameters: str) -> None:
    file = tmp_path / "registry.db"
    registry = Registry(f"sqlite:///{file}{parameters}", "helmet")
    assert registry.missing_file == file
    file.touch()
    assert registry.missing_file is None
