"""Several rules of one camera: what is tracked together, associations, schedules, and what survives a change."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from ppe_edge.errors import EdgeError
from ppe_edge.rules.association import are_inside, have_one
from ppe_edge.rules.camera_rules import CameraRules
from ppe_edge.rules.config import RuleConfig
from ppe_edge.rules.groups import tracked_classes
from ppe_edge.rules.tracker import TrackerConfig
from ppe_edge.rules.violations import ViolationEnded, ViolationStarted

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

NAMES = ("helmet", "none", "person", "vest")
CONTRACT = ModelContract(NAMES, (64, 64), alarm_thresholds=dict.fromkeys(NAMES, 0.5))
TWO: dict[str, Any] = {"seconds": None, "frames": 2, "of": 2}
BARE_HEAD = {**TWO, "violation_class": "none", "inside": "person"}
NO_VEST = {**TWO, "violation_class": "person", "without": "vest"}
BERLIN = ZoneInfo("Europe/Berlin")
FRIDAY_NOON = datetime(2027, 1, 15, 12, tzinfo=BERLIN).timestamp()
PERSON, HEAD, VEST = (100, 100, 160, 300), (115, 98, 145, 130), (105, 140, 155, 210)


def rules_of(rules: Mapping[str, Mapping[str, Any]], **more: Any) -> CameraRules:
    return CameraRules({n: RuleConfig(**r) for n, r in rules.items()}, CONTRACT, TrackerConfig(), **more)


def detections(*objects: tuple[str, tuple[float, ...]]) -> Detections:
    """Detections with score 0.9."""
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    labels = np.array([NAMES.index(name) for name, _ in objects], np.int64)
    return Detections(boxes, np.full(len(objects), 0.9, np.float32), labels)


class Watch:
    """Shows frames to the rules, ten per second; `seen` holds (frame, rule, "started" or "ended" or "stopped")."""

    def __init__(self, rules: CameraRules, wall: float = FRIDAY_NOON) -> None:
        self.rules, self.wall, self.frame = rules, wall, 0
        self.seen: list[tuple[int, str, str]] = []
        self.tracks: list[int] = []

    def show(self, found: Detections, frames: int = 1) -> None:
        for _ in range(frames):
            now = self.frame / 10
            self.tracks = [track.id for track in self.rules.track(found, now)]
            for change in self.rules.judge(found, (480, 640), now, self.wall + now):
                kind = "started" if isinstance(change, ViolationStarted) else "stopped" if change.stopped else "ended"
                self.seen.append((self.frame, change.rule, kind))
            self.frame += 1


def test_person_without_vest_and_bare_head_inside_person_are_two_violations() -> None:
    watch = Watch(rules_of({"bare_head": BARE_HEAD, "no_vest": NO_VEST}))
    watch.show(detections(("person", PERSON), ("none", HEAD)), 3)
    assert sorted(watch.seen) == [(1, "bare_head", "started"), (1, "no_vest", "started")]
    assert len(watch.tracks) == len(set(watch.tracks)) == 2  # the head lies inside the person, and both are tracked
    watch.show(detections(("person", PERSON), ("helmet", HEAD), ("vest", VEST)), 3)
    assert sorted(watch.seen[2:]) == [(4, "bare_head", "ended"), (4, "no_vest", "ended")]


def test_violating_labels_are_those_that_need_nothing_to_be_missing() -> None:
    assert rules_of({"bare_head": BARE_HEAD, "no_vest": NO_VEST}).violating == {NAMES.index("none")}


def test_bare_head_outside_of_persons_does_not_count() -> None:
    watch = Watch(rules_of({"bare_head": BARE_HEAD}))
    watch.show(detections(("person", PERSON), ("none", (300, 98, 330, 130))), 5)
    assert watch.seen == []


def test_vest_belongs_to_one_person_only() -> None:
    """The person behind, whose box contains the vest too, wears none."""
    behind = (80, 90, 170, 310)
    watch = Watch(rules_of({"no_vest": NO_VEST}))
    watch.show(detections(("person", PERSON), ("person", behind), ("vest", VEST)), 3)
    assert watch.seen == []  # two boxes that overlap this much are one person
    neighbour = (128, 100, 188, 300)
    watch.show(detections(("person", PERSON), ("person", neighbour), ("vest", VEST)), 3)
    assert [(rule, kind) for _, rule, kind in watch.seen] == [("no_vest", "started")]


@pytest.mark.parametrize(("worn_at", "worn"), [("body", True), ("head", False)])
def test_helmet_in_hand_is_not_worn_at_head(worn_at: Any, worn: bool) -> None:
    person, hand, head = (np.array([box], np.float32) for box in (PERSON, (150, 210, 175, 230), HEAD))
    assert have_one(person, hand, worn_at).tolist() == [worn]
    assert have_one(person, head, worn_at).tolist() == [True]


def test_are_inside_allows_margin() -> None:
    """The person is 60 wide and 200 high: the margins are 6 and 20."""
    centres = [(130, 81), (130, 79), (165, 200), (167, 200)]
    boxes = np.array([(x - 5, y - 5, x + 5, y + 5) for x, y in centres], np.float32)
    assert are_inside(boxes, np.array([PERSON], np.float32)).tolist() == [True, False, True, False]
    assert are_inside(boxes, np.empty((0, 4), np.float32)).tolist() == [False] * 4


def test_tracked_classes_are_violation_and_compliant_classes() -> None:
    def groups(**rules: Mapping[str, Any]) -> dict[str, list[str]]:
        made = tracked_classes({name: RuleConfig(**rule) for name, rule in rules.items()}, NAMES)
        return {name: sorted(group) for name, group in made.items()}

    assert groups(one={}) == {"one": ["helmet", "none", "person", "vest"]}  # as before rules had associations
    assert groups(a=BARE_HEAD, b=NO_VEST) == {"a": ["helmet", "none"], "b": ["person"]}
    no_helmet = {"violation_class": "person", "without": "helmet", "worn_at": "head"}
    assert groups(a={**BARE_HEAD, "compliant_classes": "helmet"}, b=no_helmet) == {"a": ["helmet", "none"], "b": ["person"]}
    assert groups(a={"compliant_classes": []}, b={"compliant_classes": ["helmet"]}) == {
        "a": ["helmet", "none"], "b": ["helmet", "none"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"a": {"inside": "persn"}}, r"^a.inside: expected one of .*, got 'persn': did you mean person\?"),
        (
            {"a": {"violation_class": "cap"}},
            "^a.violation_class: expected one of .*, got 'cap'",
        ),
        ({"a": {"compliant_classes": "cap"}}, "^a.compliant_classes: expected one of the model's classes helmet, none, "),
        (
            {"a": {}, "b": {"violation_class": "person"}},
            "^a.compliant_classes: it is unclear whether helmet, vest belongs",
        ),
    ],
)
def test_rules_that_contradict_model_are_rejected(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(EdgeError, match=words):
        rules_of(rules)


def test_end_of_schedule_stops_violation_and_start_raises_it_again() -> None:
    rule = {**TWO, "violation_class": "none", "schedule": "Mon-Fri 06:00-12:00", "cooldown_s": 0}
    always = {**TWO, "violation_class": "none", "cooldown_s": 0}
    watch = Watch(rules_of({"morning": rule, "always": always}, zone=BERLIN), FRIDAY_NOON - 0.45)
    watch.show(detections(("none", HEAD)), 10)  # off from the sixth frame on
    assert sorted(watch.seen) == [(1, "always", "started"), (1, "morning", "started"), (5, "morning", "stopped")]
    watch.wall = FRIDAY_NOON - 3600
    watch.show(detections(("none", HEAD)), 3)
    assert watch.seen[3:] == [(11, "morning", "started")]  # after two frames, as for a new head


def test_schedule_does_not_count_while_clock_is_not_set() -> None:
    watch = Watch(rules_of({"morning": {**TWO, "violation_class": "none", "schedule": "Sun 00:00-00:01"}}), wall=0.0)
    watch.show(detections(("none", HEAD)), 3)
    assert watch.seen == [(1, "morning", "started")]


def test_changed_rule_does_not_disturb_unchanged_one() -> None:
    """The unchanged rule has one of two votes before the change, and completes them after it."""
    old = rules_of({"a": {**TWO, "violation_class": "none"}, "b": {**TWO, "violation_class": "none"}})
    watch = Watch(old)
    watch.show(detections(("none", HEAD)))
    new = rules_of({"a": {**TWO, "violation_class": "none"}, "b": {**TWO, "violation_class": "none", "cooldown_s": 5}})
    new.continue_from(old)
    watch.rules = new
    watch.show(detections(("none", HEAD)), 2)
    assert watch.seen == [(1, "a", "started"), (2, "b", "started")] and watch.tracks == [1]
    assert old.close() == []


def test_alarm_threshold_below_scores_of_tracker_starts_tracks_also_when_changed_live() -> None:
    weak = detections(("none", HEAD))
    weak.scores[:] = 0.08
    strict, lax = ({**TWO, "violation_class": "none", "alarm_threshold": threshold} for threshold in (0.5, 0.07))
    watch = Watch(rules_of({"head": strict}))
    watch.show(weak, 2)
    assert watch.tracks == []
    changed = rules_of({"head": lax})
    changed.continue_from(watch.rules)
    watch.rules = changed
    watch.show(weak, 2)
    assert watch.seen == [(3, "head", "started")]


def test_alarm_threshold_has_a_floor() -> None:
    """Hundreds of detections just above the floor of the model's scores would hold up all cameras."""
    watch = Watch(rules_of({"head": {**TWO, "violation_class": "none", "alarm_threshold": 0.0}}))
    weak = detections(("none", HEAD))
    weak.scores[:] = 0.049
    watch.show(weak, 2)
    assert watch.tracks == [] and watch.rules.thresholds[CONTRACT.class_names.index("none")] == 0.05
    weak.scores[:] = 0.05
    watch.show(weak, 2)
    assert len(watch.tracks) == 1


