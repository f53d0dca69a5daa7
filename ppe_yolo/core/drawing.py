"""Draws boxes on images. numpy and OpenCV only."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

Image = NDArray[np.uint8]

# RGB colours that colour-blind people can tell apart (Okabe & Ito 2008), and a red that draws the eye to bare heads
BARE_HEAD = (213, 40, 40)
HELMET = (0, 158, 115)
GROUND_TRUTH = (255, 255, 255)
_COLOURS = {"none": BARE_HEAD, "helmet": HELMET}
_OTHERS = ((0, 114, 178), (230, 159, 0), (204, 121, 167), (86, 180, 233), (240, 228, 66), (120, 94, 240))


def colour_of(class_name: str, label: int) -> tuple[int, int, int]:
    """Returns the RGB colour of a class in images, charts and snapshots.

    Args:
        class_name: Name of the class, not its display name.
        label: Its label, which chooses the colour of a class other than bare heads and helmets.
    """
    return _COLOURS.get(class_name, _OTHERS[label % len(_OTHERS)])


def draw_ground_truth(image: Image, boxes_xyxy: NDArray[np.floating[Any]]) -> Image:
    """Draws annotated boxes [N, 4] in white on a copy of an image, without text.

    Args:
        image: uint8 [H, W, 3], RGB.
        boxes_xyxy: [N, 4], pixels of the image.

    Returns:
        The drawn copy, uint8 [H, W, 3].
    """
    canvas = np.ascontiguousarray(image).copy()
    for box in boxes_xyxy:
        draw_box(canvas, box, GROUND_TRUTH)
    return canvas


def draw_detections(image: Image, detections: Detections, contract: ModelContract) -> Image:
    """Draws detections on a copy of an image, in the colours of their classes, with display name and score.

    Args:
        image: uint8 [H, W, 3], RGB.
        detections: The detections.
        contract: Provides the names of the labels.

    Returns:
        The drawn copy, uint8 [H, W, 3].
    """
    canvas = np.ascontiguousarray(image).copy()
    for box, score, label in zip(detections.boxes_xyxy, detections.scores, detections.labels.tolist(), strict=True):
        name = contract.class_names[label]
        draw_box(canvas, box, colour_of(name, label), f"{contract.display_name(name)} {score:.2f}")
    return canvas


def draw_box(
    canvas: Image,
    box_xyxy: NDArray[np.floating[Any]],
    rgb: tuple[int, int, int],
    text: str | None = None,
    line: int | None = None,
) -> None:
    """Draws a box [4], and its text on a background of the same colour, into an image.

    Args:
        canvas: uint8 [H, W, 3], RGB; changed in place.
        box_xyxy: [4], pixels.
        rgb: Colour of the box.
        text: Written above the box, or below it where there is no room; None for none.
        line: Width of the lines, pixels; by default 1/400 of the longer side.
    """
    height, width = canvas.shape[:2]
    line = max(1, round(max(height, width) / 400)) if line is None else line
    x1, y1, x2, y2 = np.rint(box_xyxy).astype(int).tolist()
    cv2.rectangle(canvas, (x1, y1), (x2, y2), rgb, line)
    if text is None:
        return
    font_scale = max(0.35, max(height, width) / 1600)
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font_scale, 1)
    left = max(0, min(x1, width - text_width - 2))
    top = y1 - line // 2 - text_height - below - 1
    if top < 0:
        top = max(0, min(y2 + line // 2 + 1, height - text_height - below))
    cv2.rectangle(canvas, (left, top), (left + text_width + 2, top + text_height + below), rgb, cv2.FILLED)
    dark = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 150
    at, letters = (left + 1, top + text_height), (0, 0, 0) if dark else (255, 255, 255)
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, font_scale, letters, 1, cv2.LINE_AA)


def tile_images(images: Sequence[Image], columns: int, cell_size: tuple[int, int]) -> Image:
    """Puts images into a grid of cells of (height, width) pixels, each scaled to fit its cell, on grey."""
    height, width = cell_size
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * height, columns * width, 3), ModelContract.pad_value, dtype=np.uint8)
    for i, image in enumerate(images):
        scale = min(height / image.shape[0], width / image.shape[1])
        size = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        top = i // columns * height + (height - size[1]) // 2
        left = i % columns * width + (width - size[0]) // 2
        sheet[top : top + size[1], left : left + size[0]] = small
    return sheet


def save_image(path: str | Path, image: Image) -> None:
    """Writes an RGB image uint8 [H, W, 3]; the suffix selects the format.

    Raises:
        OSError: The file cannot be written.
    """
    # imwrite ends the process if the name is not valid UTF-8
    done, encoded = cv2.imencode(Path(path).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"{path} cannot be written: the image is too large for {Path(path).suffix}")
    Path(path).write_bytes(encoded.tobytes())
