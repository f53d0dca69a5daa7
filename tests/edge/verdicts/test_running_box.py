"""A real box: the frame of an alert, judged on the page, becomes training data."""

from collections.abc import Callable
from pathlib import Path

from ppe_edge.config import load_settings
from ppe_edge.delivery.alert_history import AlertQuery
from ppe_edge.runtime import Runtime
from ppe_edge.verdicts.desk import Decision
from running_box import configure, delivered

from conftest import GREY, HEAD_XYXY, RED  # isort: skip
from ppe_yolo.data.sources.voc import read_voc_annotation


def test_judged_alert_is_sent_and_becomes_training_data(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 30), (GREY, 30)])
    settings = {"verdicts": {"frames": "full"}, "rule": {"alarm_threshold": 0.6}}
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": clip}, **settings)))
    runtime.start()
    assert runtime.wait(60.0)
    [past] = runtime.desk.history.alerts(AlertQuery())
    assert past.closed is not None and runtime.desk.has_frame(past.alert)
    assert runtime.desk.threshold(past.alert) == 0.6  # of the rule; the model says 0.5
    assert runtime.desk.threshold(past.alert.model_copy(update={"camera": "yard"})) is None
    judged = runtime.desk.decide(past.alert.id, Decision(verdict="false_alarm", actual="helmet"))
    assert judged is not None and judged.verdict is not None
    assert runtime.stop() and not runtime.failed
    [sent] = delivered(tmp_path, "alert_verdict")
    assert (sent["id"], sent["alert"], sent["actual"]) == (judged.verdict.id, past.alert.id, "helmet")
    [annotation] = (tmp_path / "state" / "training" / "Annotations").iterdir()
    [drawn] = read_voc_annotation(annotation).objects
    assert (drawn.class_name, drawn.box_xyxy) == ("helmet", HEAD_XYXY)
