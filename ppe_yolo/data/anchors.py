"""Anchors fitted to a data set: k-means with the distance 1 - IoU (Redmon & Farhadi 2017, section 2)."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.boxes import iou_of_sizes
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage

ROUNDS = 300
# the default anchors of each architecture, in pixels at 416, for charts; the networks have their own copy
DEFAULT_ANCHORS_WH: Mapping[str, tuple[tuple[int, int], ...]] = {
    "yolov3": ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)),
    "yolov3-small": ((8, 10), (11, 14), (15, 19), (20, 25), (28, 34), (38, 46), (54, 65), (90, 108), (180, 216)),
    "yolov3-tiny": ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)),
}


def letterboxed_sizes(
    images: Iterable[AnnotatedImage], sizes: Mapping[str, tuple[int, int]], input_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Sizes of all boxes after the letterbox.

    Args:
        images: Images with objects.
        sizes: Image -> (height, width), pixels.
        input_size: (height, width) of the network's input.

    Returns:
        [N, 2] width and height in pixels of the input.
    """
    rows = []
    for image in images:
        height, width = sizes[image.image]
        scale = min(input_size[0] / height, input_size[1] / width)
        rows += [((o.box_xyxy[2] - o.box_xyxy[0]) * scale, (o.box_xyxy[3] - o.box_xyxy[1]) * scale) for o in image.objects]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def fit_anchors(boxes_wh: NDArray[np.float64], k: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Fits k anchors to boxes, until no box changes its anchor or after `ROUNDS` iterations.

    Args:
        boxes_wh: [N, 2] width and height, pixels.
        k: Number of anchors.
        seed: Seed of the initial anchors (k-means++).

    Returns:
        [k, 2] width and height, in ascending order of area.

    Raises:
        UserError: Fewer different boxes than k.
    """
    different = len(np.unique(boxes_wh, axis=0))
    if different < k:
        raise UserError(
            "too few boxes to fit anchors",
            expected=f"at least {k} boxes of different sizes",
            got=str(different),
            hint="add images",
        )
    rng = np.random.default_rng(seed)
    centres = boxes_wh[rng.integers(len(boxes_wh))][None]
    while len(centres) < k:
        distance = (1 - iou_of_sizes(boxes_wh, centres).max(1)).clip(min=0) ** 2
        centres = np.concatenate((centres, boxes_wh[rng.choice(len(boxes_wh), p=distance / distance.sum())][None]))
    owner = np.full(len(boxes_wh), -1)
    for _ in range(ROUNDS):
        nearest = iou_of_sizes(boxes_wh, centres).argmax(1)
        if (nearest == owner).all():
            break
        owner = nearest
        # the median is robust against a few huge boxes; an anchor without boxes stays where it is
        centres = np.stack([np.median(boxes_wh[owner == i], 0) if (owner == i).any() else c for i, c in enumerate(centres)])
    return centres[np.argsort(centres.prod(1))]


def mean_best_iou(boxes_wh: NDArray[np.float64], anchors_wh: NDArray[np.float64]) -> float:
    """Mean over the boxes [N, 2] of the IoU with the best anchor of [K, 2]."""
    return float(iou_of_sizes(boxes_wh, anchors_wh).max(1).mean())
