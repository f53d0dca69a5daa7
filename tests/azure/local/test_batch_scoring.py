"""azureml/batch-scoring.yml."""

from pathlib import Path

import yaml

from ppe_yolo.azure.lint.linter import load_checked_pipeline

ROOT = Path(__file__).resolve().parents[3]


def test_batch_scoring_model_is_the_one_that_the_gate_registers() -> None:
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/batch-scoring.yml", ())
    model = pipeline.value["inputs"]["model"]
    name = yaml.safe_load((ROOT / "azureml/pipeline.yml").read_text())["inputs"]["model_name"]
    assert model["path"].startswith(f"azureml:{name}:")
    assert model["type"] == "custom_model"


def test_batch_scoring_mini_batch_of_one_large_zip_file_ends_in_time() -> None:
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/batch-scoring.yml", ["jobs.score.mini_batch_size=1"])
    score = pipeline.jobs["score"]
    assert str(score.setting("mini_batch_size")) == "1"
    images, seconds = 10_000, 1.6  # YOLOv3 in onnxruntime, with two workers on a busy node of two cores
    assert score.setting("retry_settings", "timeout") > images * seconds
