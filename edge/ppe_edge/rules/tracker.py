"""Tracks heads from frame to frame.

Detections are matched with tracks by IoU in two stages, strong detections first (Zhang et al. 2022, "ByteTrack", section 3).
Boxes are enlarged for this (Yang et al. 2023, "C-BIoU", section 3.2), since small heads overlap little between frames, and are
moved by the velocity of the track. Classes play no part: a person who takes off the helmet keeps the track.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import lap
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppe_edge.rules.geometry import enlarged
from ppe_edge.rules.heads import suppress_duplicates
from ppe_yolo.core.boxes import pairwise_iou
from ppe_yolo.core.detections import Detections

INERTIA = 0.7  # share of the velocity that is kept when a new step is learned
# Where frames are rare, tracks live longer and heads move further between frames. At 5 frames per second and more, nothing
# changes. A person who walks at 1.2 m/s moves five heads of 25 cm per second; margins beyond that would join any two heads.
KEEP_INTERVALS = 1.5  # a track survives one frame without a detection, however rare frames are
FREQUENT_S, MARGIN_PER_S, MAX_EXTRA_MARGIN = 0.2, 3.0, 3.0
NO_VELOCITIES = np.empty((0, 2), dtype=np.float32)

_Head = tuple[NDArray[np.float32], float, int]  # box, score, label


class TrackerConfig(BaseModel):
    """Settings of the tracker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    high_score: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Minimum score of a detection that starts a track; the alarm threshold of a rule, if that is lower.",
    )
    low_score: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Minimum score of a detection that continues a track; the alarm threshold of a rule, if that is lower.",
    )
    min_overlap: float = Field(
        0.1, gt=0, lt=1, description="Minimum IoU of the enlarged boxes of a track and a detection that continues it."
    )
    enlarge: float = Field(0.3, ge=0, le=2, description="Margin added to each side of a box, as a fraction of its size.")
    keep_s: float = Field(
        1.5,
        gt=0,
        le=60,
        description="A track ends after this many seconds without a detection; if frames are rare, after two of them.",
    )

    @model_validator(mode="after")
    def _low_below_high(self) -> "TrackerConfig":
        if self.low_score > self.high_score:
            raise ValueError(f"low_score must not be above high_score, got {self.low_score:g} and {self.high_score:g}")
        return self

    def down_to(self, threshold: float) -> "TrackerConfig":
        """Returns these settings, so that a detection which reaches an alarm threshold starts a track."""
        scores = {"high_score": min(self.high_score, threshold), "low_score": min(self.low_score, threshold)}
        return self.model_copy(update=scores)


