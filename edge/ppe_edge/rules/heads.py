"""Which detections are heads: one per head, whatever its class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.boxes import pairwise_iou_and_cover
from ppe_yolo.core.detections import Detections

# Two detections that overlap more than this are one head, whatever their classes. The NMS of the model only merges detections
# of the same class; what remains are a head with and without its neck, or with and without the helmet.
SAME_HEAD_IOU, SAME_HEAD_COVER = 0.4, 0.75
# A detection from this fraction of its alarm threshold on may be a head.
NEAR_THRESHOLD = 0.5


def suppress_duplicates(
    detections: Detections, low_score: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Keeps the strongest detection of each head, whatever its class; returns boxes, scores, labels by descending score."""
    (chosen,) = (detections.scores >= low_score).nonzero()
    chosen = chosen[(-detections.scores[chosen]).argsort(kind="stable")]
    boxes = detections.boxes_xyxy[chosen]
    iou, cover = pairwise_iou_and_cover(boxes, boxes)
    same_head = (iou > SAME_HEAD_IOU) | (cover > SAME_HEAD_COVER)
    suppressed = np.zeros(len(chosen), dtype=bool)  # by a stronger detection that is kept
    kept: list[int] = []
    for i in range(len(chosen)):
        if not suppressed[i]:
            kept.append(i)
            suppressed |= same_head[i]
    chosen = chosen[kept]
    return boxes[kept], detections.scores[chosen], detections.labels[chosen]


def possible_heads(detections: Detections, thresholds: Sequence[float]) -> NDArray[np.float32]:
    """Returns the boxes [N, 4] of the detections near their alarm threshold, one per head, whether they are tracked or not.

    Weaker detections are mostly no heads: pixelated, they would hide whole workers and what the snapshot is to show.

    Args:
        detections: Detections in the frame.
        thresholds: Alarm threshold of each label.
    """
    near = detections.scores >= NEAR_THRESHOLD * np.asarray(thresholds)[detections.labels]
    return suppress_duplicates(detections.select(near), 0.0)[0]
