"""azure-ai-ml's own validation of the repository's YAML; needs `pip install '.[azureml]'` and no network."""

import shutil
from pathlib import Path

import pytest
import yaml

from ppe_yolo.azure.lint.linter import lint, load_checked_pipeline
from ppe_yolo.azure.lint.official import is_installed, validate
from ppe_yolo.azure.publish import pipeline_component
from ppe_yolo.azure.yaml.assets import kind_of, yaml_files
from ppe_yolo.azure.yaml.document import read_document

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(not is_installed(), reason="azure-ai-ml is not installed: pip install '.[azureml]'")


def own_files() -> list[tuple[Path, str]]:
    files = [(f, kind_of(read_document(f).value)) for f in yaml_files(ROOT / "azureml")]
    return [(f, kind) for f, kind in files if kind]


@pytest.mark.parametrize(("path", "kind"), own_files(), ids=lambda value: getattr(value, "name", value))
def test_validate_own_file_has_no_mistakes(path: Path, kind: str) -> None:
    assert validate([(path, kind)]) == []


def test_validate_pipeline_component_has_no_mistakes(tmp_path: Path) -> None:
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/pipeline.yml", ())
    file = tmp_path / "training.yml"
    file.write_text(yaml.safe_dump(pipeline_component(pipeline, "17")))
    assert validate([(file, "pipeline component")]) == []


def test_lint_reports_mistakes_of_azure_ai_ml(tmp_path: Path) -> None:
    """A mistake that only azure-ai-ml finds."""
    shutil.copytree(ROOT / "azureml", tmp_path / "azureml", ignore=shutil.ignore_patterns("devops", "infra"))
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    assert lint(tmp_path / "azureml").mistakes == ()
    cluster = tmp_path / "azureml/compute/gpu-cluster.yml"
    cluster.write_text(cluster.read_text() + "enable_node_public_ip: sometimes\n")
    report = lint(tmp_path / "azureml")
    assert [m.path for m in report.mistakes] == [cluster]
    assert report.mistakes[0].kind == "azure-ai-ml"
    assert report.azure_validated


def test_amlignore_keeps_all_packages_and_excludes_images() -> None:
    from azure.ai.ml._utils._asset_utils import AmlIgnoreFile

    ignore = AmlIgnoreFile(ROOT)
    uploaded = [p for p in (ROOT / "ppe_yolo").rglob("*.py") if not ignore.is_file_excluded(p)]
    assert len(uploaded) == len(list((ROOT / "ppe_yolo").rglob("*.py")))
    assert not ignore.is_file_excluded(ROOT / "ppe_yolo/data/class_maps/default.yaml")
    for excluded in ("data/site-photos/JPEGImages/1.jpg", "runs/a/checkpoints/last.ckpt", "tests/conftest.py", ".git/config"):
        assert ignore.is_file_excluded(ROOT / excluded), excluded
