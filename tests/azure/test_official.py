"""Azure's own validation of our YAML, where azure-ai-ml is installed (`pip install '.[azureml]'`); nothing else is needed."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from ppe_yolo.azure.lint.lint import lint
from ppe_yolo.azure.lint.official import is_installed, validate
from ppe_yolo.azure.yaml.assets import kind_of, yaml_files
from ppe_yolo.azure.yaml.document import read_document

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not is_installed(), reason="azure-ai-ml is not installed: pip install '.[azureml]'")


def ours() -> list[tuple[Path, str]]:
    files = [(f, kind_of(read_document(f).value)) for f in yaml_files(ROOT / "azureml")]
    return [(f, kind) for f, kind in files if kind]


@pytest.mark.parametrize(("path", "kind"), ours(), ids=lambda value: getattr(value, "name", value))
def test_azure_loads_and_validates_each_file(path: Path, kind: str) -> None:
    assert validate([(path, kind)]) == []


def test_lint_runs_azures_validation_too(tmp_path: Path) -> None:
    """A mistake that ours does not look for, planted in a copy: Azure's finds it, with its file."""
    shutil.copytree(ROOT / "azureml", tmp_path / "azureml", ignore=shutil.ignore_patterns("devops", "infra"))
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    with (tmp_path / "printed.txt").open("w") as file:
        console = Console(file=file, width=1000)
        assert lint(tmp_path / "azureml", console) == []
        weekly = tmp_path / "azureml/schedules/weekly.yml"
        weekly.write_text(weekly.read_text().replace("time_zone: UTC", "start_time: soon"))
        found = lint(tmp_path / "azureml", console)
    assert [m.path for m in found] == [weekly]
    assert found[0].kind == "azure-ai-ml"
    assert "was not run" not in (tmp_path / "printed.txt").read_text()


def test_the_code_that_azure_takes_has_every_package_and_no_photo() -> None:
    from azure.ai.ml._utils._asset_utils import AmlIgnoreFile

    ignore = AmlIgnoreFile(ROOT)
    taken = [p for p in (ROOT / "ppe_yolo").rglob("*.py") if not ignore.is_file_excluded(p)]
    assert len(taken) == len(list((ROOT / "ppe_yolo").rglob("*.py")))
    assert not ignore.is_file_excluded(ROOT / "ppe_yolo/data/class_maps/default.yaml")
    for left_out in ("data/site-photos/JPEGImages/1.jpg", "runs/a/checkpoints/last.ckpt", "tests/conftest.py", ".git/config"):
        assert ignore.is_file_excluded(ROOT / left_out), left_out
