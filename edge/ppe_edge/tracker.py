"""Which head of this picture is which head of the last one.

Association by overlap in two stages, strong detections first (Zhang et al. 2022, "ByteTrack", section 3), of boxes that are
enlarged (Yang et al. 2023, "C-BIoU", section 3.2), since small heads overlap little from one picture to the next, and moved on
by their velocity. Classes play no part: whoever takes the helmet off stays who they are.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppe_edge.detector import Detections
from ppe_edge.geometry import enlarged, pairwise_cover, pairwise_iou

# Two detections that overlap more are one head, whatever their classes. The model itself only merges those of one class that
# overlap by half; what is left are a head with and without its neck, or with and without the helmet.
SAME_HEAD_IOU, SAME_HEAD_COVER = 0.4, 0.75
INERTIA = 0.7  # of the velocity: the part that is kept with each new picture


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
    """Follows the heads of one camera."""

    def __init__(self, config: TrackerConfig) -> None:
        self._config = config
        self._tracks: list[Track] = []
        self._velocities: dict[int, NDArray[np.float32]] = {}  # pixels a second, x and y twice
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
            self._tracks, self._velocities = [], {}
        self._time = now
        known = [
            replace(t, box_xyxy=t.box_xyxy + self._velocities[t.id] * np.float32(elapsed), seen=False) for t in self._tracks
        ]
        strong = scores >= config.high_score
        found: dict[int, int] = {}  # place in `known` -> place in `boxes`
        for stage in (np.flatnonzero(strong), np.flatnonzero(~strong)):
            free = [i for i in range(len(known)) if i not in found]
            for row, column in self._match([known[i] for i in free], boxes[stage]):
                found[free[row]] = int(stage[column])
        tracks = []
        for i, track in enumerate(known):
            if i in found:
                j = found[i]
                tracks.append(self._found_again(i, track, boxes[j], float(scores[j]), int(labels[j]), now))
            elif now - track.last_time <= config.keep_s:
                tracks.append(track)
            else:
                del self._velocities[track.id]
        for j in sorted(set(np.flatnonzero(strong).tolist()) - set(found.values())):
            tracks.append(Track(self._next_id, boxes[j], float(scores[j]), int(labels[j]), True, 1, now, now))
            self._velocities[self._next_id] = np.zeros(4, dtype=np.float32)
            self._next_id += 1
        self._tracks = tracks
        return list(tracks)

    def _match(self, tracks: list[Track], boxes: NDArray[np.float32]) -> list[tuple[int, int]]:
        if not tracks or not len(boxes):
            return []
        from scipy.optimize import linear_sum_assignment  # half a second to import: not before the first head

        part = self._config.enlarge
        overlap = pairwise_iou(enlarged(np.stack([t.box_xyxy for t in tracks]), part), enlarged(boxes, part))
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if overlap[r, c] >= self._config.min_overlap]

    def _found_again(self, index: int, track: Track, box: NDArray[np.float32], score: float, label: int, now: float) -> Track:
        before = self._tracks[index]
        elapsed = now - track.last_time
        if elapsed > 0 and before.seen:
            middle = (box[:2] + box[2:] - before.box_xyxy[:2] - before.box_xyxy[2:]) / np.float32(2 * elapsed)
            velocity = self._velocities[track.id]
            kept = INERTIA if track.hits > 1 else 0.0  # the first step is all that is known
            self._velocities[track.id] = np.asarray(kept * velocity + (1 - kept) * np.tile(middle, 2), dtype=np.float32)
        return replace(
            track, box_xyxy=box, score=score, label=label, seen=True, hits=track.hits + 1, last_time=max(now, track.last_time)
        )


def _one_a_head(detections: Detections, low_score: float) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Of detections at one place the strongest: a head cannot be both. Falling order of score."""
    chosen = np.flatnonzero(detections.scores >= low_score)
    chosen = chosen[np.argsort(-detections.scores[chosen], kind="stable")]
    boxes = detections.boxes_xyxy[chosen]
    same = (pairwise_iou(boxes, boxes) > SAME_HEAD_IOU) | (pairwise_cover(boxes, boxes) > SAME_HEAD_COVER)
    kept: list[int] = []
    for i in range(len(chosen)):
        if not same[i, kept].any():
            kept.append(i)
    return boxes[kept], detections.scores[chosen[kept]], detections.labels[chosen[kept]]
