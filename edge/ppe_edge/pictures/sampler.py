"""Samples for the next training: frames that the model was unsure of, with draft annotations."""

import logging
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppe_edge.cameras.mailbox import Frame
from ppe_edge.pictures.snapshot import Image, hide_heads
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path
from ppe_yolo.core.voc_xml import AnnotatedObject, write_voc_annotation
from ppe_yolo.core.words import plural

QUALITY = 95
HIDDEN_FROM = 0.05  # minimum score of a pixelated head, low on purpose
_PRIVATE = 0o600  # permissions of the files, since they may show people

_log = logging.getLogger(__name__)


class SamplerConfig(BaseModel):
    """Which frames are kept for training. Off by default, since they may show people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(False, description="Whether frames are kept.")
    unsure_from: float = Field(
        0.2, ge=0, le=1, description="A frame is kept if the score of a detection is between this and `unsure_to`."
    )
    unsure_to: float = Field(0.5, ge=0, le=1, description="See `unsure_from`.")
    draft_from: float = Field(0.2, ge=0, le=1, description="Minimum score of detections in the draft annotation.")
    per_hour: float = Field(10.0, gt=0, le=3600, description="Maximum number of frames per camera and hour, evenly spaced.")
    keep: int = Field(500, ge=1, le=100_000, description="Maximum number of frames in total; the oldest are deleted.")
    upload: bool = Field(
        False,
        description="Whether frames are sent to IoT Hub (output `samples`), and deleted here once the hub has confirmed them. "
        "Requires sinks.iothub.",
    )
    blur: bool = Field(True, description="Whether all heads are pixelated.")

    @model_validator(mode="after")
    def _in_order(self) -> "SamplerConfig":
        if self.unsure_from > self.unsure_to:
            raise ValueError(f"unsure_from must not be above unsure_to, got {self.unsure_from:g} and {self.unsure_to:g}")
        return self


def voc_box(box_xyxy: Sequence[float] | NDArray[np.float32], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Returns a box as `ppe-yolo` reads it: pixels from 0, where x2 and y2 may be as large as width and height.

    None for a sliver at the edge of the image, which the audit would reject.
    """
    left, top, right, bottom = (float(x) for x in box_xyxy)
    x1, y1, x2, y2 = (max(0, round(x)) for x in (left, top, min(width, right), min(height, bottom)))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def jpeg_for_training(image: Image) -> bytes:
    """Encodes an image, uint8 [H, W, 3], RGB.

    Raises:
        OSError: It cannot be encoded.
    """
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise OSError("the frame could not be encoded")
    return bytes(data)


class Sampler:
    """Keeps frames in `state_dir`/samples, a Pascal VOC folder (JPEGImages, Annotations).

    Args:
        config: Which frames to keep.
        state_dir: The state folder.
        contract: Contract of the model, for the class names.
        hidden: Labels that are pixelated.

    Attributes:
        folder: The folder.
    """

    def __init__(self, config: SamplerConfig, state_dir: Path, contract: ModelContract, hidden: frozenset[int]) -> None:
        self._config = config
        self.folder = state_dir / "samples"
        self._counts = (0, 0)  # frames and unsure frames since `take_counts`; guarded by `_counting`
        self._counting = threading.Lock()
        self._class_names = contract.class_names
        self._hidden = hidden
        self._last: dict[str, float] = {}  # camera -> time of its last sample, seconds

    def take_counts(self) -> tuple[int, int]:
        """Returns the numbers of frames and of unsure frames since the last call. Thread-safe."""
        with self._counting:
            counts, self._counts = self._counts, (0, 0)
        return counts

    def wants(self, frame: Frame, detections: Detections) -> bool:
        """Returns whether to keep a frame: the model was unsure of it, and the last one was long enough ago."""
        config = self._config
        if not config.enabled:
            return False
        scores = detections.scores
        is_unsure = bool(((scores >= config.unsure_from) & (scores <= config.unsure_to)).any())
        with self._counting:
            self._counts = (self._counts[0] + 1, self._counts[1] + is_unsure)
        if not is_unsure or 0 <= frame.time - self._last.get(frame.camera, -float("inf")) < 3600.0 / config.per_hour:
            return False
        self._last[frame.camera] = frame.time
        return True

    def keep(self, frame: Frame, detections: Detections) -> Path | None:
        """Stores a frame; returns the image file, None if the disk does not take it. Encodes and syncs, so it takes a while."""
        try:
            kept = self._store(frame, detections)
            self._forget_oldest()
        except (OSError, UserError) as error:  # a full disk must not stop the alerts
            _log.warning("%s: cannot store a sample (%s)", frame.camera, error)
            return None
        return kept

    def _store(self, frame: Frame, detections: Detections) -> Path:
        image = frame.image.copy()
        if self._config.blur:
            is_hidden = (detections.scores >= HIDDEN_FROM) & np.isin(detections.labels, list(self._hidden))
            hide_heads(image, detections.boxes_xyxy[is_hidden])
        moment = datetime.fromtimestamp(frame.wall_time, UTC).strftime("%Y%m%dT%H%M%S%f")
        stem = f"{frame.camera}_{moment}"
        jpeg = jpeg_for_training(image)
        image_file = self.folder / "JPEGImages" / f"{stem}.jpg"
        write_voc_annotation(
            self.folder / "Annotations" / f"{stem}.xml",
            image_name=image_file.name,
            image_size=frame.image.shape,
            objects=self._draft(frame, detections),
            source="draft by a model, to be corrected",
            mode=_PRIVATE,
        )
        with atomic_path(image_file, _PRIVATE) as temporary:
            temporary.write_bytes(jpeg)
        return image_file

    def _draft(self, frame: Frame, detections: Detections) -> Iterator[AnnotatedObject]:
        height, width = frame.image.shape[:2]
        for box, score, label in zip(detections.boxes_xyxy, detections.scores, detections.labels, strict=True):
            if score < self._config.draft_from:
                continue
            if (rounded := voc_box(box, width, height)) is not None:
                yield AnnotatedObject(self._class_names[int(label)], rounded)

    def _forget_oldest(self) -> None:
        images = sorted((self.folder / "JPEGImages").glob("*.jpg"), key=lambda p: p.stat().st_mtime_ns)
        old = images[: max(0, len(images) - self._config.keep)]
        if old and self._config.upload:
            _log.warning("%s deleted before the upload: raise sampler.keep", plural(len(old), "sample"))
        for image_file in old:
            image_file.unlink(missing_ok=True)
            (self.folder / "Annotations" / f"{image_file.stem}.xml").unlink(missing_ok=True)
