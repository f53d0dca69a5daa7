"""Anchors fitted to a data set: k-means with 1 - IoU as the distance (Redmon & Farhadi 2017, section 2)."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.boxes import iou_of_sizes
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage


def letterboxed_sizes(
    images: Iterable[AnnotatedImage], sizes: dict[str, tuple[int, int]], input_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Sizes of all boxes after the letterbox: [N, 2] width and height in pixels of the input.

    Args:
        images: Photos with objects.
        sizes: Photo -> (height, width).
        input_size: (height, width) of the network's input.
    """
    rows = []
    for image in images:
        height, width = sizes[image.image]
        scale = min(input_size[0] / height, input_size[1] / width)
        rows += [((o.box_xyxy[2] - o.box_xyxy[0]) * scale, (o.box_xyxy[3] - o.box_xyxy[1]) * scale) for o in image.objects]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def fit_anchors(boxes_wh: NDArray[np.float64], k: int, *, seed: int = 0, rounds: int = 300) -> NDArray[np.float64]:
    """The k sizes that cover the boxes best.

    Args:
        boxes_wh: [N, 2] width and height, pixels.
        k: How many.
        seed: Of the first choice (k-means++).
        rounds: At most so many; it stops when nothing moves.

    Returns:
        [k, 2] width and height in rising order of area.

    Raises:
        UserError: Fewer different boxes than k.
    """
    different = len(np.unique(boxes_wh, axis=0))
    if different < k:
        raise UserError(f"anchors: expected at least {k} boxes of different sizes, got {different}: add photos")
    rng = np.random.default_rng(seed)
    centres = boxes_wh[rng.integers(len(boxes_wh))][None]
    while len(centres) < k:
        distance = (1 - iou_of_sizes(boxes_wh, centres).max(1)).clip(min=0) ** 2
        centres = np.concatenate((centres, boxes_wh[rng.choice(len(boxes_wh), p=distance / distance.sum())][None]))
    owner = np.full(len(boxes_wh), -1)
    for _ in range(rounds):
        nearest = iou_of_sizes(boxes_wh, centres).argmax(1)
        if (nearest == owner).all():
            break
        owner = nearest
        # the median is not drawn to a few huge boxes; an anchor that lost all its boxes stays where it is
        centres = np.stack([np.median(boxes_wh[owner == i], 0) if (owner == i).any() else c for i, c in enumerate(centres)])
    return centres[np.argsort(centres.prod(1))]


def mean_best_iou(boxes_wh: NDArray[np.float64], anchors_wh: NDArray[np.float64]) -> float:
    """How well anchors [K, 2] cover boxes [N, 2]: mean over the boxes of the best IoU."""
    return float(iou_of_sizes(boxes_wh, anchors_wh).max(1).mean())
