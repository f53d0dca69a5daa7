"""The whole pipeline on drawn images, from a bare checkout: killed during training, resumed, finished."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EPOCHS = 10
# heads of 6 to 20 pixels, learned quickly without augmentation, so that every later step has detections to work on
RECIPE = """
model:
  architecture: yolov3-tiny
  anchors_wh: [[6, 6], [8, 8], [11, 11], [14, 14], [18, 18], [24, 24]]
  optimizer: {name: adamw, lr: 0.004, warmup_epochs: 0.5, weight_decay: 0.0}
  loss: {assign: {dynamic: false}}  # so few steps give detections only with many positives from the start
data:
  augment: {mosaic: 0.0, scale: [1.0, 1.0], translate: 0.0, rotate: 0.0, flip: 0.0, color: 0.0}
ema: {decay: 0}
"""
OUTPUTS = {
    "data_set": ["voc_trainval.txt", "voc_test.txt", "class_map.yaml", "audit.json"],
    "run": ["config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"],
    "validation": ["metrics.json", "detections.json", "ground_truth.json"],
    "test": ["metrics.json", "detections.json", "ground_truth.json"],
    "validation_report": ["report.html", "results.txt", "operating_point.json"],
    "test_report": ["report.html", "results.txt"],
    "model": ["model.onnx", "model.int8.onnx"],
    "model_evaluation": ["metrics.json"],
    "decision": ["decision.json"],
}


def descendants(pid: int) -> list[int]:
    """A process and all its descendants, also those in other process groups."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in table.splitlines()}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps, to kill a run with all its processes")
def test_pipeline_killed_during_training_resumes_and_writes_every_output(tiny_site: Path, tmp_path: Path) -> None:
    for folder in ("azureml", "scripts", "ppe_yolo"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "devops", "infra"))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    settings = {
        "data": tiny_site, "recipe": "recipe.yaml", "max_epochs": EPOCHS, "height": 96, "width": 128, "smallest_side": 128,
        "largest_side": 128, "batch_size": 4, "num_workers": 0, "val_fraction": 0.25, "rule": "recall>=0.01",
        "calibration_photos": 8, "max_drop": 100, "min_recall": 0,
        "accelerator": "cpu", "precision": "32-true",
    }  # fmt: skip
    options = [f"--set=inputs.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "ppe_yolo.cli", "azureml", "run", "azureml/pipeline.yml", "--local", "--out=out", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "PPE_YOLO"))}
    last, log = tmp_path / "out/named-outputs/run/checkpoints/last.ckpt", tmp_path / "out/train/artifacts/user_logs/std_log.txt"

    with (tmp_path / "first.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT, env=environment)
    end = time.monotonic() + 600
    while not (last.is_file() and "epoch 2 of" in log.read_text()):
        assert process.poll() is None, (tmp_path / "first.txt").read_text()
        assert time.monotonic() < end, "no checkpoint after ten minutes"
        time.sleep(0.05)
    for pid in descendants(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert json.loads((tmp_path / "out/train/job.json").read_text())["status"] == "running"
    assert f"epoch {EPOCHS} of" not in log.read_text()
    first = log.read_text()

    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment, timeout=1500)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "prepare: already done with the same inputs" in result.stdout
    assert "train: resuming with the outputs of the interrupted run" in result.stdout
    second = log.read_text().removeprefix(first)
    assert "epoch 1 of" not in second  # it did not start from scratch
    assert f"epoch {EPOCHS} of {EPOCHS}" in second
    for output_name, files in OUTPUTS.items():
        for file in files:
            assert (tmp_path / "out/named-outputs" / output_name / file).stat().st_size > 0, file
    assert list((tmp_path / "out/named-outputs/run").glob("events.out.tfevents.*"))
    decision = json.loads((tmp_path / "out/named-outputs/decision/decision.json").read_text())
    assert decision["promoted"] and decision["version"] == 1

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/out/mlflow.db")
    tags = client.get_model_version("helmet", "1").tags
    assert tags["stage"] == "champion" and float(tags["map_50"]) >= 0
    run = json.loads((tmp_path / "out/train/job.json").read_text())["mlflow_run_id"]
    metrics = client.get_metric_history(run, "val/map_50")  # of both starts, in one run
    assert len(metrics) >= EPOCHS
