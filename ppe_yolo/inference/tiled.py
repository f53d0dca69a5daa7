"""Small heads of far cameras: a photo is looked at as a whole and in overlapping tiles, each at the full input size."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from ppe_yolo.core.detections import Detections
from ppe_yolo.inference.detector import Detector

OVERLAP = 0.2  # of a tile's side; an object larger than that may be cut by every tile, and the whole photo shows it
EDGE = 2.0  # pixels: what comes as near to a tile's inner edge is cut by it


class TiledDetector:
    """Another detector, on the whole photo and on its tiles.

    Args:
        detector: What looks at each of them.
        tiles: So many rows and columns of tiles, from 2 on.
    """

    def __init__(self, detector: Detector, tiles: int) -> None:
        self.contract = detector.contract
        self.detector = detector
        self.tiles = tiles

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """See `Detector.detect`."""
        return [self._detect(image) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Detections:
        places = tile_places(image.shape[0], image.shape[1], self.tiles)
        whole, *parts = self.detector.detect([image, *(image[y1:y2, x1:x2] for x1, y1, x2, y2 in places)])
        found = [whole, *(uncut(part, place, image.shape[:2]) for part, place in zip(parts, places, strict=True))]
        boxes, scores, labels = (np.concatenate([getattr(f, k) for f in found]) for k in ("boxes_xyxy", "scores", "labels"))
        kept = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), self.contract.nms_iou_threshold).numpy()
        kept = kept[: self.contract.max_detections]
        return Detections(boxes[kept], scores[kept], labels[kept])


def tile_places(height: int, width: int, tiles: int) -> list[tuple[int, int, int, int]]:
    """Where the tiles of a photo lie, row by row: x1, y1, x2, y2 in pixels. They cover it and overlap by OVERLAP or more."""
    sides = [math.ceil(side / (tiles - (tiles - 1) * OVERLAP)) for side in (height, width)]
    starts = [
        [round(i * (side - tile) / (tiles - 1)) for i in range(tiles)]
        for side, tile in zip((height, width), sides, strict=True)
    ]
    return [(x, y, x + sides[1], y + sides[0]) for y in starts[0] for x in starts[1]]


def uncut(found: Detections, place: tuple[int, int, int, int], size: tuple[int, ...]) -> Detections:
    """What was found in a tile, in pixels of the photo, without what the tile cuts: a neighbour or the whole shows all of it.

    Args:
        found: In pixels of the tile.
        place: Of the tile, see `tile_places`.
        size: (height, width) of the photo.
    """
    x1, y1, x2, y2 = place
    boxes = found.boxes_xyxy + np.array([x1, y1, x1, y1], dtype=np.float32)
    lowest = np.array([x1 + EDGE if x1 > 0 else -np.inf, y1 + EDGE if y1 > 0 else -np.inf])
    highest = np.array([x2 - EDGE if x2 < size[1] else np.inf, y2 - EDGE if y2 < size[0] else np.inf])
    kept = (boxes[:, :2] >= lowest).all(axis=1) & (boxes[:, 2:] <= highest).all(axis=1)
    return Detections(boxes[kept], found.scores[kept], found.labels[kept])
