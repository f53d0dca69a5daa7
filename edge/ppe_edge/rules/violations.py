"""When a head without helmet is a violation: it persists, lies in a zone, and has not just been told of.

Each picture in which a tracked head is found says yes or no. A violation begins when enough of the last pictures say yes, and
ends when as many say no, or the head is gone. Between the two nothing changes: one doubtful picture neither begins nor ends.
"""

import math
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ppe_edge.errors import EdgeError
from ppe_edge.rules.geometry import enlarged, is_inside
from ppe_edge.rules.tracker import Track
from ppe_yolo.core.boxes import pairwise_iou
from ppe_yolo.core.contract import ModelContract

Point = tuple[float, float]
FEWEST = 3  # pictures that a decision by time rests on
NOBODY = 0  # the number of no track: they count from 1
# A new track that begins where a lost one was is the same head. Soon after the loss, a walker may be further on: a box that
# is enlarged by three times its size a second overlaps what lies five sizes further (a head of 25 cm at 1.2 m/s).
PLACE, PACE, JUMP_S = 0.5, 3.0, 1.5


class RuleConfig(BaseModel):
    """What counts as a violation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    violation_class: str = Field("none", description="The class that must not be seen.")
    alarm_threshold: float | None = Field(
        None, ge=0, le=1, description="Score from which it counts; the model's own when left out."
    )
    seconds: float | None = Field(
        1.5, gt=0, le=3600, description="What most pictures of the last seconds of a head say begins a violation, or ends it."
    )
    frames: int = Field(6, ge=1, le=1000, description="How many are most: so many ...")
    of: int = Field(8, ge=1, le=1000, description="... of so many; with `seconds: null`, of the last so many pictures.")
    hysteresis: float = Field(0.7, gt=0, le=1, description="While a violation lasts, this part of the threshold is enough.")
    cooldown_s: float = Field(10.0, ge=0, le=86400, description="Seconds from an alert to the next one about the same head.")
    zones: dict[str, tuple[Point, ...]] = Field(
        default_factory=dict,
        description="Name -> corners (x, y), parts of width and height; the whole picture when there are none.",
    )

    @field_validator("zones")
    @classmethod
    def _polygons(cls, zones: dict[str, tuple[Point, ...]]) -> dict[str, tuple[Point, ...]]:
        for name, corners in zones.items():
            if len(corners) < 3:
                raise ValueError(f"zone {name!r}: expected three corners or more, got {len(corners)}")
            if any(not 0.0 <= v <= 1.0 for corner in corners for v in corner):
                raise ValueError(f"zone {name!r}: corners are parts of width and height, 0 to 1, got {list(corners)}")
        return zones

    @model_validator(mode="after")
    def _more_than_half(self) -> "RuleConfig":
        if not self.of / 2 < self.frames <= self.of:
            raise ValueError(f"frames must be more than half of `of`, and not more than it, got {self.frames} of {self.of}")
        return self


@dataclass(frozen=True, eq=False)
class ViolationStarted:
    """A violation to be told of.

    Attributes:
        violation: Its id.
        track: The head's id.
        zone: Where, None when there are no zones.
        box_xyxy: The head, pixels of the frame [4].
        score: Of the last detection.
        label: The class.
        started: When the head was first seen so, seconds.
    """

    violation: str
    track: int
    zone: str | None
    box_xyxy: NDArray[np.float32]
    score: float
    label: int
    started: float


@dataclass(frozen=True, eq=False)
class ViolationEnded(ViolationStarted):
    """One that was told of, and is over; `ended` is when the head was last seen so."""

    ended: float

    @property
    def duration(self) -> float:
        """Seconds."""
        return max(0.0, self.ended - self.started)


class _Votes:
    """What the last pictures of a head say, oldest first, and how many of them say yes."""

    def __init__(self) -> None:
        self.pictures: deque[tuple[float, bool]] = deque()  # time, whether it is a violation
        self.yes = 0  # counted as they come and go: there may be many, of many heads, in every picture

    def add(self, time: float, yes: bool) -> None:
        self.pictures.append((time, yes))
        self.yes += yes

    def forget_oldest(self) -> None:
        self.yes -= self.pictures.popleft()[1]


@dataclass(eq=False)
class _Head:
    """What is known of one track."""

    votes: _Votes = field(default_factory=_Votes)
    first: float = 0.0  # when it was seen first
    first_xyxy: NDArray[np.float32] | None = None  # and where
    last: float = 0.0  # when it was seen last
    since: float | None = None  # the first yes after a window without any
    last_yes: float = 0.0
    zone: str | None = None
    box_xyxy: NDArray[np.float32] | None = None
    started: ViolationStarted | None = None


@dataclass(frozen=True, eq=False)
class _Told:
    """An alert that was sent, and where and when its head was last seen, as far as it is no longer known as a track."""

    time: float
    track: int
    box_xyxy: NDArray[np.float32]
    seen: float


class ViolationMonitor:
    """The rule at one camera.

    Args:
        rule: The rule.
        contract: Of the model whose tracks come.

    Raises:
        EdgeError: The model has no such class, or neither rule nor model says from which score on it counts.
    """

    def __init__(self, rule: RuleConfig, contract: ModelContract) -> None:
        if rule.violation_class not in contract.class_names:
            raise EdgeError(
                f"rule.violation_class: expected one of the model's classes {', '.join(contract.class_names)}, "
                f"got {rule.violation_class!r}"
            )
        threshold = rule.alarm_threshold
        if threshold is None:
            threshold = contract.alarm_thresholds.get(rule.violation_class)
        if threshold is None:
            raise EdgeError(
                f"rule.alarm_threshold: the model names none for {rule.violation_class!r}: set it here, or export the model "
                "with --alarm-thresholds"
            )
        self.threshold = float(threshold)
        # of every class, by label; for those that raise no alarm the model need not name one
        thresholds = {**dict.fromkeys(contract.class_names, threshold), **contract.alarm_thresholds}
        thresholds[rule.violation_class] = threshold
        self.thresholds = tuple(float(thresholds[name]) for name in contract.class_names)
        self._rule = rule
        self._label = contract.class_names.index(rule.violation_class)
        self._heads: dict[int, _Head] = {}
        self._told: list[_Told] = []
        self._since = math.inf  # the first picture

    def take_over(self, before: "ViolationMonitor", same_tracks: bool) -> None:
        """Goes on where another rule or model left off, before the first picture.

        Who was told of is not told of again within the cool-down, and a violation that lasts goes on, until pictures by the
        new rule say otherwise: those that the old one judged do not count. `before` is left with what did not come over:
        violations of another class, or of heads that nobody follows any more.

        Args:
            before: The monitor that watched this camera up to now.
            same_tracks: Whether the same heads keep their numbers; else they are known by their places.
        """
        if before._rule.violation_class != self._rule.violation_class:
            return
        for told in before._told:
            box, seen = before._last_place(told)
            self._told.append(_Told(told.time, told.track if same_tracks else NOBODY, box, seen))
        if same_tracks:
            for number in [n for n, head in before._heads.items() if head.started is not None]:
                head = before._heads.pop(number)
                assert head.started is not None
                # another model may count its classes in another order
                self._heads[number] = replace(head, votes=_Votes(), started=replace(head.started, label=self._label))

    def update(
        self, tracks: Sequence[Track], frame_size: tuple[int, int], now: float
    ) -> list[ViolationStarted | ViolationEnded]:
        """What begins and ends with another picture; ends come first.

        Args:
            tracks: All heads that the tracker knows.
            frame_size: (height, width), pixels.
            now: When the picture was taken, seconds.
        """
        self._since = min(self._since, now)
        present = {t.id for t in tracks}
        changes: list[ViolationStarted | ViolationEnded] = []
        for gone in [i for i in self._heads if i not in present]:
            self._told = [_Told(t.time, t.track, *self._last_place(t)) if t.track == gone else t for t in self._told]
            head = self._heads.pop(gone)
            if head.started is not None:
                changes.append(self._end(head))
        begins = []
        for track in tracks:
            if not track.seen:
                continue
            if track.id not in self._heads:
                self._heads[track.id] = _Head(first=track.first_time, first_xyxy=track.box_xyxy)
            head = self._heads[track.id]
            self._observe(head, track, frame_size, now)
            if head.started is not None and self._agree(head, now, False):
                changes.append(self._end(head))
            elif head.started is None and self._agree(head, now, True) and not self._has_been_told(track, now):
                begins.append(self._begin(head, track, now))
        self._told = [t for t in self._told if now - t.time < self._rule.cooldown_s]
        return [*changes, *begins]

    def lasting(self) -> dict[str, float]:
        """Violations that were told of and go on: id -> when last seen, seconds."""
        return {head.started.violation: head.last_yes for head in self._heads.values() if head.started is not None}

    def alarmed(self) -> frozenset[int]:
        """The heads whose violations were told of and go on, by the tracks' ids."""
        return frozenset(number for number, head in self._heads.items() if head.started is not None)

    def close(self, now: float) -> list[ViolationEnded]:
        """Ends all that last: nobody looks any more. They ended when their heads were last seen, at `now` at the latest."""
        ended = [self._end(h) for h in self._heads.values() if h.started is not None]
        self._heads.clear()
        return ended

    def _observe(self, head: _Head, track: Track, frame_size: tuple[int, int], now: float) -> None:
        threshold = self.threshold * (self._rule.hysteresis if head.started is not None else 1.0)
        is_there, zone = self._zone_of(track.box_xyxy, frame_size)
        yes = is_there and track.label == self._label and track.score >= threshold
        votes = head.votes
        votes.add(now, yes)
        if self._rule.seconds is None:
            while len(votes.pictures) > self._rule.of:
                votes.forget_oldest()
        else:
            while now - votes.pictures[0][0] > self._rule.seconds:
                votes.forget_oldest()
        head.box_xyxy, head.last = track.box_xyxy, now
        if yes:
            head.last_yes, head.zone = now, zone
        if head.started is None:
            if yes and head.since is None:
                head.since = now
            elif not votes.yes:
                head.since = None

    def _agree(self, head: _Head, now: float, wanted: bool) -> bool:
        """Whether enough of the last pictures say so."""
        pictures = len(head.votes.pictures)
        votes = head.votes.yes if wanted else pictures - head.votes.yes
        if self._rule.seconds is None:
            return votes >= self._rule.frames
        # a head, or a rule, that has just come has not been seen for so long; the window's first picture may have left it
        long_enough = now - max(head.first, self._since) >= self._rule.seconds
        enough = pictures >= FEWEST and votes * self._rule.of >= self._rule.frames * pictures
        return long_enough and enough

    def _has_been_told(self, track: Track, now: float) -> bool:
        """Whether the cool-down holds this one back: the same head, or one that came where that head was lost."""
        head = self._heads[track.id]
        assert head.first_xyxy is not None
        for told in self._told:
            if 0 <= now - told.time < self._rule.cooldown_s:
                if told.track == track.id:
                    return True
                box, seen = self._last_place(told)
                gap = head.first - seen
                if gap > 0:  # else both were seen at once: two heads
                    both = enlarged(np.stack((box, head.first_xyxy)), PLACE + (PACE * gap if gap <= JUMP_S else 0.0))
                    if pairwise_iou(both[:1], both[1:])[0, 0] > 0.1:
                        return True
        return False

    def _last_place(self, told: _Told) -> tuple[NDArray[np.float32], float]:
        """Where and when the head was last seen."""
        head = self._heads.get(told.track)
        return (told.box_xyxy, told.seen) if head is None or head.box_xyxy is None else (head.box_xyxy, head.last)

    def _begin(self, head: _Head, track: Track, now: float) -> ViolationStarted:
        since = now if head.since is None else head.since
        head.started = ViolationStarted(str(uuid.uuid4()), track.id, head.zone, track.box_xyxy, track.score, self._label, since)
        self._told.append(_Told(now, track.id, track.box_xyxy, now))
        return head.started

    def _end(self, head: _Head) -> ViolationEnded:
        started = head.started
        assert started is not None and head.box_xyxy is not None
        head.started = head.since = None
        return ViolationEnded(
            started.violation, started.track, started.zone, head.box_xyxy, started.score, started.label, started.started,
            ended=head.last_yes,
        )  # fmt: skip

    def _zone_of(self, box_xyxy: NDArray[np.float32], frame_size: tuple[int, int]) -> tuple[bool, str | None]:
        """Whether the middle of a box lies where the rule holds, and the zone's name."""
        if not self._rule.zones:
            return True, None
        x, y = (box_xyxy[0] + box_xyxy[2]) / 2 / frame_size[1], (box_xyxy[1] + box_xyxy[3]) / 2 / frame_size[0]
        for name, corners in self._rule.zones.items():
            if is_inside(float(x), float(y), corners):
                return True, name
        return False, None
