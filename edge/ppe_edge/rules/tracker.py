"""Which head of this picture is which head of the last one.

Association by overlap in two stages, strong detections first (Zhang et al. 2022, "ByteTrack", section 3), of boxes that are
enlarged (Yang et al. 2023, "C-BIoU", section 3.2), since small heads overlap little from one picture to the next, and moved on
by their velocity. Classes play no part: whoever takes the helmet off stays who they are.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppe_edge.rules.geometry import enlarged
from ppe_yolo.core.boxes import pairwise_iou, pairwise_iou_and_cover
from ppe_yolo.core.detections import Detections

# Two detections that overlap more are one head, whatever their classes. The model itself only merges those of one class that
# overlap by half; what is left are a head with and without its neck, or with and without the helmet.
SAME_HEAD_IOU, SAME_HEAD_COVER = 0.4, 0.75
INERTIA = 0.7  # of the velocity: the part that is kept with each new picture
NOTHING = np.empty((0, 2), dtype=np.float32)


class TrackerConfig(BaseModel):
    """How heads are followed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    high_score: float = Field(0.3, ge=0, le=1, description="A detection from this score on may begin a track.")
    low_score: float = Field(0.1, ge=0, le=1, description="A detection from this score on may continue one.")
    min_overlap: float = Field(0.1, gt=0, lt=1, description="Overlap of the enlarged boxes that makes two the same head.")
    enlarge: float = Field(0.3, ge=0, le=2, description="Part of its size by which a box is enlarged on each side.")
    keep_s: float = Field(1.5, gt=0, le=60, description="A head that was not seen for so many seconds is gone.")

    @model_validator(mode="after")
    def _low_below_high(self) -> "TrackerConfig":
        if self.low_score > self.high_score:
            raise ValueError(f"low_score must not be above high_score, got {self.low_score:g} and {self.high_score:g}")
        return self


@dataclass(frozen=True, eq=False)
class Track:
    """A head over time, as it is in one picture.

    Attributes:
        id: Counts the heads of a camera from 1, never used twice.
        box_xyxy: Where it is, pixels of the frame [4]; where it should be, if it was not seen this time.
        score: Of the last detection.
        label: Of the last detection.
        seen: Whether it was found in this picture.
        hits: In how many pictures it was found.
        first_time: When it was found first, seconds.
        last_time: When it was found last.
    """

    id: int
    box_xyxy: NDArray[np.float32]
    score: float
    label: int
    seen: bool
    hits: int
    first_time: float
    last_time: float


class Tracker:
    """Follows the heads of one camera.

    What is done for every head is done for all of them at once: a call of numpy costs much more than the arithmetic in it.
    """

    def __init__(self, config: TrackerConfig) -> None:
        self._config = config
        self._tracks: list[Track] = []
        self._velocities = NOTHING  # of each track, pixels a second [N, 2]
        self._next_id = 1
        self._time: float | None = None

    def update(self, detections: Detections, now: float) -> list[Track]:
        """All heads that are known after another picture: found in it, or not yet gone.

        Args:
            detections: What the model found, in pixels of the frame.
            now: When the picture was taken, seconds; if the clock was set back by more than `keep_s`, all heads are new.
        """
        config = self._config
        boxes, scores, labels = _one_a_head(detections, config.low_score)
        elapsed = 0.0 if self._time is None else max(0.0, now - self._time)
        if self._time is not None and now < self._time - config.keep_s:
            # the clock was set back: tracks with times to come would neither end nor have been watched for long enough
            self._tracks, self._velocities = [], NOTHING
        self._time = now
        strong = int(np.count_nonzero(scores >= config.high_score))  # they come first
        before = np.array([t.box_xyxy for t in self._tracks], dtype=np.float32).reshape(-1, 4)
        moved = self._velocities * np.float32(elapsed)
        expected = before + np.concatenate((moved, moved), axis=1)
        found = self._match(expected, boxes, strong)
        self._learn_velocities(before, boxes, found, now)
        tracks, kept = [], []  # `kept`: places in `self._tracks`
        heads = list(zip(boxes, scores.tolist(), labels.tolist(), strict=True))
        for i, track in enumerate(self._tracks):
            if i in found:
                box, score, label = heads[found[i]]
                last_time = max(now, track.last_time)
                tracks.append(Track(track.id, box, score, label, True, track.hits + 1, track.first_time, last_time))
            elif now - track.last_time <= config.keep_s:
                tracks.append(replace(track, box_xyxy=expected[i], seen=False))
            else:
                continue
            kept.append(i)
        taken = set(found.values())
        new = [head for j, head in enumerate(heads[:strong]) if j not in taken]
        for box, score, label in new:
            tracks.append(Track(self._next_id, box, score, label, True, 1, now, now))
            self._next_id += 1
        self._tracks = tracks
        self._velocities = np.concatenate((self._velocities[kept], np.zeros((len(new), 2), dtype=np.float32)))
        return list(tracks)

    def _match(self, expected: NDArray[np.float32], boxes: NDArray[np.float32], strong: int) -> dict[int, int]:
        """Place in `expected` [N, 4] -> place in `boxes` [M, 4], of which the first `strong` are matched first."""
        found: dict[int, int] = {}
        if not len(expected) or not len(boxes):
            return found
        from scipy.optimize import linear_sum_assignment  # half a second to import: not before the first head

        both = enlarged(np.concatenate((expected, boxes)), self._config.enlarge)
        overlap = pairwise_iou(both[: len(expected)], both[len(expected) :])
        for columns in (range(strong), range(strong, len(boxes))):
            rows = [i for i in range(len(expected)) if i not in found]
            if not rows or not columns:
                continue
            candidates = overlap[rows, columns.start : columns.stop]
            for i, j in zip(*(a.tolist() for a in linear_sum_assignment(candidates, maximize=True)), strict=True):
                if candidates[i, j] >= self._config.min_overlap:
                    found[rows[i]] = columns[j]
        return found

    def _learn_velocities(
        self, before: NDArray[np.float32], boxes: NDArray[np.float32], found: dict[int, int], now: float
    ) -> None:
        """From the steps of those heads that were found in the last picture and are found in this one."""
        rows = [i for i in found if self._tracks[i].seen and now > self._tracks[i].last_time]
        if not rows:
            return
        old, new = before[rows], boxes[[found[i] for i in rows]]
        elapsed = np.array([[now - self._tracks[i].last_time] for i in rows])
        step = (new[:, :2] + new[:, 2:] - old[:, :2] - old[:, 2:]) / (2 * elapsed).astype(np.float32)
        # the first step is all that is known
        inertia = np.array([[INERTIA if self._tracks[i].hits > 1 else 0.0] for i in rows], dtype=np.float32)
        self._velocities[rows] = inertia * self._velocities[rows] + (1 - inertia) * step


def _one_a_head(detections: Detections, low_score: float) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Of detections at one place the strongest: a head cannot be both. Falling order of score."""
    (chosen,) = (detections.scores >= low_score).nonzero()
    chosen = chosen[(-detections.scores[chosen]).argsort(kind="stable")]
    boxes = detections.boxes_xyxy[chosen]
    iou, cover = pairwise_iou_and_cover(boxes, boxes)
    same = (iou > SAME_HEAD_IOU) | (cover > SAME_HEAD_COVER)
    hidden = np.zeros(len(chosen), dtype=bool)  # by a stronger one that is kept
    kept: list[int] = []
    for i in range(len(chosen)):
        if not hidden[i]:
            kept.append(i)
            hidden |= same[i]
    chosen = chosen[kept]
    return boxes[kept], detections.scores[chosen], detections.labels[chosen]
