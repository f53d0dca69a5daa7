"""When a head without helmet is a violation: it persists, lies in a zone, and is not in its cool-down.

Each frame in which a tracked head is detected is a vote. A violation starts when enough recent votes are positive. It ends when
as many are negative, or when the track ends. In between nothing changes: a single uncertain frame neither starts nor ends it.
The rule holds at any frame rate from 0.2 to 30 frames per second, see `VoteWindow`.
"""

import math
import uuid
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import DEFAULT_RULE, MIN_THRESHOLD, RuleConfig
from ppe_edge.rules.cooldown import Cooldown
from ppe_edge.rules.geometry import is_inside
from ppe_edge.rules.tally import CountedTrack, Tallies
from ppe_edge.rules.tracker import Track
from ppe_edge.rules.votes import STRETCH_FRAMES, VoteWindow
from ppe_yolo.core.contract import ModelContract


@dataclass(frozen=True, eq=False, kw_only=True)
class _Violation:
    """A violation.

    Attributes:
        violation: Id of the violation.
        track: Id of the head's track.
        rule: Name of the rule.
        zone: Name of the zone; None without zones.
        box_xyxy: Box of the head, pixels of the frame [4]: at the start that of the last positive vote, at the end where it was
            last seen.
        score: Score of the last positive vote before the start, so not below the threshold. The frame that completes the vote
            may itself be a negative one: a vote needs most frames, not all.
        label: Label of the violation class.
        started: Time of the first positive vote, seconds.
    """

    violation: str
    track: int
    rule: str
    zone: str | None
    box_xyxy: NDArray[np.float32]
    score: float
    label: int
    started: float


