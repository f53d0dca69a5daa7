"""The frames of alerts: kept without a verdict at first, then as a data set for the next training."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

from ppe_edge.common.clock import DAY_S
from ppe_edge.delivery.messages import OTHER, Alert, AlertVerdict
from ppe_edge.pictures.sampler import jpeg_for_training, voc_box
from ppe_edge.pictures.snapshot import View, heads_to_hide, hide_heads
from ppe_edge.verdicts.config import VerdictsConfig
from ppe_yolo.core.files import replacing
from ppe_yolo.core.voc_xml import AnnotatedObject, write_voc_annotation

FILE_MODE, FOLDER_MODE = 0o600, 0o700  # they may show people

_Box = tuple[int, int, int, int]
_log = logging.getLogger(__name__)


class _Draft(TypedDict):
    """What the model detected in a frame. `alarmed` is the box of the alert, None if it is a sliver at the edge."""

    size: tuple[int, int, int]
    alarmed: _Box | None
    others: list[tuple[str, _Box]]


class AlertFrames:
    """Keeps frames in `state_dir`/frames, and those with a verdict in `state_dir`/training, a Pascal VOC folder.

    Thread-safe.

    Args:
        config: Which frames to keep.
        state_dir: The state folder.
        max_days: Older frames are deleted.
        now: Returns the time by which they are too old, UTC epoch seconds; see `Outbox.age_time`.
    """

    def __init__(self, config: VerdictsConfig, state_dir: Path, max_days: float, now: Callable[[], float] = time.time) -> None:
        self._config, self._max_days, self._now = config, max_days, now
        self._pending = state_dir / "frames"
        self._images, self._annotations = state_dir / "training" / "JPEGImages", state_dir / "training" / "Annotations"
        self._lock = threading.Lock()  # of the files: one thread keeps frames, others judge and delete them

    def keep(self, alert: Alert, view: View) -> None:
        """Keeps the frame of an alert with what the model detected in it; logs a disk that has no room for it."""
        if self._config.frames == "none":
            return
        image = view.frame.image
        if self._config.frames == "blurred":
            image = image.copy()
            hide_heads(image, heads_to_hide(view))
        try:
            jpeg = jpeg_for_training(image)
            with self._lock:
                self._forget_old()
                self._pending.mkdir(FOLDER_MODE, exist_ok=True)
                for suffix, content in ((".json", json.dumps(_draft(alert, view)).encode()), (".jpg", jpeg)):
                    with replacing(self._pending / f"{_stem(alert)}{suffix}", FILE_MODE) as temporary:
                        temporary.write_bytes(content)
                        os.utime(temporary, (self._now(),) * 2)  # the clock of the box may be wrong
        except OSError as error:  # a full disk must not stop the alerts
            _log.warning("%s: cannot keep the frame of an alert (%s)", alert.camera, error)

    def find(self, alert: Alert) -> Path | None:
        """Returns the frame of an alert, a JPEG; None if there is none, or no longer."""
        files = (folder / f"{_stem(alert)}.jpg" for folder in (self._pending, self._images))
        return next((file for file in files if file.is_file()), None)

    def apply(self, alert: Alert, verdict: AlertVerdict, *, keep_annotation: bool = False) -> None:
        """Moves the frame into the training data, with a draft annotation, or back if there is no verdict.

        A false alarm whose cause is unknown cannot be annotated. Boxes other than that of the alert are as the model
        detected them: somebody must correct them. With `keep_annotation`, one that is there stays: it may be corrected already.

        Raises:
            OSError, UserError: The files cannot be written.
        """
        name = _stem(alert)
        with self._lock:
            image, draft = self.find(alert), self._pending / f"{name}.json"
            if image is None or not draft.is_file():
                return
            annotation = self._annotations / f"{name}.xml"
            if verdict.verdict is None or (verdict.verdict == "false_alarm" and verdict.actual is None):
                annotation.unlink(missing_ok=True)
                image.replace(self._pending / image.name)
                return
            for folder in (self._images.parent, self._images, self._annotations):
                folder.mkdir(FOLDER_MODE, exist_ok=True)
            if not keep_annotation:
                annotation.unlink(missing_ok=True)  # that of another verdict must not stay if the disk is full
            if not annotation.is_file():
                alarmed = alert.class_name if verdict.verdict == "confirmed" else verdict.actual
                _annotate(annotation, image.name, json.loads(draft.read_bytes()), alarmed)
            image.replace(self._images / image.name)

    def forget_old_soon(self) -> None:
        """Deletes frames that are too old, in a thread of its own; also while there are no alerts, or no frames are kept."""

        def forget() -> None:
            try:
                with self._lock:
                    self._forget_old()
            except OSError as error:
                _log.error("frames that are too old cannot be deleted: %s", error)

        threading.Thread(target=forget, name="frames", daemon=True).start()

    def _forget_old(self) -> None:
        """Deletes the frames that are too many or too old."""
        files = [file for folder in (self._pending, self._images) if folder.is_dir() for file in folder.glob("*.jpg")]
        newest_first = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
        oldest = self._now() - self._max_days * DAY_S
        for rank, file in enumerate(newest_first, start=1):
            if rank >= self._config.keep or file.stat().st_mtime < oldest:  # makes room for one more
                file.unlink(missing_ok=True)
                (self._pending / f"{file.stem}.json").unlink(missing_ok=True)
                (self._annotations / f"{file.stem}.xml").unlink(missing_ok=True)


def _stem(alert: Alert) -> str:
    return f"{alert.camera}_{alert.id}"


def _draft(alert: Alert, view: View) -> _Draft:
    height, width, channels = view.frame.image.shape
    names = view.contract.class_names
    seen = [track for track in view.tracks if track.seen]
    # the frame that completes a vote need not show the head where the last positive one did
    alarmed = next((track.box_xyxy for track in seen if track.id == alert.track), alert.box_xyxy)
    others = [
        (names[track.label], box)
        for track in seen
        if track.id != alert.track and track.score >= view.thresholds[track.label]
        if (box := voc_box(track.box_xyxy, width, height)) is not None
    ]
    return {"size": (height, width, channels), "alarmed": voc_box(alarmed, width, height), "others": others}


def _annotate(annotation: Path, image_name: str, draft: _Draft, alarmed: str | None) -> None:
    """Writes the annotation of a frame in which the box of the alert shows the class `alarmed`."""
    write_voc_annotation(
        annotation,
        image_name=image_name,
        image_size=draft["size"],
        objects=_objects(draft, alarmed),
        source="draft by a model and a verdict, to be corrected",
        mode=FILE_MODE,
    )


def _objects(draft: _Draft, alarmed: str | None) -> Iterator[AnnotatedObject]:
    if draft["alarmed"] is not None and alarmed is not None and alarmed != OTHER:
        yield AnnotatedObject(alarmed, draft["alarmed"])
    for name, box in draft["others"]:
        yield AnnotatedObject(name, box)
