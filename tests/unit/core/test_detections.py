"""The detections of one image."""

import numpy as np

from ppe_yolo.core.detections import Detections


def test_detections_select_by_mask_positions_and_slice() -> None:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    detections = Detections(boxes, np.array([0.9, 0.5, 0.2], np.float32), np.array([1, 0, 1]))
    strong = detections.select(detections.scores >= 0.5)
    assert len(detections) == 3 and len(strong) == 2
    assert strong.boxes_xyxy.tolist() == boxes[:2].tolist() and strong.labels.tolist() == [1, 0]
    assert detections.select(np.array([2, 0])).labels.tolist() == [1, 1]
    assert detections.select(slice(1)).boxes_xyxy.tolist() == boxes[:1].tolist()
