"""The cool-down: the time after an alert in which the same head raises no other one."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ppe_edge.rules.geometry import enlarged
from ppe_yolo.core.boxes import pairwise_iou

# A track that starts where another one ended is the same head. Shortly afterwards, a person who walks may be further away: a
# box with three times its size as margin, per second, overlaps boxes five sizes away (a head of 25 cm at 1.2 m/s).
MARGIN, MARGIN_PER_S, WALK_S = 0.5, 3.0, 1.5
MIN_IOU = 0.1


@dataclass(frozen=True, eq=False, kw_only=True)
class _ReportedHead:
    """A head that an alert was raised for, and where and when it was last seen."""

    alert_time: float
    box_xyxy: NDArray[np.float32]
    last_seen: float


class Cooldown:
    """The heads of one camera for which alerts were raised recently.

    Args:
        seconds: Length of the cool-down.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._heads: dict[int, _ReportedHead] = {}  # by track; tracks that ended included
        self._untracked: list[_ReportedHead] = []  # with a track id of another tracker

    def take_over(self, before: "Cooldown", same_tracks: bool) -> None:
        """Copies the heads of another cool-down. They are recognised by their place alone unless tracks are the same."""
        self._untracked += before._untracked
        if same_tracks:
            self._heads |= before._heads
        else:
            self._untracked += before._heads.values()

    def start(self, track: int, box_xyxy: NDArray[np.float32], now: float) -> None:
        """Starts the cool-down of a head."""
        self._heads[track] = _ReportedHead(alert_time=now, box_xyxy=box_xyxy, last_seen=now)

    def observe(self, track: int, box_xyxy: NDArray[np.float32], now: float) -> None:
        """Notes where a head is, if it is in its cool-down."""
        if track in self._heads:
            self._heads[track] = replace(self._heads[track], box_xyxy=box_xyxy, last_seen=now)

    def covers(self, track: int, first_xyxy: NDArray[np.float32], first_seen: float, now: float) -> bool:
        """Returns whether a head is in its cool-down: by its track, or since it appeared where a reported head was lost.

        Args:
            track: The track of the head.
            first_xyxy: Where the head was first seen [4].
            first_seen: When it was first seen, seconds.
            now: Current time, seconds.
        """
        if track in self._heads and self._is_active(self._heads[track], now):
            return True
        others = [head for other, head in self._heads.items() if other != track]
        return any(
            self._is_active(head, now) and _may_be_same_head(head, first_xyxy, first_seen)
            for head in (*others, *self._untracked)
        )

    def rescale(self, factors: NDArray[np.float32]) -> None:
        """Multiplies the boxes by factors [4]: frames have another size from now on."""
        self._heads = {t: replace(head, box_xyxy=head.box_xyxy * factors) for t, head in self._heads.items()}
        self._untracked = [replace(head, box_xyxy=head.box_xyxy * factors) for head in self._untracked]

    def expire(self, now: float) -> None:
        """Drops the heads whose cool-down is over."""
        self._heads = {track: head for track, head in self._heads.items() if now - head.alert_time < self._seconds}
        self._untracked = [head for head in self._untracked if now - head.alert_time < self._seconds]

    def _is_active(self, head: _ReportedHead, now: float) -> bool:
        return 0 <= now - head.alert_time < self._seconds  # negative: the clock was set back


def _may_be_same_head(lost: _ReportedHead, first_xyxy: NDArray[np.float32], first_seen: float) -> bool:
    gap = first_seen - lost.last_seen
    if gap <= 0:  # both were seen at the same time: two heads
        return False
    boxes = enlarged(np.stack((lost.box_xyxy, first_xyxy)), MARGIN + (MARGIN_PER_S * gap if gap <= WALK_S else 0.0))
    return bool(pairwise_iou(boxes[:1], boxes[1:])[0, 0] > MIN_IOU)
