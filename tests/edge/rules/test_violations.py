import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import RuleConfig
from ppe_edge.rules.tracker import Track
from ppe_edge.rules.violations import ViolationEnded, ViolationMonitor, ViolationStarted
from ppe_edge.rules.votes import frames_to_decide
from pydantic import ValidationError

from ppe_yolo.core.contract import ModelContract

CONTRACT = ModelContract(("helmet", "none"), (64, 64), alarm_thresholds={"none": 0.5})
SIZE = (100, 200)  # height, width
HELMET, NONE = 0, 1
TWO = {"seconds": None, "frames": 2, "of": 2}


def head(label, score=0.9, number=1, box=(10, 10, 30, 30), seen=True, first=0.0, now=0.0):
    return Track(
        id=number,
        box_xyxy=np.array(box, np.float32),
        score=score,
        label=label,
        seen=seen,
        hits=1,
        first_time=first,
        last_time=now,
    )


def watch(monitor, labels, start=0.0, step=0.1, **kinds):
    """Feeds the labels of a head, one per frame (None: not detected); returns the changes as (frame index, change)."""
    changes = []
    for i, label in enumerate(labels):
        now = start + i * step
        track = head(NONE, seen=False, now=now, **kinds) if label is None else head(label, now=now, **kinds)
        changes += [(i, change) for change in monitor.update([track], SIZE, now)]
    return changes


def kinds_of(changes):
    return [(i, "ended" if isinstance(c, ViolationEnded) else "started") for i, c in changes]


def test_violation_starts_and_ends_with_k_of_n_votes():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=3, of=4), CONTRACT)
    changes = watch(monitor, [HELMET, NONE, NONE, HELMET, NONE, HELMET, HELMET, NONE, HELMET])
    # frame 4 is the third positive vote of the last four; frame 6 is the third negative one
    assert kinds_of(changes) == [(4, "started"), (6, "ended")]
    started, ended = changes[0][1], changes[1][1]
    assert isinstance(started, ViolationStarted) and started.violation == ended.violation
    assert started.started == pytest.approx(0.1) and ended.ended == pytest.approx(0.4)
    assert ended.duration == pytest.approx(0.3)
    assert (started.track, started.zone, started.label, started.score) == (1, None, NONE, 0.9)


def test_violation_with_single_uncertain_frame_does_not_change():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=3, of=4), CONTRACT)
    assert watch(monitor, [HELMET, HELMET, NONE, HELMET, HELMET, HELMET]) == []
    changes = watch(monitor, [NONE, NONE, NONE, HELMET, NONE, NONE, None, None, NONE], start=1.0)
    assert kinds_of(changes) == [(2, "started")]


def test_violation_completed_by_negative_vote_shows_last_positive_vote():
    """At 8 frames per second, the 13th frame completes the 1.5 s; in it, the bare head looks like a helmet."""
    monitor = ViolationMonitor(RuleConfig(), CONTRACT)
    assert watch(monitor, [NONE] * 11, step=0.125, score=0.6) == []
    assert watch(monitor, [NONE], start=11 * 0.125, score=0.9, box=(12, 10, 32, 30)) == []
    monitor.rescale(0.5, 2.0)
    [(_, started)] = watch(monitor, [HELMET], start=12 * 0.125, score=0.77, box=(7, 20, 17, 60))
    assert isinstance(started, ViolationStarted) and (started.label, started.score) == (NONE, 0.9)
    assert started.box_xyxy.tolist() == [6, 20, 16, 60]
    assert started.started == 0.0


def test_violation_by_time_needs_full_window_of_observation():
    monitor = ViolationMonitor(RuleConfig(seconds=1.0, frames=3, of=4), CONTRACT)
    changes = watch(monitor, [NONE] * 20, step=0.25)
    assert kinds_of(changes) == [(4, "started")] and changes[0][1].started == 0.0


@pytest.mark.parametrize(
    ("fps", "at"),  # the frame with which it starts
    [(30, 45), (12, 18), (8, 12), (4, 6), (2, 3), (1.25, 2), (1, 2), (0.5, 2), (0.2, 2)],
)
def test_violation_by_time_starts_and_ends_at_any_frame_rate(fps, at):
    monitor = ViolationMonitor(RuleConfig(), CONTRACT)
    off = watch(monitor, [HELMET] * 50 + [NONE] * 50, step=1 / fps)
    [(started_at, started)] = off
    assert isinstance(started, ViolationStarted) and started_at - 50 <= at
    fresh = watch(ViolationMonitor(RuleConfig(), CONTRACT), [NONE] * 50, step=1 / fps)
    assert kinds_of(fresh) == [(at, "started")] and frames_to_decide(RuleConfig(), fps) == at + 1
    back = watch(monitor, [HELMET] * 50, start=100 / fps, step=1 / fps)
    assert [kind for _, kind in kinds_of(back)] == ["ended"] and back[0][0] <= at


