"""The loop back: pictures that the model was unsure of, with a draft annotation, for the next training set."""

import logging
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import cv2
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppe_edge.cameras.mailbox import Frame
from ppe_edge.model.detector import Detections
from ppe_edge.pictures.snapshot import hide_heads
from ppe_yolo.core.contract import ModelContract

QUALITY = 95
HIDDEN_FROM = 0.05  # a head that may be none is hidden as well

_log = logging.getLogger(__name__)


class SamplerConfig(BaseModel):
    """Which pictures are kept for training. Off unless switched on: they may show people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(False, description="Whether any are kept.")
    unsure_from: float = Field(0.2, ge=0, le=1, description="A detection with a score from here ...")
    unsure_to: float = Field(0.5, ge=0, le=1, description="... to here makes a picture worth keeping.")
    draft_from: float = Field(0.2, ge=0, le=1, description="Detections from this score on are in the draft annotation.")
    per_hour: float = Field(10.0, gt=0, le=3600, description="The most pictures of one camera in an hour, evenly spaced.")
    keep: int = Field(500, ge=1, le=100_000, description="The most pictures in all; the oldest give way.")
    blur: bool = Field(True, description="Whether all heads are made unknowable.")

    @model_validator(mode="after")
    def _in_order(self) -> "SamplerConfig":
        if self.unsure_from > self.unsure_to:
            raise ValueError(f"unsure_from must not be above unsure_to, got {self.unsure_from:g} and {self.unsure_to:g}")
        return self


class Sampler:
    """Keeps pictures in `state_dir`/samples, a Pascal VOC folder (JPEGImages, Annotations).

    Args:
        config: Which ones.
        state_dir: Where.
        contract: Names of the classes.
    """

    def __init__(self, config: SamplerConfig, state_dir: Path, contract: ModelContract) -> None:
        self._config = config
        self._folder = state_dir / "samples"
        self._class_names = contract.class_names
        self._last: dict[str, float] = {}

    def offer(self, frame: Frame, detections: Detections) -> Path | None:
        """Keeps the picture if it is worth it and not too soon after the last one; returns its file."""
        config = self._config
        if not config.enabled:
            return None
        if 0 <= frame.time - self._last.get(frame.camera, -float("inf")) < 3600.0 / config.per_hour:
            return None
        scores = detections.scores
        if not ((scores >= config.unsure_from) & (scores <= config.unsure_to)).any():
            return None
        self._last[frame.camera] = frame.time
        try:
            kept = self._keep(frame, detections)
            self._forget_oldest()
        except OSError as error:  # a full disk must not stop the alerts
            _log.warning("%s: a sample could not be kept (%s)", frame.camera, error.strerror or error)
            return None
        return kept

    def _keep(self, frame: Frame, detections: Detections) -> Path:
        image = frame.image.copy()
        if self._config.blur:
            hide_heads(image, detections.boxes_xyxy[detections.scores >= HIDDEN_FROM])
        moment = datetime.fromtimestamp(frame.time, UTC).strftime("%Y%m%dT%H%M%S%f")
        stem = f"{frame.camera}_{moment}"
        done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not done:
            raise OSError("the picture could not be encoded")
        photo = self._folder / "JPEGImages" / f"{stem}.jpg"
        _write(self._folder / "Annotations" / f"{stem}.xml", self._draft(frame, detections, photo.name))
        _write(photo, bytes(data))
        return photo

    def _draft(self, frame: Frame, detections: Detections, file_name: str) -> bytes:
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "folder").text = "JPEGImages"
        ElementTree.SubElement(root, "filename").text = file_name
        ElementTree.SubElement(ElementTree.SubElement(root, "source"), "annotation").text = "draft of a model, to be corrected"
        height, width, depth = frame.image.shape
        size = ElementTree.SubElement(root, "size")
        for key, value in (("width", width), ("height", height), ("depth", depth)):
            ElementTree.SubElement(size, key).text = str(value)
        for box, score, label in zip(detections.boxes_xyxy, detections.scores, detections.labels, strict=True):
            if score < self._config.draft_from:
                continue
            # the corners as `ppe-yolo` takes them: pixels of the photo from 0, the last ones its width and height
            corners = [max(0, round(float(x))) for x in (box[0], box[1], min(width, box[2]), min(height, box[3]))]
            if corners[0] >= corners[2] or corners[1] >= corners[3]:
                continue  # a sliver at the picture's edge, which the audit would call an error
            item = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(item, "name").text = self._class_names[int(label)]
            ElementTree.SubElement(item, "difficult").text = "0"
            place = ElementTree.SubElement(item, "bndbox")
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
                ElementTree.SubElement(place, key).text = str(value)
        ElementTree.indent(root)
        return bytes(ElementTree.tostring(root, encoding="utf-8")) + b"\n"

    def _forget_oldest(self) -> None:
        photos = sorted((self._folder / "JPEGImages").glob("*.jpg"), key=lambda p: p.stat().st_mtime_ns)
        for photo in photos[: max(0, len(photos) - self._config.keep)]:
            photo.unlink(missing_ok=True)
            (self._folder / "Annotations" / f"{photo.stem}.xml").unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