@dataclass(frozen=True, eq=False, kw_only=True)
class Track:
    """The state of a tracked head in one frame.

    Attributes:
        id: Counts the heads of a camera from 1; never reused.
        box_xyxy: float32 [4], pixels of the frame; the predicted box if the head was not detected in this frame.
        score: Score of the last detection.
        label: Label of the last detection.
        seen: Whether the head was detected in this frame.
        hits: Number of frames in which the head was detected.
        first_time: Time of the first detection, seconds.
        last_time: Time of the last detection, seconds.
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
    """Tracks the heads of one camera.

    All heads are processed in one numpy call where possible: the overhead of a call is much larger than its arithmetic.

    Args:
        config: The settings.
        ids: Yields the ids of new tracks; trackers of one camera share it.

    Attributes:
        config: The settings.
    """

    def __init__(self, config: TrackerConfig, ids: Iterator[int] | None = None) -> None:
        self.config = config
        self._ids = count(1) if ids is None else ids
        self._tracks: list[Track] = []
        self._velocities = NO_VELOCITIES  # per track, pixels per second [N, 2]
        self._time: float | None = None
        self._intervals: deque[float] = deque(maxlen=5)  # seconds between the last frames

    def update(self, detections: Detections, now: float) -> list[Track]:
        """Processes the detections of the next frame.

        Args:
            detections: Detections in pixels of the frame.
            now: Time of the frame, seconds. If the clock was set back by more than `keep_s`, all heads get new tracks.

        Returns:
            All tracks: those with a detection in this frame, and those that have not ended yet.

        Raises:
            ValueError: A box is not finite.
        """
        boxes, scores, labels = suppress_duplicates(detections, self.config.low_score)
        strong = int(np.count_nonzero(scores >= self.config.high_score))  # they come first
        elapsed = self._advance(now)
        before = np.array([t.box_xyxy for t in self._tracks], dtype=np.float32).reshape(-1, 4)
        moved = self._velocities * np.float32(elapsed)
        predicted = before + np.concatenate((moved, moved), axis=1)
        extra = min(MAX_EXTRA_MARGIN, MARGIN_PER_S * max(0.0, elapsed - FREQUENT_S))
        matches = self._match(predicted, boxes, strong, extra)
        self._learn_velocities(before, boxes, matches, now)
        heads = list(zip(boxes, scores.tolist(), labels.tolist(), strict=True))
        matched = set(matches.values())
        kept = self._continue({i: heads[j] for i, j in matches.items()}, predicted, now)
        started = [self._start(head, now) for j, head in enumerate(heads[:strong]) if j not in matched]
        self._tracks = [*kept.values(), *started]
        self._velocities = np.concatenate((self._velocities[list(kept)], np.zeros((len(started), 2), dtype=np.float32)))
        return list(self._tracks)

    def rescale(self, x: float, y: float) -> None:
        """Moves all heads to where they are in frames of another size; x and y are its factors to the size before."""
        factors = np.array([x, y, x, y], dtype=np.float32)
        self._tracks = [replace(track, box_xyxy=track.box_xyxy * factors) for track in self._tracks]
        self._velocities = self._velocities * factors[:2]

    def _advance(self, now: float) -> float:
        """Takes the time of the next frame; returns the seconds since the last one, 0 for the first."""
        last, self._time = self._time, now
        if last is None:
            return 0.0
        elapsed = max(0.0, now - last)
        if now < last - self.config.keep_s:
            # the clock was set back: tracks with times in the future would never end, nor be observed for long enough
            self._tracks, self._velocities = [], NO_VELOCITIES
            self._intervals.clear()
        else:
            self._intervals.append(elapsed)
        return elapsed

    def _continue(self, detected: dict[int, _Head], predicted: NDArray[np.float32], now: float) -> dict[int, Track]:
        """Returns the tracks that have not ended, by their index in the last frame.

        Args:
            detected: Index of a track -> its head in this frame.
            predicted: Where each head is expected [N, 4].
            now: Time of the frame, seconds.
        """
        keep_s = max(self.config.keep_s, KEEP_INTERVALS * self._usual_interval())
        kept = {}
        for i, track in enumerate(self._tracks):
            if i in detected:
                box, score, label = detected[i]
                kept[i] = replace(
                    track,
                    box_xyxy=box,
                    score=score,
                    label=label,
                    seen=True,
                    hits=track.hits + 1,
                    last_time=max(now, track.last_time),
                )
            elif now - track.last_time <= keep_s:
                kept[i] = replace(track, box_xyxy=predicted[i], seen=False)
        return kept

    def _start(self, head: _Head, now: float) -> Track:
        box, score, label = head
        return Track(
            id=next(self._ids), box_xyxy=box, score=score, label=label, seen=True, hits=1, first_time=now, last_time=now
        )

    def _usual_interval(self) -> float:
        """Returns the median of the last intervals between frames, the lower one of two; 0 before the second frame."""
        return sorted(self._intervals)[(len(self._intervals) - 1) // 2] if self._intervals else 0.0

    def _match(
        self, predicted: NDArray[np.float32], boxes: NDArray[np.float32], strong: int, extra_margin: float = 0.0
    ) -> dict[int, int]:
        """Maps indices of `predicted` [N, 4] to indices of `boxes` [M, 4], of which the first `strong` are matched first."""
        matches: dict[int, int] = {}
        if not len(predicted) or not len(boxes):
            return matches
        enlarged_boxes = enlarged(np.concatenate((predicted, boxes)), self.config.enlarge + extra_margin)
        overlap = pairwise_iou(enlarged_boxes[: len(predicted)], enlarged_boxes[len(predicted) :])
        if not np.isfinite(overlap).all():  # with NaN, the solver might never return
            raise ValueError("expected finite boxes from the model, got NaN or infinity")
        for columns in (range(strong), range(strong, len(boxes))):
            rows = [i for i in range(len(predicted)) if i not in matches]
            if not rows or not columns:
                continue
            candidates = overlap[rows, columns.start : columns.stop]
            _, column_of_row, _ = lap.lapjv(1.0 - candidates, extend_cost=True)  # -1: no column for this row
            for i, j in enumerate(column_of_row.tolist()):
                if j >= 0 and candidates[i, j] >= self.config.min_overlap:
                    matches[rows[i]] = columns[j]
        return matches

    def _learn_velocities(
        self, before: NDArray[np.float32], boxes: NDArray[np.float32], matches: dict[int, int], now: float
    ) -> None:
        """Updates the velocities of heads that were detected in both the last frame and this one."""
        rows = [i for i in matches if self._tracks[i].seen and now > self._tracks[i].last_time]
        if not rows:
            return
        old, new = before[rows], boxes[[matches[i] for i in rows]]
        elapsed = np.array([[now - self._tracks[i].last_time] for i in rows])
        step = (new[:, :2] + new[:, 2:] - old[:, :2] - old[:, 2:]) / (2 * elapsed).astype(np.float32)
        # there is no older velocity to keep at the first step
        inertia = np.array([[INERTIA if self._tracks[i].hits > 1 else 0.0] for i in rows], dtype=np.float32)
        self._velocities[rows] = inertia * self._velocities[rows] + (1 - inertia) * step
