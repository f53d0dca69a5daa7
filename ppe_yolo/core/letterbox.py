"""The letterbox that training, evaluation and the box share, and the way back to image coordinates."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Position of an image in its letterboxed input.

    Pixel (x, y) of the image lies at (x * scale_x + left, y * scale_y + top) of the input.

    Attributes:
        scale_x: Pixels of the input per pixel of the image, horizontally.
        scale_y: Pixels of the input per pixel of the image, vertically.
        left: Width of the padding on the left, pixels.
        top: Height of the padding at the top, pixels.
        image_size: (height, width) of the image, pixels.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    image_size: tuple[int, int]

    def place(self, boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Maps boxes [N, 4] from pixels of the image to pixels of the letterboxed input."""
        scale, shift = self._scale_and_shift()
        return np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4) * scale + shift

    def restore(self, boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Maps boxes [N, 4] from pixels of the letterboxed input to pixels of the image, and clips them to the image."""
        scale, shift = self._scale_and_shift()
        boxes = (np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4) - shift) / scale
        height, width = self.image_size
        return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float32))

    def restore_detections(
        self, boxes_xyxy: NDArray[np.floating[Any]], scores: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> Detections:
        """Like `restore` for boxes [N, 4], scores [N], labels [N], but drops detections entirely in the letterbox padding."""
        boxes = self.restore(boxes_xyxy)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        restored = Detections(boxes, scores, labels)
        return restored if inside.all() else restored.select(inside)

    def _scale_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], dtype=np.float32)
        shift = np.array([self.left, self.top, self.left, self.top], dtype=np.float32)
        return scale, shift


def require_image(image: NDArray[np.uint8]) -> None:
    """Raises UserError for all but uint8 [H, W, 3]; an image of floats from 0 to 1 would be black, without any detection."""
    is_array = isinstance(image, np.ndarray)
    if not is_array or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        got = f"{image.dtype} {list(image.shape)}" if is_array else "None" if image is None else type(image).__name__
        hint = "cv2.imread(file, cv2.IMREAD_COLOR_RGB) reads one, or returns None if it cannot; detect takes a list of them"
        raise UserError(expected="an RGB image, uint8 [height, width, 3]", got=got, hint=hint)


def letterbox(
    image: NDArray[np.uint8],
    input_size: tuple[int, int],
    pad_value: int = 114,
    out: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], Placement]:
    """Fits an image into the network's input without changing its aspect ratio, and pads the rest evenly on both sides.

    Args:
        image: uint8 [H, W, 3].
        input_size: (height, width) of the result, pixels.
        pad_value: Grey level of the padding.
        out: A canvas of that size to draw into; None allocates a new one. Reuse one when there are many frames.

    Returns:
        The canvas, uint8 [height, width, 3], and the position of the image in it.

    Raises:
        UserError: Not such an image.
    """
    require_image(image)
    height, width = input_size
    image_height, image_width = image.shape[:2]
    scale = min(height / image_height, width / image_width)
    new_height = max(1, min(height, round(image_height * scale)))
    new_width = max(1, min(width, round(image_width * scale)))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    canvas = np.empty((height, width, 3), dtype=np.uint8) if out is None else out
    canvas[:top] = pad_value
    canvas[top + new_height :] = pad_value
    canvas[top : top + new_height, :left] = pad_value
    canvas[top : top + new_height, left + new_width :] = pad_value
    inside = canvas[top : top + new_height, left : left + new_width]
    if (image_height, image_width) == (new_height, new_width):
        inside[:] = image
    else:
        # INTER_AREA is slightly sharper when shrinking, but takes thirty times as long
        cv2.resize(image, (new_width, new_height), dst=inside, interpolation=cv2.INTER_LINEAR)
    placement = Placement(
        scale_x=new_width / image_width,
        scale_y=new_height / image_height,
        left=left,
        top=top,
        image_size=(image_height, image_width),
    )
    return canvas, placement
