"""Example frames with tracked heads."""

from typing import Any

import numpy as np
from helpers import HIDDEN
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.pictures.snapshot import NO_BOXES, View
from ppe_edge.rules.tracker import Track

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

CONTRACT = ModelContract(("helmet", "none"), (64, 96), display_names={"none": "bare head"})
NOTHING = Detections(NO_BOXES, np.empty(0, np.float32), np.empty(0, np.int64))


def a_track(box_xyxy: tuple[float, ...], number: int = 7, **changes: Any) -> Track:
    """A bare head that was detected in this frame."""
    values = {"score": 0.87, "label": 1, "seen": True, "hits": 3, "first_time": 0.0, "last_time": 0.0, **changes}
    return Track(id=number, box_xyxy=np.array(box_xyxy, np.float32), **values)


def a_view(image: np.ndarray, *tracks: Track, time: float = 0.0, **changes: Any) -> View:
    """A frame of the camera `gate`; nothing but the tracks was detected."""
    values: dict[str, Any] = {
        "frame": Frame(camera="gate", number=0, time=time, monotonic=time, image=image),
        "contract": CONTRACT,
        "detections": NOTHING,
        "thresholds": (0.5, 0.5),
        "violating": frozenset({1}),
        "alarmed": frozenset(),
        "hidden": HIDDEN,
    }
    return View(tracks=tracks, **{**values, **changes})
