"""The one letterbox that training, evaluation and the box share, and the way back to image coordinates."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Placement:
    """Where `letterbox` put a photo: pixel (x, y) of the photo lies at (x * scale_x + left, y * scale_y + top)."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    photo_size: tuple[int, int]

    def place(self, boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Boxes of the photo [N, 4] in pixels -> boxes of the letterboxed input [N, 4] in pixels."""
        scale, shift = self._scale_and_shift()
        return np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4) * scale + shift

    def restore(self, boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Boxes of the letterboxed input [N, 4] in pixels -> boxes of the photo [N, 4], clipped to it."""
        scale, shift = self._scale_and_shift()
        boxes = (np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4) - shift) / scale
        height, width = self.photo_size
        return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float32))

    def restore_detections(
        self, boxes_xyxy: NDArray[np.floating[Any]], scores: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """`restore` for detections [N, 4], [N], [N], without those of which nothing lies in the photo: they saw the border."""
        boxes = self.restore(boxes_xyxy)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if inside.all():
            return boxes, scores, labels
        return boxes[inside], scores[inside], labels[inside]

    def _scale_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], dtype=np.float32)
        shift = np.array([self.left, self.top, self.left, self.top], dtype=np.float32)
        return scale, shift


def letterbox(
    photo: NDArray[np.uint8],
    input_size: tuple[int, int],
    pad_value: int = 114,
    out: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], Placement]:
    """Fits a photo into the network's input without distorting it; the rest is padded, evenly on both sides.

    Args:
        photo: uint8 [H, W, 3].
        input_size: (height, width) of the result, pixels.
        pad_value: Grey level of the border.
        out: A canvas of that size to draw into; a new one is made when None. A caller with many frames reuses one.

    Returns:
        The canvas, uint8 [height, width, 3], and where the photo lies in it.
    """
    height, width = input_size
    photo_height, photo_width = photo.shape[:2]
    scale = min(height / photo_height, width / photo_width)
    new_height = max(1, min(height, round(photo_height * scale)))
    new_width = max(1, min(width, round(photo_width * scale)))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    canvas = np.empty((height, width, 3), dtype=np.uint8) if out is None else out
    canvas[:top] = pad_value
    canvas[top + new_height :] = pad_value
    canvas[top : top + new_height, :left] = pad_value
    canvas[top : top + new_height, left + new_width :] = pad_value
    inside = canvas[top : top + new_height, left : left + new_width]
    if (photo_height, photo_width) == (new_height, new_width):
        inside[:] = photo
    else:
        # INTER_AREA would be a little sharper when shrinking, and costs thirty times as much
        cv2.resize(photo, (new_width, new_height), dst=inside, interpolation=cv2.INTER_LINEAR)
    placement = Placement(new_width / photo_width, new_height / photo_height, left, top, (photo_height, photo_width))
    return canvas, placement
