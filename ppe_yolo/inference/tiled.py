"""Small heads from distant cameras: searches the whole image and overlapping tiles, each at the full input size."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.boxes import pairwise_iou
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.letterbox import require_image
from ppe_yolo.inference.detector import Detector

OVERLAP = 0.2  # of a tile's side; every tile may cut a larger object, which the whole image shows
AT_ONCE = 16  # images in a batch, which limits the memory of many tiles
EDGE = 2.0  # pixels; a box that comes this close to an inner edge of its tile is cut by it


class TiledDetector:
    """Runs another detector on the whole image and on its tiles.

    Args:
        detector: The detector to run.
        tiles: Number of rows and columns of tiles, at least 2.
    """

    def __init__(self, detector: Detector, tiles: int) -> None:
        self.contract = detector.contract
        self.detector = detector
        self.tiles = tiles

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detects objects in RGB images; see `Detector.detect`."""
        return [self._detect(image) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Detections:
        require_image(image)
        windows = tile_windows(image.shape[0], image.shape[1], self.tiles)
        views = [image, *(image[y1:y2, x1:x2] for x1, y1, x2, y2 in windows)]
        batches = (views[start : start + AT_ONCE] for start in range(0, len(views), AT_ONCE))
        whole, *parts = [detections for batch in batches for detections in self.detector.detect(batch)]
        every = [whole, *(drop_cut(part, window, image.shape[:2]) for part, window in zip(parts, windows, strict=True))]
        merged = Detections(
            np.concatenate([d.boxes_xyxy for d in every]),
            np.concatenate([d.scores for d in every]),
            np.concatenate([d.labels for d in every]),
        )
        kept = suppress(merged, self.contract.nms_iou_threshold)
        return kept.select(slice(self.contract.max_detections))


def suppress(detections: Detections, iou_threshold: float) -> Detections:
    """Non-maximum suppression, each class on its own, for detections in any order.

    Args:
        detections: The detections.
        iou_threshold: If two detections of one class overlap more than this, the one with the lower score is dropped.
    """
    ordered = detections.select(np.argsort(-detections.scores, kind="stable"))
    boxes_xyxy, labels = ordered.boxes_xyxy, ordered.labels
    kept = np.ones(len(ordered), dtype=bool)
    for i in range(len(ordered)):
        if kept[i]:  # row by row: a matrix of all pairs of many tiles takes gigabytes
            overlaps = pairwise_iou(boxes_xyxy[i : i + 1], boxes_xyxy[i + 1 :])[0] > iou_threshold
            kept[i + 1 :] &= ~(overlaps & (labels[i + 1 :] == labels[i]))
    return ordered.select(kept)


def tile_windows(height: int, width: int, tiles: int) -> list[tuple[int, int, int, int]]:
    """Returns the tiles of an image, row by row, as x1, y1, x2, y2 in pixels. They cover it and overlap by at least OVERLAP."""
    sides = [math.ceil(side / (tiles - (tiles - 1) * OVERLAP)) for side in (height, width)]
    starts = [
        [round(i * (side - tile) / (tiles - 1)) for i in range(tiles)]
        for side, tile in zip((height, width), sides, strict=True)
    ]
    return [(x, y, x + sides[1], y + sides[0]) for y in starts[0] for x in starts[1]]


def drop_cut(detections: Detections, window: tuple[int, int, int, int], image_size: tuple[int, ...]) -> Detections:
    """Drops the detections that a tile cuts, since a neighbour or the whole image shows all of them.

    Args:
        detections: Detections in pixels of the tile.
        window: The tile; see `tile_windows`.
        image_size: (height, width) of the image.

    Returns:
        The rest, in pixels of the image.
    """
    x1, y1, x2, y2 = window
    boxes = detections.boxes_xyxy + np.array([x1, y1, x1, y1], dtype=np.float32)
    lowest = np.array([x1 + EDGE if x1 > 0 else -np.inf, y1 + EDGE if y1 > 0 else -np.inf])
    highest = np.array([x2 - EDGE if x2 < image_size[1] else np.inf, y2 - EDGE if y2 < image_size[0] else np.inf])
    kept: NDArray[np.bool_] = np.all(boxes[:, :2] >= lowest, axis=1) & np.all(boxes[:, 2:] <= highest, axis=1)
    return Detections(boxes, detections.scores, detections.labels).select(kept)
