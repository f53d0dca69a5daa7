"""Which objects lie inside others, such as a vest inside a person or a bare head inside a person."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppe_edge.rules.geometry import enlarged
from ppe_yolo.core.boxes import pairwise_iou

NEAR = 0.1  # margin within which an object is still inside, as a fraction of the size of the larger box
HEAD_SHARE = 1 / 3  # of the height of a person, from the top: where a helmet is worn

Boxes = NDArray[np.float32]


def are_inside(boxes_xyxy: Boxes, containers_xyxy: Boxes) -> NDArray[np.bool_]:
    """Returns for each box [N, 4] whether its centre lies inside or near one of the larger boxes [M, 4]: [N]."""
    return np.asarray(_centres_inside(boxes_xyxy, enlarged(containers_xyxy, NEAR)).any(axis=1), dtype=np.bool_)


def have_one(objects_xyxy: Boxes, worn_xyxy: Boxes, worn_at: Literal["body", "head"]) -> NDArray[np.bool_]:
    """Returns for each object [N, 4] whether one of the worn objects [M, 4] belongs to it: [N].

    A worn object belongs to one object at most: to the one that it overlaps most, among those in which its centre lies where it
    is worn.
    """
    found = np.zeros(len(objects_xyxy), dtype=np.bool_)
    if not len(objects_xyxy) or not len(worn_xyxy):
        return found
    where = enlarged(objects_xyxy, NEAR)
    if worn_at == "head":
        where[:, 3] = objects_xyxy[:, 1] + HEAD_SHARE * (objects_xyxy[:, 3] - objects_xyxy[:, 1])
    possible = _centres_inside(worn_xyxy, where)  # [M, N]
    overlap = np.where(possible, pairwise_iou(worn_xyxy, objects_xyxy), -1.0)
    for worn, owner in enumerate(overlap.argmax(axis=1)):
        found[owner] |= possible[worn, owner]
    return found


def _centres_inside(boxes_xyxy: Boxes, containers_xyxy: Boxes) -> NDArray[np.bool_]:
    """Returns whether the centre of each box [N, 4] lies in each of the others [M, 4]: [N, M]."""
    centres = ((boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2)[:, None]
    return np.asarray((centres >= containers_xyxy[None, :, :2]).all(-1) & (centres <= containers_xyxy[None, :, 2:]).all(-1))