@dataclass(frozen=True, eq=False, kw_only=True)
class ViolationStarted(_Violation):
    """A violation that has just started."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ViolationEnded(_Violation):
    """A violation that has just ended.

    Attributes:
        ended: Time of the last positive vote, seconds.
        stopped: Whether it ended because the rule no longer applies.
    """

    ended: float
    stopped: bool = False

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return max(0.0, self.ended - self.started)


@dataclass(eq=False, kw_only=True)
class _Head:
    """What the monitor knows about a tracked head. Times are in seconds."""

    votes: VoteWindow
    first_seen: float
    first_xyxy: NDArray[np.float32]
    box_xyxy: NDArray[np.float32]  # where it was last seen
    positive_since: float | None = None  # the first positive vote after a window without any
    last_positive: float = 0.0  # the last positive vote ...
    zone: str | None = None  # ... with its zone, box and score
    positive_xyxy: NDArray[np.float32]
    score: float = 0.0
    open: ViolationStarted | None = None


class ViolationMonitor:
    """Applies the rule to the tracks of one camera.

    Args:
        rule: The rule; the model has its violation class.
        contract: Contract of the model that produces the detections.
        name: Name of the rule.
        key: Where it is set, for errors.

    Attributes:
        threshold: Minimum score of a violation.
        thresholds: Alarm threshold of each label.

    Raises:
        EdgeError: Neither rule nor model names the threshold.
    """

    def __init__(self, rule: RuleConfig, contract: ModelContract, name: str = DEFAULT_RULE, key: str = "rule") -> None:
        threshold = rule.alarm_threshold
        if threshold is None:
            threshold = contract.alarm_thresholds.get(rule.violation_class)
        if threshold is None:
            raise EdgeError(
                f"the model names none for {rule.violation_class!r}",
                setting=f"{key}.alarm_threshold",
                hint="set it here, or export the model with --operating-point",
            )
        threshold = max(threshold, MIN_THRESHOLD)
        self.threshold = float(threshold)
        # the model need not name thresholds for classes that raise no alarm
        thresholds = {**dict.fromkeys(contract.class_names, threshold), **contract.alarm_thresholds}
        thresholds[rule.violation_class] = threshold
        self.thresholds = tuple(float(thresholds[name]) for name in contract.class_names)
        self._rule, self._name = rule, name
        self._label = contract.class_names.index(rule.violation_class)
        self._heads: dict[int, _Head] = {}  # by track
        self._tallies, self._counted = Tallies(name), list[CountedTrack]()
        self._cooldown = Cooldown(rule.cooldown_s)
        self._since = math.inf  # time of the first frame
        self._frame_times: deque[float] = deque(maxlen=STRETCH_FRAMES)

    def take_over(self, before: "ViolationMonitor", same_tracks: bool) -> None:
        """Continues the open violations and cool-downs of another rule or model. Call it before the first frame.

        Heads that were already reported are not reported again within the cool-down. Open violations stay open until frames
        evaluated under the new rule end them; votes from the old rule are discarded. Violations of another class, or of heads
        that are no longer tracked, are not taken over and remain in `before`.

        Args:
            before: The previous monitor of this camera.
            same_tracks: Whether track ids are still valid. If not, heads are recognised by their place.
        """
        if before._rule.violation_class != self._rule.violation_class:
            return
        self._cooldown.take_over(before._cooldown, same_tracks)
        if not same_tracks:
            return
        self._tallies.take_over(before._tallies)
        for track, head in list(before._heads.items()):
            if head.open is not None:
                del before._heads[track]
                # another model may order its classes differently
                violation = replace(head.open, label=self._label)
                self._heads[track] = replace(head, votes=VoteWindow(self._rule), open=violation)

    def update(
        self,
        tracks: Sequence[Track],
        frame_size: tuple[int, int],
        now: float,
        ignored: Collection[int] = (),
        cleared: Collection[int] = (),
    ) -> list[ViolationStarted | ViolationEnded]:
        """Evaluates the next frame.

        Args:
            tracks: All tracks, as `Tracker.update` returns them.
            frame_size: (height, width), pixels.
            now: Time of the frame, seconds.
            ignored: Ids of tracks that do not count in this frame.
            cleared: Ids of tracks that are compliant in this frame, whatever their class.

        Returns:
            The violations that end, then those that start.
        """
        self._since = min(self._since, now)
        self._frame_times.append(now)
        present = {t.id for t in tracks}
        ended, started = self._end_lost(present), []
        self._counted += self._tallies.end(present)
        for track in tracks:
            if not track.seen:
                continue
            head = self._vote(track, frame_size, now, track.id in ignored, track.id in cleared)
            observed = now - max(head.first_seen, self._since)
            if head.open is not None:
                if head.votes.decides(False, observed):
                    ended.append(self._end(head))
            elif head.votes.decides(True, observed) and not self._cooldown.covers(
                track.id, head.first_xyxy, head.first_seen, now
            ):
                started.append(self._start(head, track, now))
        self._cooldown.expire(now)
        return [*ended, *started]

    def rescale(self, x: float, y: float) -> None:
        """Moves all heads to where they are in frames of another size; x and y are its factors to the size before."""
        factors = np.array([x, y, x, y], dtype=np.float32)
        for head in self._heads.values():
            head.first_xyxy, head.box_xyxy = head.first_xyxy * factors, head.box_xyxy * factors
            head.positive_xyxy = head.positive_xyxy * factors
        self._cooldown.rescale(factors)

    def open_violations(self) -> dict[str, float]:
        """Returns when each open violation was last seen: id -> seconds."""
        return {head.open.violation: head.last_positive for head in self._heads.values() if head.open is not None}

    def alarmed_tracks(self) -> frozenset[int]:
        """Returns the ids of the tracks with open violations."""
        return frozenset(track for track, head in self._heads.items() if head.open is not None)

    def close(self) -> list[ViolationEnded]:
        """Ends all open violations, since the rule no longer applies. Cool-downs continue, in case it applies again."""
        ended = [replace(self._end(head), stopped=True) for head in self._heads.values() if head.open is not None]
        self._heads.clear()
        self._counted += self._tallies.end(set())
        self._since = math.inf
        self._frame_times.clear()
        return ended

    def take_counted(self) -> list[CountedTrack]:
        """Returns the tracks that have ended since the last call, as they count for compliance."""
        counted, self._counted = self._counted, []
        return counted

    def counted_now(self) -> list[CountedTrack]:
        """Returns the tracks that have not ended, as they would count now."""
        return self._tallies.current()

    def _end_lost(self, present: set[int]) -> list[ViolationEnded]:
        """Ends the violations of tracks that are no longer present."""
        lost = [self._heads.pop(track) for track in list(self._heads) if track not in present]
        return [self._end(head) for head in lost if head.open is not None]

    def _vote(self, track: Track, frame_size: tuple[int, int], now: float, ignored: bool, cleared: bool) -> _Head:
        """Adds the vote of this frame; returns the head."""
        head = self._heads.get(track.id) or self._add_head(track)
        is_in_zone, zone = self._zone_of(track.box_xyxy, frame_size)
        counts = is_in_zone and not ignored
        has_class = track.label == self._label and not cleared
        if counts and track.score >= self.thresholds[track.label]:
            self._tallies.add(track.id, now, zone, has_class)
        threshold = self.threshold * (self._rule.hysteresis if head.open is not None else 1.0)
        positive = counts and has_class and track.score >= threshold
        head.votes.add(now, positive, self._frame_times[0])
        head.box_xyxy = track.box_xyxy
        self._cooldown.observe(track.id, track.box_xyxy, now)
        if positive:
            head.last_positive, head.zone, head.positive_xyxy, head.score = now, zone, track.box_xyxy, track.score
        if head.open is None:
            if positive and head.positive_since is None:
                head.positive_since = now
            elif not head.votes.positive:
                head.positive_since = None
        return head

    def _add_head(self, track: Track) -> _Head:
        head = self._heads[track.id] = _Head(
            votes=VoteWindow(self._rule),
            first_seen=track.first_time,
            first_xyxy=track.box_xyxy,
            box_xyxy=track.box_xyxy,
            positive_xyxy=track.box_xyxy,
        )
        return head

    def _start(self, head: _Head, track: Track, now: float) -> ViolationStarted:
        self._cooldown.start(track.id, track.box_xyxy, now)
        head.open = ViolationStarted(
            violation=str(uuid.uuid4()),
            track=track.id,
            rule=self._name,
            zone=head.zone,
            box_xyxy=head.positive_xyxy,
            score=head.score,
            label=self._label,
            started=now if head.positive_since is None else head.positive_since,
        )
        return head.open

    def _end(self, head: _Head) -> ViolationEnded:
        started = head.open
        assert started is not None
        head.open = head.positive_since = None
        return ViolationEnded(
            violation=started.violation,
            track=started.track,
            rule=self._name,
            zone=started.zone,
            box_xyxy=head.box_xyxy,
            score=started.score,
            label=started.label,
            started=started.started,
            ended=head.last_positive,
        )

    def _zone_of(self, box_xyxy: NDArray[np.float32], frame_size: tuple[int, int]) -> tuple[bool, str | None]:
        """Returns whether the centre of a box lies in a zone, and the name of the zone."""
        if not self._rule.zones:
            return True, None
        x, y = (box_xyxy[0] + box_xyxy[2]) / 2 / frame_size[1], (box_xyxy[1] + box_xyxy[3]) / 2 / frame_size[0]
        for name, corners in self._rule.zones.items():
            if corners is not None and is_inside(float(x), float(y), corners):
                return True, name
        return False, None
