"""The picture that goes with an alert: everybody's head made unknowable, boxes drawn, as JPEG."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.cameras.mailbox import Frame
from ppe_edge.rules.tracker import Track
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import BARE_HEAD, colour_of

Image = NDArray[np.uint8]

CELLS = 4  # a head is made of so many squares a side: its colours stay, its face does not
MARGIN = 0.15  # part of its size by which more than the box is hidden
HIDDEN_FROM = 0.1  # what the model takes for a head with so low a score is hidden as well, though it is no track yet
LOWEST_QUALITY = 30
NO_BOXES = np.empty((0, 4), dtype=np.float32)
_ALARMED = BARE_HEAD  # whatever the violation's class is called


class SnapshotConfig(BaseModel):
    """How pictures are made that leave the processing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blur: bool = Field(True, description="Whether all heads are made unknowable.")
    max_side: int = Field(1280, ge=64, le=8192, description="The longer side at most, pixels.")
    quality: int = Field(
        80, ge=LOWEST_QUALITY, le=100, description="Of the JPEG; lowered where the picture would be too large."
    )
    max_bytes: int = Field(200_000, ge=10_000, le=10_000_000, description="Of the JPEG at most.")


@dataclass(frozen=True)
class View:
    """A picture that was looked at, and what is in it."""

    frame: Frame
    tracks: tuple[Track, ...]  # all that are known, found this time or not
    contract: ModelContract
    heads_xyxy: NDArray[np.float32]  # [N, 4], pixels of the picture, all that may be heads
    thresholds: tuple[float, ...]  # by label: the score from which on a head counts
    alarmed: frozenset[int]  # tracks whose violations were told of and go on


def hide_heads(image: Image, boxes_xyxy: NDArray[np.floating[Any]]) -> None:
    """Replaces each box [N, 4] and a margin by a few squares of its mean colours, in place; that cannot be undone."""
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4):
        dx, dy = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
        left, right = (int(np.clip(v, 0, width)) for v in (np.floor(x1 - dx), np.ceil(x2 + dx)))
        top, bottom = (int(np.clip(v, 0, height)) for v in (np.floor(y1 - dy), np.ceil(y2 + dy)))
        if right > left and bottom > top:
            head = image[top:bottom, left:right]
            small = cv2.resize(head, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
            head[:] = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)


def draw(view: View, config: SnapshotConfig, alarmed: Collection[int]) -> Image:
    """A smaller copy with heads hidden, and the heads that were found in this very picture and count framed.

    Args:
        view: The picture.
        config: How.
        alarmed: Tracks that are marked as those that raised an alarm, however they score in this picture.
    """
    image = view.frame.image
    height, width = image.shape[:2]
    scale = min(1.0, config.max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image.copy(), dtype=np.uint8)
    boxes = np.stack([t.box_xyxy for t in view.tracks]) * np.float32(scale) if view.tracks else NO_BOXES
    if config.blur:
        hide_heads(canvas, np.concatenate((boxes, view.heads_xyxy * np.float32(scale))))
    thin = max(1, round(max(size) / 640))
    # the alarmed ones last, so that nothing covers them
    for track, box in sorted(zip(view.tracks, boxes, strict=True), key=lambda pair: pair[0].id in alarmed):
        name = view.contract.display_name(view.contract.class_names[track.label])
        text = f"{name} {track.score:.2f} #{track.id}"
        if track.seen and track.id in alarmed:
            thick = 4 * thin
            around = box + np.array([-1, -1, 1, 1]) * (thick // 2 + 1)  # what it is about stays free
            most = np.array([size[0], size[1], size[0], size[1]]) - 1 - thick // 2
            _frame(canvas, np.clip(around, thick // 2, most), f"ALERT: {text}", _ALARMED, thick)
        elif track.seen and track.score >= view.thresholds[track.label]:
            _frame(canvas, box, text, colour_of(name, track.label), thin)
    return canvas


def _frame(canvas: Image, box_xyxy: NDArray[np.floating[Any]], text: str, rgb: tuple[int, int, int], line: int) -> None:
    x1, y1, x2, y2 = np.rint(box_xyxy).astype(int).tolist()
    font_scale = max(0.4, max(canvas.shape[:2]) / 1600)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), rgb, line)
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font_scale, 1)
    left = max(0, min(x1, canvas.shape[1] - text_width - 2))
    top = max(0, y1 - line // 2 - text_height - below - 1)
    cv2.rectangle(canvas, (left, top), (left + text_width + 2, top + text_height + below), rgb, cv2.FILLED)
    cv2.putText(
        canvas, text, (left + 1, top + text_height), cv2.FONT_HERSHEY_SIMPLEX, font_scale, (255, 255, 255), 1, cv2.LINE_AA
    )


def encode(image: Image, config: SnapshotConfig) -> bytes | None:
    """RGB uint8 [H, W, 3] -> JPEG; worse, then smaller, until it fits; None if even that does not."""
    quality = config.quality
    while min(image.shape[:2]) >= 16:
        done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if done and len(data) <= config.max_bytes:
            return bytes(data)
        if quality > LOWEST_QUALITY:
            quality = max(LOWEST_QUALITY, quality - 20)
        else:
            image = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return None


def make_snapshot(view: View, config: SnapshotConfig, alarmed: Collection[int]) -> bytes | None:
    """`draw`, then `encode`."""
    return encode(draw(view, config, alarmed), config)


def weak_heads(detections: Detections) -> NDArray[np.float32]:
    """Boxes [N, 4] of everything that may be somebody's head, whether it has become a track or not."""
    return detections.boxes_xyxy[detections.scores >= HIDDEN_FROM]
