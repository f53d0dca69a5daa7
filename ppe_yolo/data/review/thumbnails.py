"""Thumbnails for the page of the audit."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.drawing import BARE_HEAD, GROUND_TRUTH
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.images import read_image
from ppe_yolo.data.sources.base import Box
from ppe_yolo.html import data_uri

SIDE = 240  # pixels, of the longer side
MARGIN = 0.5  # of a side of the image: how far a box outside of it is shown
QUALITY = 78
_BEYOND = 200  # grey around the image


def thumbnail(image: str, boxes: Sequence[Box] = (), others: Sequence[Box] = ()) -> str | None:
    """A small JPEG of an image as a data URI, or None if the image cannot be read.

    Args:
        image: Path or URL.
        boxes: The boxes in question, drawn in red; the thumbnail is extended for those outside of the image.
        others: Further boxes, drawn in white.
    """
    try:
        pixels = read_image(image)
    except UserError:
        return None
    height, width = pixels.shape[:2]
    corners = np.array([(0.0, 0.0, width, height), *boxes]).reshape(-1, 4)
    points = corners.reshape(-1, 2)
    low = np.maximum(points.min(0), (-MARGIN * width, -MARGIN * height))
    high = np.minimum(points.max(0), ((1 + MARGIN) * width, (1 + MARGIN) * height))
    scale = SIDE / float((high - low).max())
    canvas = np.full((*np.maximum(np.rint((high - low)[::-1] * scale), 1).astype(int), 3), _BEYOND, dtype=np.uint8)
    left, top = np.rint(-low * scale).astype(int)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    room = canvas[top : top + size[1], left : left + size[0]]
    room[:] = small[: room.shape[0], : room.shape[1]]
    for colour, part, thick in ((GROUND_TRUTH, others, 1), (BARE_HEAD, boxes, 2)):
        for box in part:
            _rectangle(canvas, (np.array(box).reshape(2, 2) - low) * scale, colour, thick)
    done, data = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data_uri(data.tobytes(), "jpeg") if done else None


def _rectangle(canvas: NDArray[np.uint8], points: NDArray[np.float64], colour: tuple[int, int, int], thick: int) -> None:
    limit = 4 * SIDE  # OpenCV wraps around far outside
    first, second = np.clip(np.rint(points), -limit, limit).astype(int).tolist()
    cv2.rectangle(canvas, first, second, (0, 0, 0), thick + 2)
    cv2.rectangle(canvas, first, second, colour, thick)
