"""All rules of one camera: from the detections of a frame to tracks, and from tracks to violations of each rule."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from ppe_edge.common.clock import is_set
from ppe_edge.rules.association import are_inside, have_one
from ppe_edge.rules.config import RuleConfig, Severity
from ppe_edge.rules.groups import tracked_classes
from ppe_edge.rules.schedule import Schedule
from ppe_edge.rules.tally import CountedTrack
from ppe_edge.rules.tracker import Track, Tracker, TrackerConfig
from ppe_edge.rules.violations import ViolationEnded, ViolationMonitor, ViolationStarted
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

UTC = ZoneInfo("UTC")


@dataclass(frozen=True, eq=False, kw_only=True)
class _ActiveRule:
    """A rule with its state.

    Attributes:
        config: Its settings.
        group: The classes that are tracked together for it.
        monitor: Its state.
        schedule: When it applies; None for always.
    """

    config: RuleConfig
    group: frozenset[str]
    monitor: ViolationMonitor
    schedule: Schedule | None


class CameraRules:
    """Applies the rules of one camera. Each rule has its own violations and cool-downs; rules share the tracks.

    Args:
        rules: The rules by name, with the outlines of their zones.
        contract: Contract of the model that produces the detections.
        tracker: Settings of the tracker.
        zone: Time zone of the schedules.
        keys: Rule -> where it is set, for errors; by default its name.
        make_tracker: Makes a tracker from its settings and the source of its ids.

    Attributes:
        thresholds: Alarm threshold of each label: the lowest of all rules.
        violating: Labels that are a violation by themselves, such as bare heads. Not persons, who may wear what a rule demands.

    Raises:
        EdgeError: A rule contradicts the model.
    """

    def __init__(
        self,
        rules: Mapping[str, RuleConfig],
        contract: ModelContract,
        tracker: TrackerConfig,
        zone: ZoneInfo = UTC,
        keys: Mapping[str, str] | None = None,
        make_tracker: Callable[[TrackerConfig, Iterator[int]], Tracker] = Tracker,
    ) -> None:
        self._severities = {name: rule.severity for name, rule in rules.items()}
        groups = tracked_classes(rules, contract.class_names, keys)
        self._contract, self._tracker, self._zone = contract, tracker, zone
        self._rules = {
            name: _ActiveRule(
                config=rule,
                group=groups[name],
                monitor=ViolationMonitor(rule, contract, name, (keys or {}).get(name, "rule")),
                schedule=Schedule(rule.schedule, rule.exceptions, zone) if rule.has_schedule else None,
            )
            for name, rule in rules.items()
        }
        self.thresholds = tuple(map(min, zip(*(rule.monitor.thresholds for rule in self._rules.values()), strict=True)))
        self.violating = frozenset(
            contract.class_names.index(rule.violation_class) for rule in rules.values() if rule.without is None
        )
        self._in_group = {
            group: np.array([name in group for name in contract.class_names]) for group in dict.fromkeys(groups.values())
        }
        self._ids = count(1)
        self._make_tracker = make_tracker
        lowest = {g: min(rule.monitor.threshold for rule in self._rules.values() if rule.group == g) for g in self._in_group}
        self._trackers = {group: make_tracker(tracker.down_to(lowest[group]), self._ids) for group in self._in_group}
        self._tracks: dict[frozenset[str], list[Track]] = {}  # of the latest frame

    def continue_from(self, before: "CameraRules") -> None:
        """Takes over tracks, open violations and cool-downs. Call it before the first frame.

        A rule whose settings have not changed continues as if nothing had happened. What is not taken over remains in `before`.
        """
        former_groups = self._take_over_trackers(before)
        for name, rule in self._rules.items():
            former = before._rules.get(name)
            if former is None:
                continue
            same_tracks = former_groups.get(rule.group) == former.group
            unchanged = (former.config, former.group) == (rule.config, rule.group)
            if same_tracks and unchanged and before._contract is self._contract:
                self._rules[name] = replace(rule, monitor=former.monitor)
                del before._rules[name]
            else:
                rule.monitor.take_over(former.monitor, same_tracks)

    def _take_over_trackers(self, before: "CameraRules") -> dict[frozenset[str], frozenset[str]]:
        """Continues in each group the tracks of the earlier one with most classes in common; returns group -> earlier one."""
        self._ids = before._ids
        left = dict(before._trackers) if before._tracker == self._tracker else {}
        former_groups: dict[frozenset[str], frozenset[str]] = {}
        for group, new in self._trackers.items():
            former = max(left, key=lambda other: len(other & group), default=frozenset[str]())
            if former & group:
                former_groups[group] = former
                self._trackers[group] = left.pop(former)
                self._trackers[group].config = new.config
            else:
                self._trackers[group] = self._make_tracker(new.config, self._ids)
        return former_groups

    def track(self, detections: Detections, now: float) -> list[Track]:
        """Updates the tracks with the detections of the next frame; returns those of all objects that a rule follows."""
        for group, tracker in self._trackers.items():
            chosen = self._in_group[group]
            mine = detections if chosen.all() else detections.select(chosen[detections.labels])
            self._tracks[group] = tracker.update(mine, now)
        return [track for tracks in self._tracks.values() for track in tracks]

    def judge(
        self, detections: Detections, frame_size: tuple[int, int], now: float, wall_time: float
    ) -> list[ViolationStarted | ViolationEnded]:
        """Applies all rules to the frame that was tracked last.

        Args:
            detections: Its detections.
            frame_size: (height, width), pixels.
            now: Time of the frame, seconds.
            wall_time: The same by the wall clock, UTC epoch seconds. While that is not set, schedules do not count.

        Returns:
            Violations that end or start; those of a rule that end come first.
        """
        changes: list[ViolationStarted | ViolationEnded] = []
        for rule in self._rules.values():
            if rule.schedule is not None and is_set(wall_time) and not rule.schedule.is_on(wall_time):
                changes += rule.monitor.close()
                continue
            tracks = self._tracks[rule.group]
            changes += rule.monitor.update(tracks, frame_size, now, *self._associate(rule.config, tracks, detections))
        return changes

    def rescale(self, x: float, y: float) -> None:
        """Moves all objects to where they are in frames of another size; x and y are its factors to the size before."""
        for tracker in self._trackers.values():
            tracker.rescale(x, y)
        for rule in self._rules.values():
            rule.monitor.rescale(x, y)

    def severity_of(self, rule: str) -> Severity:
        """Returns the severity of a rule."""
        return self._severities[rule]

    def open_violations(self) -> dict[str, float]:
        """Returns when each open violation was last seen: id -> seconds."""
        return {v: seen for rule in self._rules.values() for v, seen in rule.monitor.open_violations().items()}

    def alarmed_tracks(self) -> frozenset[int]:
        """Returns the ids of the tracks with open violations."""
        return frozenset().union(*(rule.monitor.alarmed_tracks() for rule in self._rules.values()))

    def take_counted(self) -> list[CountedTrack]:
        """Returns the tracks that have ended since the last call, as they count for each rule."""
        return [counted for rule in self._rules.values() for counted in rule.monitor.take_counted()]

    def counted_now(self) -> list[CountedTrack]:
        """Returns the tracks that have not ended, as they would count now for each rule."""
        return [counted for rule in self._rules.values() for counted in rule.monitor.counted_now()]

    def close(self) -> list[ViolationEnded]:
        """Ends all open violations, since the camera is no longer monitored."""
        return [ended for rule in self._rules.values() for ended in rule.monitor.close()]

    def _associate(
        self, rule: RuleConfig, tracks: Sequence[Track], detections: Detections
    ) -> tuple[frozenset[int], frozenset[int]]:
        """Returns the ids of the tracks that `inside` ignores in this frame, and of those that `without` clears."""
        seen = [track for track in tracks if track.seen]
        if not seen or (rule.inside is None and rule.without is None):
            return frozenset(), frozenset()
        boxes, ids = np.stack([track.box_xyxy for track in seen]), np.array([track.id for track in seen])
        outside, cleared = np.zeros((2, len(seen)), dtype=np.bool_)
        if rule.inside is not None:
            outside = ~are_inside(boxes, self._boxes_of(rule.inside, detections))
        if rule.without is not None:
            cleared = have_one(boxes, self._boxes_of(rule.without, detections), rule.worn_at)
        return frozenset(ids[outside].tolist()), frozenset(ids[cleared].tolist())

    def _boxes_of(self, class_name: str, detections: Detections) -> NDArray[np.float32]:
        """Returns the boxes [N, 4] of the detections of a class that reach its alarm threshold."""
        label = self._contract.class_names.index(class_name)
        chosen = (detections.labels == label) & (detections.scores >= self.thresholds[label])
        return detections.boxes_xyxy[chosen]
