"""One camera's pictures after the model: what the picture of an alert shows."""

import cv2
import numpy as np
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.delivery.messages import Alert, ModelReference
from ppe_edge.pictures.snapshot import SnapshotConfig, make_snapshot
from ppe_edge.pipeline import Model, Pipeline
from ppe_edge.rules.tracker import Tracker, TrackerConfig
from ppe_edge.rules.violations import RuleConfig
from ppe_edge.telemetry import Asked, Telemetry

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

CONTRACT = ModelContract(("helmet", "none"), (64, 64), alarm_thresholds={"helmet": 0.5, "none": 0.5})
GREY = np.full((200, 300, 3), 90, np.uint8)
LEFT, RIGHT = (50, 100, 90, 140), (150, 100, 190, 140)


def is_marked(jpeg, box):
    """Whether a thick red line runs beside a head: three pixels from it, where a thin one does not reach."""
    blue, green, red = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[120, box[0] - 3]
    return bool(red > 150 and green < 100 and blue < 100)


def test_the_picture_of_an_alert_marks_the_head_that_raised_it_and_the_live_one_all_that_are_bare():
    told = []

    def put(message, picture):
        told.append((message, picture))
        return message.id

    telemetry = Telemetry(Asked(dict, dict, lambda: True))
    rule, config = RuleConfig(seconds=None, frames=2, of=2), SnapshotConfig(quality=100)
    model = Model(CONTRACT, ModelReference(name="m.onnx", sha256="0" * 64))
    pipeline = Pipeline("gate", Tracker(TrackerConfig()), rule, config, model, put, telemetry)
    # one comes with the first picture, the other with the fourth; each is told of with its second
    for number, boxes in enumerate([[LEFT], [LEFT], [LEFT], [LEFT, RIGHT], [LEFT, RIGHT]]):
        found = Detections(np.array(boxes, np.float32), np.full(len(boxes), 0.9, np.float32), np.ones(len(boxes), np.int64))
        pipeline.process(Frame("gate", number, number / 10, number / 10, GREY), found)
    assert [(type(m), m.track, is_marked(p, LEFT), is_marked(p, RIGHT)) for m, p in told] == [
        (Alert, 1, True, False), (Alert, 2, False, True),
    ]  # fmt: skip
    live = make_snapshot(pipeline.view, config, pipeline.view.alarmed)
    assert is_marked(live, LEFT) and is_marked(live, RIGHT)
    helmets = Detections(np.array([LEFT, RIGHT], np.float32), np.full(2, 0.9, np.float32), np.zeros(2, np.int64))
    for number in (5, 6):
        pipeline.process(Frame("gate", number, number / 10, number / 10, GREY), helmets)
    assert pipeline.view.alarmed == frozenset()
