"""Intersection over union (IoU) of boxes, in numpy. `ppe_yolo.model.boxes` has the same for torch tensors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_TINY_AREA = 1e-9  # square pixels; keeps the IoU of two empty boxes at 0


def intersection_and_areas(a_xyxy: Floats, b_xyxy: Floats, *, border: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Computes the area that boxes share, and their own areas, in square pixels.

    Coordinates come first, since numpy is slow if the last axis is short.

    Args:
        a_xyxy: The first boxes, [4, ...].
        b_xyxy: The second boxes, [4, ...]; their shape must broadcast with that of the first ones.
        border: Added to each width and height: 1 for Pascal VOC, where x2 and y2 are the last pixels inside a box.

    Returns:
        The intersections, in the broadcast shape, and the areas of the first and of the second boxes.
    """
    shared = np.minimum(a_xyxy[2:], b_xyxy[2:]) - np.maximum(a_xyxy[:2], b_xyxy[:2])
    size_a, size_b = a_xyxy[2:] - a_xyxy[:2], b_xyxy[2:] - b_xyxy[:2]
    if border:
        shared, size_a, size_b = shared + border, size_a + border, size_b + border
    shared = np.maximum(shared, 0.0)
    return shared[0] * shared[1], size_a[0] * size_a[1], size_b[0] * size_b[1]


def pairwise_iou(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """Returns the IoU of each box [N, 4] with each box [M, 4]: [N, M], 0..1. Empty boxes give 0."""
    return _iou(*intersection_and_areas(a_xyxy.T[:, :, None], b_xyxy.T[:, None]))


def pairwise_iou_and_cover(a_xyxy: Floats, b_xyxy: Floats) -> tuple[Floats, Floats]:
    """Returns the IoU of each box [N, 4] with each box [M, 4], and the share of the smaller box that lies inside the other.

    Both are [N, M], 0..1. The share is 1 for a box inside another one.
    """
    intersection, area_a, area_b = intersection_and_areas(a_xyxy.T[:, :, None], b_xyxy.T[:, None])
    cover = intersection / np.maximum(np.minimum(area_a, area_b), _TINY_AREA)
    return _iou(intersection, area_a, area_b), cover


def iou_of_sizes(a_wh: Floats, b_wh: Floats) -> Floats:
    """Returns the IoU of boxes that share their centre: [N, 2], [M, 2] -> [N, M] (Redmon & Farhadi 2017, section 2)."""
    intersection = np.minimum(a_wh[:, None], b_wh[None]).prod(-1)
    return _iou(intersection, a_wh.prod(-1)[:, None], b_wh.prod(-1)[None])


def _iou(intersection: Floats, area_a: Floats, area_b: Floats) -> Floats:
    return intersection / np.maximum(area_a + area_b - intersection, _TINY_AREA)