def test_removed_rule_leaves_its_violations_to_be_closed() -> None:
    old = rules_of({"a": {**TWO, "violation_class": "none"}, "b": {**TWO, "violation_class": "none"}})
    watch = Watch(old)
    watch.show(detections(("none", HEAD)), 2)
    new = rules_of({"a": {**TWO, "violation_class": "none"}})
    new.continue_from(old)
    ended = old.close()
    assert [(type(e), e.rule, e.stopped) for e in ended] == [(ViolationEnded, "b", True)]
    assert len(new.open_violations()) == 1


def test_cooldown_belongs_to_rule() -> None:
    rules = {"short": {**TWO, "cooldown_s": 0}, "long": {**TWO, "cooldown_s": 60}}
    watch = Watch(rules_of({name: {**rule, "violation_class": "none"} for name, rule in rules.items()}))
    for name in ("none", "helmet", "none"):
        watch.show(detections((name, HEAD)), 2)
    assert [rule for _, rule, kind in watch.seen if kind == "started"] == ["short", "long", "short"]


def test_new_tracker_does_not_reuse_ids() -> None:
    rules = {"a": RuleConfig(**TWO, violation_class="none")}
    watch = Watch(CameraRules(rules, CONTRACT, TrackerConfig()))
    watch.show(detections(("none", HEAD)))
    new = CameraRules(rules, CONTRACT, TrackerConfig(keep_s=2.0))
    new.continue_from(watch.rules)
    watch.rules = new
    watch.show(detections(("none", HEAD)))
    assert watch.tracks == [2]


