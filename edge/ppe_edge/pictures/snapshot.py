"""The alert snapshot: all heads pixelated, boxes drawn, encoded as JPEG."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.cameras.mailbox import Frame
from ppe_edge.rules.heads import possible_heads
from ppe_edge.rules.tracker import Track
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import BARE_HEAD, colour_of, draw_box

Image = NDArray[np.uint8]

CELLS = 4  # squares per side of a pixelated head: its colours remain visible, its face does not
_SAMPLES = 64  # points per side of a large head that are averaged: all of its pixels would take several times as long
MARGIN = 0.05  # pixelated beyond each side of the box, as a fraction of its size
STEADY_HITS = 3  # a track that was detected this often is pixelated where it is expected while it is not detected
MIN_QUALITY = 30
NO_BOXES = np.empty((0, 4), dtype=np.float32)


class SnapshotConfig(BaseModel):
    """Settings of snapshots and of the live view."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blur: bool = Field(True, description="Whether all heads are pixelated.")
    max_side: int = Field(1280, ge=64, le=8192, description="Maximum length of the longer side, pixels.")
    quality: int = Field(80, ge=MIN_QUALITY, le=100, description="JPEG quality; lowered if the file would exceed max_bytes.")
    max_bytes: int = Field(200_000, ge=10_000, le=10_000_000, description="Maximum size of the JPEG, bytes.")


@dataclass(frozen=True, kw_only=True)
class View:
    """A processed frame and its heads.

    Attributes:
        frame: The frame.
        tracks: All tracks, those that were not detected in this frame included.
        contract: Contract of the model.
        detections: What the model detected, whether it is tracked or not.
        thresholds: Alarm threshold of each label.
        violating: Labels that are a violation by themselves: drawn in red.
        alarmed: Ids of the tracks with open violations.
        hidden: Labels that are pixelated.
    """

    frame: Frame
    tracks: tuple[Track, ...]
    contract: ModelContract
    detections: Detections
    thresholds: tuple[float, ...]
    violating: frozenset[int]
    alarmed: frozenset[int]
    hidden: frozenset[int]


def hide_heads(image: Image, boxes_xyxy: NDArray[np.floating[Any]]) -> None:
    """Pixelates each box [N, 4] with a margin, in place. The original cannot be recovered."""
    height, width = image.shape[:2]
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    margins = MARGIN * (boxes[:, 2:] - boxes[:, :2])
    first = np.clip(np.floor(boxes[:, :2] - margins), 0, (width, height)).astype(int)
    last = np.clip(np.ceil(boxes[:, 2:] + margins), 0, (width, height)).astype(int)
    for (left, top), (right, bottom) in zip(first.tolist(), last.tolist(), strict=True):
        if right > left and bottom > top:
            _pixelate(image[top:bottom, left:right])


def _pixelate(head: Image) -> None:
    height, width = head.shape[:2]
    is_large = min(height, width) > _SAMPLES
    points = cv2.resize(head, (_SAMPLES, _SAMPLES), interpolation=cv2.INTER_LINEAR) if is_large else head
    cells = cv2.resize(points, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    rows = cv2.resize(cells, (width, CELLS), interpolation=cv2.INTER_NEAREST)
    for i, row in enumerate(rows):
        head[i * height // CELLS : (i + 1) * height // CELLS] = row


def heads_to_hide(view: View) -> NDArray[np.float32]:
    """Returns the boxes [N, 4] of everything that may be a head, pixels of the frame."""
    labels, detections = view.hidden, view.detections
    steady = (track for track in view.tracks if track.seen or track.hits >= STEADY_HITS)
    tracks = [track for track in steady if track.label in labels]
    detections = detections.select(np.isin(detections.labels, list(labels)))
    boxes = np.stack([track.box_xyxy for track in tracks]) if tracks else NO_BOXES
    return np.concatenate((boxes, possible_heads(detections, view.thresholds)))


def draw(view: View, config: SnapshotConfig, alarmed: Collection[int]) -> Image:
    """Returns a copy of the frame, scaled down, with heads pixelated and the detections above their thresholds drawn.

    Args:
        view: The frame.
        config: Size of the copy, and whether to pixelate.
        alarmed: Tracks to be marked as alarmed, whatever their score in this frame.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    image = view.frame.image
    height, width = image.shape[:2]
    scale = min(1.0, config.max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrink = cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR  # which is as good there, and eight times as fast
    canvas = np.asarray(cv2.resize(image, size, interpolation=shrink) if scale < 1 else image.copy(), dtype=np.uint8)
    boxes = np.stack([t.box_xyxy for t in view.tracks]) * np.float32(scale) if view.tracks else NO_BOXES
    if config.blur:
        hide_heads(canvas, heads_to_hide(view) * np.float32(scale))
    thin = max(1, round(max(size) / 640))
    # alarmed heads last, so that nothing covers them
    for track, box in sorted(zip(view.tracks, boxes, strict=True), key=lambda pair: pair[0].id in alarmed):
        name = view.contract.class_names[track.label]
        text = f"{view.contract.display_name(name)} {track.score:.2f} #{track.id}"
        if track.seen and track.id in alarmed:
            thick = 4 * thin
            around = box + np.array([-1, -1, 1, 1]) * (thick // 2 + 1)  # keep the head itself visible
            limits = np.array([size[0], size[1], size[0], size[1]]) - 1 - thick // 2
            draw_box(canvas, np.clip(around, thick // 2, limits), BARE_HEAD, f"ALERT: {text}", thick)
        elif track.seen and track.score >= view.thresholds[track.label]:
            colour = BARE_HEAD if track.label in view.violating else colour_of(name, track.label)
            draw_box(canvas, box, colour, text, thin)
    return canvas


def encode(image: Image, config: SnapshotConfig) -> bytes | None:
    """Encodes an RGB image uint8 [H, W, 3] as JPEG. Lowers the quality, then the size, until it fits; None if it never does."""
    quality = config.quality
    while min(image.shape[:2]) >= 16:
        done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if done and len(data) <= config.max_bytes:
            return bytes(data)
        if quality > MIN_QUALITY:
            quality = max(MIN_QUALITY, quality - 20)
        else:
            image = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return None


def make_snapshot(view: View, config: SnapshotConfig, alarmed: Collection[int]) -> bytes | None:
    """Draws and encodes a view; see `draw` and `encode`."""
    return encode(draw(view, config, alarmed), config)
