"""Boxes and polygons. numpy alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def pairwise_iou(a_xyxy: Floats, b_xyxy: Floats) -> NDArray[np.float32]:
    """Overlap of each box [N, 4] with each box [M, 4], 0..1: [N, M]."""
    return _iou(*_inner_and_areas(a_xyxy, b_xyxy))


def pairwise_iou_and_cover(a_xyxy: Floats, b_xyxy: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Overlap of each box [N, 4] with each box [M, 4], and the part of the smaller of the two that lies in the other.

    Both are [N, M], 0..1; of a box within another, the part is 1.
    """
    inner, a_area, b_area = _inner_and_areas(a_xyxy, b_xyxy)
    cover = inner / np.maximum(np.minimum(a_area, b_area), 1e-9)
    return _iou(inner, a_area, b_area), np.asarray(cover, dtype=np.float32)


def _iou(inner: Floats, a_area: Floats, b_area: Floats) -> NDArray[np.float32]:
    return np.asarray(inner / np.maximum(a_area + b_area - inner, 1e-9), dtype=np.float32)


def _inner_and_areas(a_xyxy: Floats, b_xyxy: Floats) -> tuple[Floats, Floats, Floats]:
    """Area that each two boxes share [N, M], and their own areas [N, 1], [1, M]."""
    a, b = a_xyxy.T[:, :, None], b_xyxy.T[:, None]  # coordinates first: numpy is slow where the last axis is short
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0)
    a_size, b_size = a[2:] - a[:2], b[2:] - b[:2]
    return shared[0] * shared[1], a_size[0] * a_size[1], b_size[0] * b_size[1]


def enlarged(boxes_xyxy: Floats, part: float) -> Floats:
    """Boxes [N, 4] that are larger by a part of their own width and height on every side."""
    margin = part * (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])
    return np.concatenate((boxes_xyxy[:, :2] - margin, boxes_xyxy[:, 2:] + margin), axis=1)


def is_inside(x: float, y: float, polygon: Sequence[tuple[float, float]]) -> bool:
    """Whether a point lies in a polygon, by the crossings of a ray to the right; its upper and left edges belong to it."""
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            inside = not inside
    return inside