def test_violation_at_1_fps_survives_missed_detections_but_not_wrong_votes():
    monitor = ViolationMonitor(RuleConfig(), CONTRACT)
    assert kinds_of(watch(monitor, [NONE, None, NONE, None, NONE], step=1.0)) == [(4, "started")]
    assert watch(ViolationMonitor(RuleConfig(), CONTRACT), [NONE, NONE, HELMET] * 10, step=1.0) == []


def test_violation_at_frequent_frames_needs_three_votes_within_seconds():
    story = ([NONE] + [None] * 9) * 10  # a detection per second, at 10 frames per second
    assert watch(ViolationMonitor(RuleConfig(), CONTRACT), story, step=0.1) == []


def test_threshold_comes_from_contract_and_is_lower_during_violation():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2, hysteresis=0.5), CONTRACT)
    assert monitor.threshold == 0.5
    assert watch(monitor, [NONE] * 5, score=0.49) == []
    assert kinds_of(watch(monitor, [NONE, NONE], score=0.5, start=1)) == [(1, "started")]
    assert watch(monitor, [NONE] * 5, score=0.25, start=2) == []
    assert kinds_of(watch(monitor, [NONE] * 5, score=0.24, start=3)) == [(1, "ended")]


def test_threshold_of_rule_overrides_contract():
    assert ViolationMonitor(RuleConfig(alarm_threshold=0.8), CONTRACT).threshold == 0.8


def test_thresholds_cover_every_class():
    """From the model, or from the rule for the violation class; classes without one take that of the violation class."""
    assert ViolationMonitor(RuleConfig(), CONTRACT).thresholds == (0.5, 0.5)
    both = ModelContract(("helmet", "none"), (64, 64), alarm_thresholds={"helmet": 0.3, "none": 0.6})
    assert ViolationMonitor(RuleConfig(), both).thresholds == (0.3, 0.6)
    assert ViolationMonitor(RuleConfig(alarm_threshold=0.8), both).thresholds == (0.3, 0.8)


def test_alarmed_tracks_are_those_with_open_violations():
    monitor = ViolationMonitor(RuleConfig(**TWO), CONTRACT)
    assert monitor.alarmed_tracks() == frozenset()
    watch(monitor, [NONE, NONE], number=5)
    assert monitor.alarmed_tracks() == {5}
    watch(monitor, [HELMET, HELMET], start=1.0, number=5)
    assert monitor.alarmed_tracks() == frozenset()


def test_lost_track_ends_violation_at_last_positive_vote():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2), CONTRACT)
    watch(monitor, [NONE, NONE, NONE])
    (ended,) = monitor.update([], SIZE, 9.0)
    assert isinstance(ended, ViolationEnded) and ended.ended == pytest.approx(0.2) and ended.duration == pytest.approx(0.2)


def test_cooldown_counts_from_last_alert_and_lasting_violation_starts_after_it():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2, cooldown_s=10), CONTRACT)
    off_on = [NONE, NONE, HELMET, HELMET]
    assert kinds_of(watch(monitor, off_on, start=0)) == [(1, "started"), (3, "ended")]  # alert at 0.1
    assert watch(monitor, off_on, start=5) == []
    changes = watch(monitor, [NONE] * 30, start=9.05)  # nothing is lost: it starts after the cool-down
    assert kinds_of(changes) == [(11, "started")]  # 9.05 + 11 * 0.1 = 10.15, the first beyond 0.1 + 10
    assert changes[0][1].started == pytest.approx(9.05)


def test_cooldown_covers_new_track_where_one_was_lost():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2, cooldown_s=10), CONTRACT)
    watch(monitor, [NONE, NONE])
    monitor.update([], SIZE, 1.0)
    assert watch(monitor, [NONE] * 5, start=2.5, first=2.5, number=2, box=(12, 10, 32, 30)) == []
    assert kinds_of(watch(monitor, [NONE] * 2, start=2.5, first=2.5, number=3, box=(150, 10, 170, 30))) == [(1, "started")]


