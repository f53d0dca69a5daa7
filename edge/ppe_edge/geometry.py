"""Boxes and polygons. numpy alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def pairwise_iou(a_xyxy: Floats, b_xyxy: Floats) -> NDArray[np.float32]:
    """Overlap of each box [N, 4] with each box [M, 4], 0..1: [N, M]."""
    inner = _pairwise_intersection(a_xyxy, b_xyxy)
    union = _areas(a_xyxy)[:, None] + _areas(b_xyxy)[None] - inner
    return np.asarray(inner / np.maximum(union, 1e-9), dtype=np.float32)


def pairwise_cover(a_xyxy: Floats, b_xyxy: Floats) -> NDArray[np.float32]:
    """Part of the smaller box of each pair that lies in the other, 0..1: [N, M]; 1 for a box within another."""
    smaller = np.minimum(_areas(a_xyxy)[:, None], _areas(b_xyxy)[None])
    return np.asarray(_pairwise_intersection(a_xyxy, b_xyxy) / np.maximum(smaller, 1e-9), dtype=np.float32)


def _pairwise_intersection(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    return np.asarray(np.prod(np.clip(high - low, 0.0, None), axis=2))


def _areas(boxes_xyxy: Floats) -> Floats:
    return np.asarray(np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1))


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
