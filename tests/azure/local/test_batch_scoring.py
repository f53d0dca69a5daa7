"""azureml/batch-scoring.yml."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml

from ppe_yolo.azure.lint.linter import load_checked_pipeline
from ppe_yolo.weights import find_model

RunCli = Callable[..., int]
ROOT = Path(__file__).resolve().parents[3]


def test_batch_scoring_model_is_the_one_that_the_gate_registers() -> None:
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/batch-scoring.yml", ())
    model = pipeline.value["inputs"]["model"]
    name = yaml.safe_load((ROOT / "azureml/pipeline.yml").read_text())["inputs"]["model_name"]
    assert model["path"].startswith(f"azureml:{name}:")
    assert model["type"] == "custom_model"


def test_batch_scoring_item_ends_in_time() -> None:
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/batch-scoring.yml", ())
    score = pipeline.jobs["score"]
    assert str(score.setting("mini_batch_size")) == "1"
    seconds = 1.6  # an image with YOLOv3 in onnxruntime, with two workers on a busy node of two cores
    assert score.setting("retry_settings", "timeout") > 2 * pipeline.value["inputs"]["images_per_item"] * seconds


def test_batch_scoring_workers_use_each_core_once() -> None:
    pipeline, _ = load_checked_pipeline(ROOT / "azureml/batch-scoring.yml", ())
    score = pipeline.jobs["score"]
    cluster = yaml.safe_load((ROOT / "azureml/compute/cpu-cluster.yml").read_text())
    cores = int(re.findall(r"_[A-Z]+(\d+)", cluster["size"])[0])
    assert score.component is not None
    assert score.setting("max_concurrency_per_instance") * score.component.inputs["threads"].default == cores


def test_batch_scoring_runs_locally_with_four_workers(tiny_site: Path, tmp_path: Path, run_cli: RunCli) -> None:
    """Folders, zip files and files that are no images: every image has one line, in the order of the files."""
    data, model = tmp_path / "data", tmp_path / "model"
    images = sorted((tiny_site / "JPEGImages").iterdir())[:4]
    (data / "deep").mkdir(parents=True)
    shutil.copy(images[0], data / "deep/a.jpg")
    (data / "deep/a.xml").write_text("<annotation/>")
    with zipfile.ZipFile(data / "z.zip", "w") as archive:
        for image in images[1:]:
            archive.write(image, image.name)
    model.mkdir()
    shutil.copy(find_model("helmet-small", "onnx"), model / "model.onnx")
    settings = [f"inputs.photos={data}", f"inputs.model={model}", "inputs.images_per_item=1"]
    options = [word for setting in settings for word in ("--set", setting)]
    pipeline = str(ROOT / "azureml/batch-scoring.yml")
    assert run_cli("azureml", "run", pipeline, "--local", "--out", str(tmp_path / "run"), *options) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/named-outputs/predictions").read_text().splitlines()]
    assert [r["image"] for r in rows] == ["deep/a.jpg", *(f"z.zip/{image.name}" for image in images[1:])]
    assert all("detections" in r for r in rows)