@pytest.mark.parametrize(
    ("left", "after", "same"),
    [
        # heads of 20 pixels, the old one last seen at left = 10; boxes with a margin of p times their size have an
        # IoU above 0.1 if they are less than (1 + 2 p) * 20 * 9 / 11 pixels apart
        (62, 0.4, True),  # 52 < (1 + 2 * (0.5 + 3 * 0.4)) * 16.36 = 72
        (90, 0.4, False),  # 80
        (90, 1.4, True),  # 80 < (1 + 2 * (0.5 + 3 * 1.4)) * 16.36 = 170
        (62, 1.6, False),  # too long ago for walking: 52 > (1 + 2 * 0.5) * 16.36 = 33
        (40, 1.6, True),  # 30
    ],
)
def test_cooldown_covers_jump_within_walking_distance(left, after, same):
    monitor = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    watch(monitor, [NONE, NONE])  # last seen at 0.1
    start = 0.1 + after
    changes = watch(monitor, [NONE] * 5, start=start, first=start, number=2, box=(left, 10, left + 20, 30))
    assert [i for i, change in changes if not isinstance(change, ViolationEnded)] == ([] if same else [1])


def test_cooldown_compares_place_where_new_track_started():
    monitor = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    watch(monitor, [NONE, NONE])
    monitor.update([head(HELMET, number=2, box=(40, 10, 60, 30), first=0.5)], SIZE, 0.5)
    assert watch(monitor, [NONE] * 3, start=3.0, first=0.5, number=2, box=(170, 10, 190, 30)) == []


def test_cooldown_ignores_head_seen_next_to_reported_one():
    monitor = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    watch(monitor, [NONE, NONE])
    for i, label in enumerate((HELMET, HELMET, NONE)):
        now = 0.2 + i / 10
        old = [head(NONE, now=now)] if i == 0 else []  # disappears when the other one appears
        changes = monitor.update([*old, head(label, number=2, box=(12, 10, 32, 30), first=0.2, now=now)], SIZE, now)
    assert kinds_of([(0, c) for c in changes]) == []
    [started] = monitor.update([head(NONE, number=2, box=(12, 10, 32, 30), first=0.2, now=0.5)], SIZE, 0.5)
    assert started.track == 2


def test_take_over_keeps_cooldown():
    old = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    assert kinds_of(watch(old, [NONE, NONE, HELMET, HELMET])) == [(1, "started"), (3, "ended")]  # alert at 0.1
    new = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10, alarm_threshold=0.8), CONTRACT)
    new.take_over(old, same_tracks=True)
    assert watch(new, [NONE] * 5, start=5) == [] and old.close() == []
    assert kinds_of(watch(new, [NONE] * 3, start=10.05)) == [(1, "started")]  # 10.15 is the first beyond 0.1 + 10


def test_take_over_keeps_violation_open_until_new_votes_end_it():
    old = ViolationMonitor(RuleConfig(**TWO), CONTRACT)
    [(_, started)] = watch(old, [NONE, NONE, NONE, HELMET])  # one of the two negative votes that would end it
    new = ViolationMonitor(RuleConfig(**TWO, alarm_threshold=0.9, hysteresis=0.5), CONTRACT)
    new.take_over(old, same_tracks=True)
    assert old.close() == [] and new.open_violations() == {started.violation: pytest.approx(0.2)}
    assert watch(new, [HELMET, NONE, NONE], start=1.0, score=0.45) == []  # the old negative vote is discarded; 0.45 is enough
    [(_, ended)] = watch(new, [HELMET, HELMET], start=2.0)
    assert (ended.violation, ended.started, ended.ended) == (started.violation, 0.0, pytest.approx(1.2))


def test_take_over_discards_votes_of_old_rule():
    old = ViolationMonitor(RuleConfig(seconds=1.0, frames=3, of=4, alarm_threshold=0.95), CONTRACT)
    assert watch(old, [NONE] * 20, step=0.25) == []
    new = ViolationMonitor(RuleConfig(seconds=1.0, frames=3, of=4), CONTRACT)
    new.take_over(old, same_tracks=True)
    assert kinds_of(watch(new, [NONE] * 8, start=5.0, step=0.25)) == [(4, "started")]  # at 6.0, one second after the take-over


def test_take_over_ignores_rule_with_other_class():
    contract = ModelContract(("helmet", "none", "cap"), (64, 64), alarm_thresholds={"none": 0.5, "cap": 0.5})
    old = ViolationMonitor(RuleConfig(**TWO), contract)
    [(_, started)] = watch(old, [NONE, NONE])
    new = ViolationMonitor(RuleConfig(**TWO, violation_class="cap"), contract)
    new.take_over(old, same_tracks=True)
    assert new.open_violations() == {} and [c.violation for c in old.close()] == [started.violation]
    assert kinds_of(watch(new, [2, 2], start=1.0)) == [(1, "started")]


