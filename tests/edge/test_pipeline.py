"""The pipeline of one camera: what the snapshot of an alert shows."""

import cv2
import numpy as np
import pytest
from helpers import HIDDEN
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.delivery.messages import Alert, ModelReference, close_unseen
from ppe_edge.monitoring.telemetry import Collected, Telemetry
from ppe_edge.pictures.snapshot import SnapshotConfig, make_snapshot
from ppe_edge.pipeline import Model, Pipeline
from ppe_edge.rules.camera_rules import CameraRules
from ppe_edge.rules.config import RuleConfig
from ppe_edge.rules.tracker import TrackerConfig

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

CONTRACT = ModelContract(
    ("helmet", "none"), (64, 64), alarm_thresholds={"helmet": 0.5, "none": 0.5}, display_names={"none": "bare head"}
)
SNAPSHOT = SnapshotConfig(quality=100)
GREY = np.full((200, 300, 3), 90, np.uint8)
LEFT, RIGHT = (50, 100, 90, 140), (150, 100, 190, 140)


def a_pipeline(submit, name="default", **rule):
    """A pipeline whose rule decides by two frames of two."""
    rules = {name: RuleConfig(seconds=None, frames=2, of=2, **rule)}
    return Pipeline(
        camera="gate",
        rules=CameraRules(rules, CONTRACT, TrackerConfig()),
        snapshot=SNAPSHOT,
        hidden=HIDDEN,
        model=Model(CONTRACT, ModelReference(name="m.onnx", sha256="0" * 64)),
        submit=submit,
        telemetry=Telemetry(Collected(dict, dict, lambda: True)),
    )


def is_marked(jpeg, box):
    """Whether a thick red line runs next to a head: three pixels from it, beyond the reach of a thin one."""
    blue, green, red = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[120, box[0] - 3]
    return bool(red > 150 and green < 100 and blue < 100)


def test_snapshot_marks_alarmed_head_and_live_view_all_alarmed_heads():
    submitted = []

    def submit(message, render=None, label=""):
        submitted.append((message, render and render(), label))

    pipeline = a_pipeline(submit)
    # one head appears in the first frame, the other in the fourth; each raises its alert in its second frame
    for number, boxes in enumerate([[LEFT], [LEFT], [LEFT], [LEFT, RIGHT], [LEFT, RIGHT]]):
        found = Detections(np.array(boxes, np.float32), np.full(len(boxes), 0.9, np.float32), np.ones(len(boxes), np.int64))
        pipeline.process(Frame(camera="gate", number=number, time=number / 10, monotonic=number / 10, image=GREY), found)
    assert [(type(m), m.track, is_marked(p, LEFT), is_marked(p, RIGHT), label) for m, p, label in submitted] == [
        (Alert, 1, True, False, "bare head"), (Alert, 2, False, True, "bare head"),
    ]  # fmt: skip
    live = make_snapshot(pipeline.view, SNAPSHOT, pipeline.view.alarmed)
    assert is_marked(live, LEFT) and is_marked(live, RIGHT)
    helmets = Detections(np.array([LEFT, RIGHT], np.float32), np.full(2, 0.9, np.float32), np.zeros(2, np.int64))
    for number in (5, 6):
        pipeline.process(Frame(camera="gate", number=number, time=number / 10, monotonic=number / 10, image=GREY), helmets)
    assert pipeline.view.alarmed == frozenset()


def messages_with_clock(corrections, certain=()):
    """The alert and the message that closes it: a bare head in all frames but the last two, 10 frames per second."""
    submitted = []
    pipeline = a_pipeline(lambda message, *_: submitted.append(message))
    for number, correction in enumerate(corrections):
        label = 1 if number < len(corrections) - 2 else 0
        found = Detections(np.array([LEFT], np.float32), np.full(1, 0.9, np.float32), np.full(1, label))
        frame = Frame(
            camera="gate",
            number=number,
            time=2e9 + number / 10,
            monotonic=number / 10,
            image=GREY,
            correction=correction,
            is_time_certain=number not in certain,
        )
        pipeline.process(frame, found)
    return submitted


def test_intact_clock_gives_certain_times():
    alert, closed = messages_with_clock([5.0] * 6)
    assert (alert.time.timestamp(), closed.started.timestamp(), closed.time.timestamp()) == (2e9 + 5.1, 2e9 + 5.0, 2e9 + 5.3)
    assert not alert.time_uncertain and not closed.time_uncertain
    assert "time_uncertain" not in alert.to_json() + closed.to_json()


def test_clock_set_back_during_violation_never_makes_times_run_backwards():
    alert, closed = messages_with_clock([0.0] * 3 + [-3600.0] * 3)
    assert closed.started <= alert.time <= closed.time and closed.duration_s == pytest.approx(0.3)
    assert not alert.time_uncertain and closed.time_uncertain and '"time_uncertain":true' in closed.to_json()


def test_clock_set_after_start_raises_alert_at_once_and_closes_it_with_new_time():
    alert, closed = messages_with_clock([-1e9] * 3 + [0.0] * 3, certain={0, 1, 2})
    assert alert.time_uncertain and alert.time.timestamp() == pytest.approx(1e9 + 0.1)
    assert closed.time_uncertain and closed.time.timestamp() == pytest.approx(2e9 + 0.3)
    assert closed.duration_s == pytest.approx(0.3)


def test_violation_continues_when_resolution_changes():
    submitted = []
    pipeline = a_pipeline(lambda message, *_: submitted.append(message), cooldown_s=0)
    for number in range(9):
        factor = 1 if number < 3 else 4 if number < 6 else 2
        box = np.array([LEFT], np.float32) * factor
        found = Detections(box, np.full(1, 0.9, np.float32), np.ones(1, np.int64))
        image = np.full((200 * factor, 300 * factor, 3), 90, np.uint8)
        pipeline.process(Frame(camera="gate", number=number, time=number / 10, monotonic=number / 10, image=image), found)
    assert [type(message) for message in submitted] == [Alert] and len(pipeline.open) == 1


@pytest.mark.parametrize(
    ("name", "severity", "expected"),
    [
        ("default", "warning", (1, None, None)),
        ("default", "critical", (2, "default", "critical")),
        ("lane", "warning", (2, "lane", "warning")),
    ],
)
def test_messages_have_version_2_only_with_named_rule_or_other_severity(name, severity, expected):
    """Consumers of version 1 get what they always got until somebody names rules."""
    submitted = []
    pipeline = a_pipeline(lambda message, *_: submitted.append(message), name, severity=severity)
    found = Detections(np.array([LEFT], np.float32), np.full(1, 0.9, np.float32), np.ones(1, np.int64))
    for number in range(2):
        pipeline.process(Frame(camera="gate", number=number, time=number / 10, monotonic=number / 10, image=GREY), found)
    pipeline.close()
    alert, closed = submitted
    unseen = close_unseen(alert, 0.0)  # after a crash
    assert [(m.schema_version, m.rule, m.severity) for m in (alert, closed, unseen)] == [expected] * 3
    assert ('"rule"' in alert.to_json(), '"severity"' in closed.to_json()) == (expected[0] == 2,) * 2
