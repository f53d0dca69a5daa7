"""The whole loop: verdicts on a box become training data, and the model that is trained with them runs on the box.

Every step is the real command. The bundled weights are hardly trained, for one epoch on images of 96 x 128 pixels, so the
limits of the gate are low: the test follows files and facts, not figures.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import serving_folder, wait_until
from ppe_edge.config import load_settings
from ppe_edge.delivery.alert_history import AlertQuery
from ppe_edge.runtime import Runtime
from ppe_edge.verdicts.desk import Decision
from running_box import configure, running

from conftest import GREY, RED  # isort: skip
from ppe_yolo.core import timing
from ppe_yolo.data.sources.voc import read_voc_annotation
from ppe_yolo.gate.registry import Registry

RunCli = Callable[..., int]
FIT = [
    *("fit", "--config", "yolov3-small", "--model.weights", "helmet-small", "--data.input_size", "[96,128]"),
    *("--data.multi_scale", "null", "--data.batch_size", "8", "--data.num_workers", "0", "--trainer.max_epochs", "1"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"),
    *("--model.optimizer.lr", "1e-6"),  # so that they still detect heads
]
DECISIONS = [
    Decision(verdict="confirmed"),
    Decision(verdict="false_alarm", actual="helmet"),
    Decision(verdict="false_alarm", actual="other"),
]
LOW_LIMITS = ("--min-recall", 0, "--max-latency-ms", 60_000)


@pytest.mark.nightly
def test_verdicts_become_training_data_and_the_trained_model_runs_on_the_box(
    tmp_path: Path,
    tiny_model: Path,
    tiny_site: Path,
    empty_registry_file: Path,
    make_clip: Callable[..., Path],
    endless: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    settings = {"verdicts": {"frames": "full"}, "rule": {"alarm_threshold": 0.6, "cooldown_s": 0}}
    judge_alerts(
        configure(tmp_path, tiny_model, {"gate": make_clip(tmp_path / "clip.mp4", [(RED, 30), (GREY, 30)] * 3)}, **settings)
    )

    verdicts, run, new = tmp_path / "state" / "training", tmp_path / "run", tmp_path / "new" / "model.onnx"
    checkpoint, database = run / "checkpoints" / "best.ckpt", shutil.copy(empty_registry_file, tmp_path / "registry.db")
    drawn = [read_voc_annotation(file).objects for file in (verdicts / "Annotations").iterdir()]
    assert sorted([object.class_name for object in objects] for objects in drawn) == [[], ["helmet"], ["none"]]
    assert run_cli("audit", verdicts) == 0
    extra = json.dumps([str(verdicts)])
    caplog.set_level(logging.INFO)
    assert run_cli(*FIT, "--data.root", tiny_site, "--data.extra_roots", extra, "--run_dir", run) == 0
    assert re.search(rf"data: {re.escape(str(verdicts))}: [1-9]\d* training images", caplog.text)
    assert run_cli("evaluate", checkpoint, "--data", tiny_site, "--split", "val", "--out", run / "val") == 0
    val = ("--detections", run / "val" / "detections.json", "--data", tiny_site, "--split", "val")
    assert run_cli("report", *val, "--rule", "recall>=0.01", "--out", run / "val") == 0
    assert run_cli("export", checkpoint, "--operating-point", run / "val" / "operating_point.json", "--out", new) == 0
    assert run_cli("evaluate", new, "--data", tiny_site, "--split", "test", "--out", run / "test") == 0
    registry = f"sqlite:///{database}"
    assert run_cli("promote", new, "--evaluation", run / "test", "--registry", registry, *LOW_LIMITS) == 0
    assert Registry(registry, "helmet").champion() is not None

    config = configure(tmp_path, tiny_model, {"gate": endless}, **settings)
    sha256 = hashlib.sha256(new.read_bytes()).hexdigest()
    with serving_folder(new.parent) as address, running(config) as (runtime, control):
        control.apply({"model": {"url": f"{address}/{new.name}", "sha256": sha256}})
        assert control.reported()["model"]["sha256"] == control.health()["model"]["sha256"] == sha256
        assert "twin: applied model" in caplog.text
        wait_until(lambda: (view := runtime.pipelines["gate"].view) is not None and view.contract is runtime.detector.contract)


def judge_alerts(config: Path) -> None:
    """Runs a box on a video with three alerts, and judges each."""
    runtime = Runtime(load_settings(config))
    runtime.start()
    assert runtime.wait(60.0)
    alerts = runtime.desk.history.alerts(AlertQuery())
    for past, decision in zip(alerts, DECISIONS, strict=True):
        assert runtime.desk.decide(past.alert.id, decision) is not None
    assert runtime.stop() and not runtime.failed