def test_take_over_maps_label_by_class_name():
    old = ViolationMonitor(RuleConfig(**TWO), CONTRACT)
    watch(old, [NONE, NONE])
    new = ViolationMonitor(RuleConfig(**TWO), ModelContract(("none", "helmet"), (64, 64), alarm_thresholds={"none": 0.5}))
    new.take_over(old, same_tracks=True)
    [ended] = new.close()
    assert ended.label == 0


def test_take_over_without_same_tracks_recognises_heads_by_place():
    old = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    watch(old, [NONE, NONE], number=7)
    watch(old, [NONE], start=0.2, number=7, box=(60, 10, 80, 30))  # it has moved
    new = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    new.take_over(old, same_tracks=False)
    assert len(old.close()) == 1 and new.open_violations() == {}
    assert watch(new, [NONE] * 3, start=1.0, first=1.0, number=1, box=(62, 10, 82, 30)) == []
    assert kinds_of(watch(new, [NONE] * 3, start=2.0, first=2.0, number=7, box=(150, 10, 170, 30))) == [(1, "started")]


def test_two_heads_start_two_violations():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=1, of=1), CONTRACT)
    changes = monitor.update([head(NONE), head(NONE, number=2, box=(15, 10, 35, 30))], SIZE, 0.0)
    assert [c.track for c in changes] == [1, 2] and len({c.violation for c in changes}) == 2


def test_zone_contains_centre_of_head():
    gate = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))  # the left half: x below 100
    rule = RuleConfig(seconds=None, frames=1, of=1, zones={"gate": gate, "all": ((0, 0), (0.9, 0), (0.9, 1), (0, 1))})
    changes = ViolationMonitor(rule, CONTRACT).update(
        [
            head(NONE, number=1, box=(80, 10, 118, 30)),
            head(NONE, number=2, box=(82, 60, 120, 80)),
            head(NONE, number=3, box=(185, 10, 199, 30)),
        ],
        SIZE,
        0.0,
    )
    assert [(c.track, c.zone) for c in changes] == [(1, "gate"), (2, "all")]


def test_close_ends_open_violations():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2), CONTRACT)
    watch(monitor, [NONE, NONE])
    (ended,) = monitor.close()
    assert ended.ended == pytest.approx(0.1) and monitor.close() == []


@settings(max_examples=150)
@given(st.lists(st.sampled_from([HELMET, NONE, None, "gone"]), max_size=60), st.integers(1, 4), st.floats(0, 5), st.booleans())
def test_starts_and_ends_alternate_and_alerts_respect_cooldown(story, frames, cooldown, by_time):
    rule = RuleConfig(frames=frames, of=frames, cooldown_s=cooldown, seconds=0.3 if by_time else None)
    monitor, changes = ViolationMonitor(rule, CONTRACT), []
    for i, label in enumerate(story):
        now = i / 10
        tracks = [] if label == "gone" else [head(NONE if label is None else label, seen=label is not None, now=now)]
        changes += [(now, c) for c in monitor.update(tracks, SIZE, now)]
    changes += [(len(story) / 10, c) for c in monitor.close()]
    kinds = [isinstance(c, ViolationEnded) for _, c in changes]
    assert kinds == [i % 2 == 1 for i in range(len(kinds))] and len(kinds) % 2 == 0
    alerts = [now for (now, _), is_end in zip(changes, kinds, strict=True) if not is_end]
    assert all(b - a >= cooldown - 1e-9 for a, b in itertools.pairwise(alerts))
    for _, change in changes:
        if isinstance(change, ViolationEnded):
            assert change.ended >= change.started and change.duration >= 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": 2, "of": 4}, "frames must be more than half"),
        ({"frames": 5, "of": 4}, "frames must be more than half"),
        ({"zones": {"gate": [[0, 0], [1, 1]]}}, "zone 'gate': expected three corners or more, got 2"),
        ({"zones": {"gate": [[0, 0], [1, 1], [200, 1]]}}, "expected corners as fractions of width and height"),
    ],
)
def test_invalid_rule_is_rejected(change, says):
    with pytest.raises(ValidationError, match=says):
        RuleConfig(**change)


def test_rule_without_threshold_is_rejected():
    with pytest.raises(EdgeError, match="the model names none for 'helmet'"):
        ViolationMonitor(RuleConfig(violation_class="helmet"), CONTRACT)