def test_head_is_observed_from_zero_when_schedule_starts_again() -> None:
    """By time: one second of observation, which the time before the pause does not shorten."""
    rule = {"violation_class": "none", "seconds": 1.0, "frames": 3, "of": 4, "cooldown_s": 0}
    watch = Watch(rules_of({"morning": {**rule, "schedule": "Fri 06:00-12:00"}}, zone=BERLIN), FRIDAY_NOON - 3600)
    watch.show(detections(("none", HEAD)), 12)
    watch.wall = FRIDAY_NOON
    watch.show(detections(("none", HEAD)), 2)
    watch.wall = FRIDAY_NOON - 3600
    watch.show(detections(("none", HEAD)), 12)
    assert watch.seen == [(10, "morning", "started"), (12, "morning", "stopped"), (24, "morning", "started")]


def test_track_counts_once_when_rule_changes() -> None:
    old = rules_of({"a": {**TWO, "violation_class": "none"}})
    watch = Watch(old)
    watch.show(detections(("none", HEAD)), 4)
    new = rules_of({"a": {**TWO, "violation_class": "none", "cooldown_s": 5}})
    new.continue_from(old)
    old.close()
    watch.rules = new
    watch.show(detections(("helmet", HEAD)), 3)
    new.close()
    assert old.take_counted() == []
    [counted] = new.take_counted()
    assert counted.is_violation and counted.rule == "a"  # four frames of seven


def test_vest_counts_as_compliant_and_objects_outside_do_not_count() -> None:
    watch = Watch(rules_of({"bare_head": BARE_HEAD, "no_vest": NO_VEST}))
    far = (400, 98, 430, 130)
    watch.show(detections(("person", PERSON), ("vest", VEST), ("helmet", HEAD), ("none", far)), 3)
    watch.rules.close()
    counted = {(c.rule, c.is_violation) for c in watch.rules.take_counted()}
    assert counted == {("bare_head", False), ("no_vest", False)}
