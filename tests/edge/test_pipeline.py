"""The pipeline of one camera: what the snapshot of an alert shows."""

import cv2
import numpy as np
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.delivery.messages import Alert, ModelReference
from ppe_edge.pictures.snapshot import SnapshotConfig, make_snapshot
from ppe_edge.pipeline import Model, Pipeline
from ppe_edge.rules.tracker import Tracker, TrackerConfig
from ppe_edge.rules.violations import RuleConfig
from ppe_edge.telemetry import Collected, Telemetry

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

CONTRACT = ModelContract(
    ("helmet", "none"), (64, 64), alarm_thresholds={"helmet": 0.5, "none": 0.5}, display_names={"none": "bare head"}
)
GREY = np.full((200, 300, 3), 90, np.uint8)
LEFT, RIGHT = (50, 100, 90, 140), (150, 100, 190, 140)


def is_marked(jpeg, box):
    """Whether a thick red line runs next to a head: three pixels from it, beyond the reach of a thin one."""
    blue, green, red = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[120, box[0] - 3]
    return bool(red > 150 and green < 100 and blue < 100)


def test_snapshot_marks_alarmed_head_and_live_view_all_alarmed_heads():
    submitted = []

    def submit(message, render=None, label=""):
        submitted.append((message, render and render(), label))

    telemetry = Telemetry(Collected(dict, dict, lambda: True))
    rule, config = RuleConfig(seconds=None, frames=2, of=2), SnapshotConfig(quality=100)
    model = Model(CONTRACT, ModelReference(name="m.onnx", sha256="0" * 64))
    pipeline = Pipeline(
        camera="gate",
        tracker=Tracker(TrackerConfig()),
        rule=rule,
        snapshot=config,
        model=model,
        submit=submit,
        telemetry=telemetry,
    )
    # one head appears in the first frame, the other in the fourth; each raises its alert in its second frame
    for number, boxes in enumerate([[LEFT], [LEFT], [LEFT], [LEFT, RIGHT], [LEFT, RIGHT]]):
        found = Detections(np.array(boxes, np.float32), np.full(len(boxes), 0.9, np.float32), np.ones(len(boxes), np.int64))
        pipeline.process(Frame(camera="gate", number=number, time=number / 10, monotonic=number / 10, image=GREY), found)
    assert [(type(m), m.track, is_marked(p, LEFT), is_marked(p, RIGHT), label) for m, p, label in submitted] == [
        (Alert, 1, True, False, "bare head"), (Alert, 2, False, True, "bare head"),
    ]  # fmt: skip
    live = make_snapshot(pipeline.view, config, pipeline.view.alarmed)
    assert is_marked(live, LEFT) and is_marked(live, RIGHT)
    helmets = Detections(np.array([LEFT, RIGHT], np.float32), np.full(2, 0.9, np.float32), np.zeros(2, np.int64))
    for number in (5, 6):
        pipeline.process(Frame(camera="gate", number=number, time=number / 10, monotonic=number / 10, image=GREY), helmets)
    assert pipeline.view.alarmed == frozenset()
