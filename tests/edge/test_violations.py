"""The rule: what begins a violation, what ends it, and what is told."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ppe_edge.errors import EdgeError
from ppe_edge.rules.tracker import Track
from ppe_edge.rules.violations import RuleConfig, ViolationEnded, ViolationMonitor, ViolationStarted
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
    """Shows a head's labels one after another (None: it was not found), and gathers what happened: (picture, change)."""
    happened = []
    for i, label in enumerate(labels):
        now = start + i * step
        track = head(NONE, seen=False, now=now, **kinds) if label is None else head(label, now=now, **kinds)
        happened += [(i, change) for change in monitor.update([track], SIZE, now)]
    return happened


def kinds_of(happened):
    return [(i, "ended" if isinstance(c, ViolationEnded) else "started") for i, c in happened]


def test_it_begins_with_k_of_n_and_ends_with_k_of_n():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=3, of=4), CONTRACT)
    happened = watch(monitor, [HELMET, NONE, NONE, HELMET, NONE, HELMET, HELMET, NONE, HELMET])
    # the third yes of the last four is picture 4; the third no of the last four is picture 6
    assert kinds_of(happened) == [(4, "started"), (6, "ended")]
    started, ended = happened[0][1], happened[1][1]
    assert isinstance(started, ViolationStarted) and started.violation == ended.violation
    assert started.started == pytest.approx(0.1) and ended.ended == pytest.approx(0.4)
    assert ended.duration == pytest.approx(0.3)
    assert (started.track, started.zone, started.label, started.score) == (1, None, NONE, 0.9)


def test_one_doubtful_picture_neither_begins_nor_ends():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=3, of=4), CONTRACT)
    assert watch(monitor, [HELMET, HELMET, NONE, HELMET, HELMET, HELMET]) == []
    happened = watch(monitor, [NONE, NONE, NONE, HELMET, NONE, NONE, None, None, NONE], start=1.0)
    assert kinds_of(happened) == [(2, "started")]


def test_by_time_a_head_must_have_been_watched_for_so_long():
    monitor = ViolationMonitor(RuleConfig(seconds=1.0, frames=3, of=4), CONTRACT)
    happened = watch(monitor, [NONE] * 20, step=0.25)
    assert kinds_of(happened) == [(4, "started")] and happened[0][1].started == 0.0
    slow = ViolationMonitor(RuleConfig(seconds=1.0, frames=3, of=4), CONTRACT)
    assert kinds_of(watch(slow, [NONE] * 8, step=0.8)) == []  # never three pictures within a second


def test_the_threshold_is_the_contracts_and_lower_while_it_lasts():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2, hysteresis=0.5), CONTRACT)
    assert monitor.threshold == 0.5
    assert watch(monitor, [NONE] * 5, score=0.49) == []
    assert kinds_of(watch(monitor, [NONE, NONE], score=0.5, start=1)) == [(1, "started")]
    assert watch(monitor, [NONE] * 5, score=0.25, start=2) == []
    assert kinds_of(watch(monitor, [NONE] * 5, score=0.24, start=3)) == [(1, "ended")]


def test_a_threshold_of_ones_own_wins():
    assert ViolationMonitor(RuleConfig(alarm_threshold=0.8), CONTRACT).threshold == 0.8


def test_every_class_has_a_threshold():
    """The model's own; the rule's for the violation; and the violation's for a class of which the model says nothing."""
    assert ViolationMonitor(RuleConfig(), CONTRACT).thresholds == (0.5, 0.5)
    both = ModelContract(("helmet", "none"), (64, 64), alarm_thresholds={"helmet": 0.3, "none": 0.6})
    assert ViolationMonitor(RuleConfig(), both).thresholds == (0.3, 0.6)
    assert ViolationMonitor(RuleConfig(alarm_threshold=0.8), both).thresholds == (0.3, 0.8)


def test_who_is_alarmed():
    monitor = ViolationMonitor(RuleConfig(**TWO), CONTRACT)
    assert monitor.alarmed() == frozenset()
    watch(monitor, [NONE, NONE], number=5)
    assert monitor.alarmed() == {5}
    watch(monitor, [HELMET, HELMET], start=1.0, number=5)
    assert monitor.alarmed() == frozenset()


def test_a_head_that_is_gone_ends_its_violation_when_it_was_seen_so_last():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2), CONTRACT)
    watch(monitor, [NONE, NONE, NONE])
    (ended,) = monitor.update([], SIZE, 9.0)
    assert isinstance(ended, ViolationEnded) and ended.ended == pytest.approx(0.2) and ended.duration == pytest.approx(0.2)


def test_the_cool_down_counts_from_the_last_alert_and_then_the_violation_is_told_of():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2, cooldown_s=10), CONTRACT)
    off_on = [NONE, NONE, HELMET, HELMET]
    assert kinds_of(watch(monitor, off_on, start=0)) == [(1, "started"), (3, "ended")]  # told at 0.1
    assert watch(monitor, off_on, start=5) == []
    happened = watch(monitor, [NONE] * 30, start=9.05)  # nothing is lost: it is told of when the time is over
    assert kinds_of(happened) == [(11, "started")]  # 9.05 + 11 * 0.1 = 10.15, the first beyond 0.1 + 10
    assert happened[0][1].started == pytest.approx(9.05)


def test_a_new_track_at_the_place_of_the_old_one_is_the_same_head_for_the_cool_down():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2, cooldown_s=10), CONTRACT)
    watch(monitor, [NONE, NONE])
    monitor.update([], SIZE, 1.0)
    assert watch(monitor, [NONE] * 5, start=2.5, first=2.5, number=2, box=(12, 10, 32, 30)) == []
    assert kinds_of(watch(monitor, [NONE] * 2, start=2.5, first=2.5, number=3, box=(150, 10, 170, 30))) == [(1, "started")]


@pytest.mark.parametrize(
    ("left", "after", "same"),
    [
        # heads of 20 pixels, the old one last seen at left = 10; boxes enlarged by p of their size on each side overlap by more
        # than a tenth when they lie less than (1 + 2 p) * 20 * 9 / 11 apart
        (62, 0.4, True),  # 52 < (1 + 2 * (0.5 + 3 * 0.4)) * 16.36 = 72
        (90, 0.4, False),  # 80
        (90, 1.4, True),  # 80 < (1 + 2 * (0.5 + 3 * 1.4)) * 16.36 = 170
        (62, 1.6, False),  # too long ago for a jump: 52 > (1 + 2 * 0.5) * 16.36 = 33
        (40, 1.6, True),  # 30
    ],
)
def test_a_track_that_jumps_is_the_same_head_as_far_as_one_walks(left, after, same):
    monitor = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    watch(monitor, [NONE, NONE])  # seen last at 0.1
    start = 0.1 + after
    happened = watch(monitor, [NONE] * 5, start=start, first=start, number=2, box=(left, 10, left + 20, 30))
    assert [i for i, change in happened if not isinstance(change, ViolationEnded)] == ([] if same else [1])


def test_where_a_new_track_began_counts_and_not_where_it_has_walked_to():
    monitor = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    watch(monitor, [NONE, NONE])
    monitor.update([head(HELMET, number=2, box=(40, 10, 60, 30), first=0.5)], SIZE, 0.5)
    assert watch(monitor, [NONE] * 3, start=3.0, first=0.5, number=2, box=(170, 10, 190, 30)) == []


def test_whoever_was_seen_beside_the_head_that_was_told_of_is_somebody_else():
    monitor = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    watch(monitor, [NONE, NONE])
    for i, label in enumerate((HELMET, HELMET, NONE)):
        now = 0.2 + i / 10
        old = [head(NONE, now=now)] if i == 0 else []  # goes as the other one comes
        happened = monitor.update([*old, head(label, number=2, box=(12, 10, 32, 30), first=0.2, now=now)], SIZE, now)
    assert kinds_of([(0, c) for c in happened]) == []
    [begun] = monitor.update([head(NONE, number=2, box=(12, 10, 32, 30), first=0.2, now=0.5)], SIZE, 0.5)
    assert begun.track == 2


def test_another_rule_does_not_tell_of_the_same_head_again_within_the_cool_down():
    old = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    assert kinds_of(watch(old, [NONE, NONE, HELMET, HELMET])) == [(1, "started"), (3, "ended")]  # told at 0.1
    new = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10, alarm_threshold=0.8), CONTRACT)
    new.take_over(old, same_tracks=True)
    assert watch(new, [NONE] * 5, start=5) == [] and old.close(6.0) == []
    assert kinds_of(watch(new, [NONE] * 3, start=10.05)) == [(1, "started")]  # 10.15 is the first beyond 0.1 + 10


def test_a_violation_goes_on_under_another_rule_until_pictures_by_that_rule_end_it():
    old = ViolationMonitor(RuleConfig(**TWO), CONTRACT)
    [(_, started)] = watch(old, [NONE, NONE, NONE, HELMET])  # one no of the two that would end it
    new = ViolationMonitor(RuleConfig(**TWO, alarm_threshold=0.9, hysteresis=0.5), CONTRACT)
    new.take_over(old, same_tracks=True)
    assert old.close(1.0) == [] and new.lasting() == {started.violation: pytest.approx(0.2)}
    assert watch(new, [HELMET, NONE, NONE], start=1.0, score=0.45) == []  # the old no does not count; 0.45 is enough
    [(_, ended)] = watch(new, [HELMET, HELMET], start=2.0)
    assert (ended.violation, ended.started, ended.ended) == (started.violation, 0.0, pytest.approx(1.2))


def test_what_the_old_rule_saw_does_not_hurry_the_new_one():
    old = ViolationMonitor(RuleConfig(seconds=1.0, frames=3, of=4, alarm_threshold=0.95), CONTRACT)
    assert watch(old, [NONE] * 20, step=0.25) == []
    new = ViolationMonitor(RuleConfig(seconds=1.0, frames=3, of=4), CONTRACT)
    new.take_over(old, same_tracks=True)
    assert kinds_of(watch(new, [NONE] * 8, start=5.0, step=0.25)) == [(4, "started")]  # 6.0, a second after it came


def test_a_rule_about_another_class_has_nothing_to_take_over():
    contract = ModelContract(("helmet", "none", "cap"), (64, 64), alarm_thresholds={"none": 0.5, "cap": 0.5})
    old = ViolationMonitor(RuleConfig(**TWO), contract)
    [(_, started)] = watch(old, [NONE, NONE])
    new = ViolationMonitor(RuleConfig(**TWO, violation_class="cap"), contract)
    new.take_over(old, same_tracks=True)
    assert new.lasting() == {} and [c.violation for c in old.close(1.0)] == [started.violation]
    assert kinds_of(watch(new, [2, 2], start=1.0)) == [(1, "started")]


def test_under_a_model_that_counts_its_classes_otherwise_the_class_keeps_its_name():
    old = ViolationMonitor(RuleConfig(**TWO), CONTRACT)
    watch(old, [NONE, NONE])
    new = ViolationMonitor(RuleConfig(**TWO), ModelContract(("none", "helmet"), (64, 64), alarm_thresholds={"none": 0.5}))
    new.take_over(old, same_tracks=True)
    [ended] = new.close(1.0)
    assert ended.label == 0


def test_heads_that_are_counted_anew_are_known_by_their_places():
    old = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    watch(old, [NONE, NONE], number=7)
    watch(old, [NONE], start=0.2, number=7, box=(60, 10, 80, 30))  # it has walked since
    new = ViolationMonitor(RuleConfig(**TWO, cooldown_s=10), CONTRACT)
    new.take_over(old, same_tracks=False)
    assert len(old.close(1.0)) == 1 and new.lasting() == {}
    assert watch(new, [NONE] * 3, start=1.0, first=1.0, number=1, box=(62, 10, 82, 30)) == []
    assert kinds_of(watch(new, [NONE] * 3, start=2.0, first=2.0, number=7, box=(150, 10, 170, 30))) == [(1, "started")]


def test_two_heads_at_once_are_two_violations():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=1, of=1), CONTRACT)
    changes = monitor.update([head(NONE), head(NONE, number=2, box=(15, 10, 35, 30))], SIZE, 0.0)
    assert [c.track for c in changes] == [1, 2] and len({c.violation for c in changes}) == 2


def test_zones_hold_the_middle_of_the_head():
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


def test_close_ends_what_lasts():
    monitor = ViolationMonitor(RuleConfig(seconds=None, frames=2, of=2), CONTRACT)
    watch(monitor, [NONE, NONE])
    (ended,) = monitor.close(5.0)
    assert ended.ended == pytest.approx(0.1) and monitor.close(6.0) == []


@settings(max_examples=150)
@given(st.lists(st.sampled_from([HELMET, NONE, None, "gone"]), max_size=60), st.integers(1, 4), st.floats(0, 5), st.booleans())
def test_whatever_is_seen_starts_and_ends_alternate_and_alerts_keep_their_distance(story, frames, cooldown, by_time):
    rule = RuleConfig(frames=frames, of=frames, cooldown_s=cooldown, seconds=0.3 if by_time else None)
    monitor, happened = ViolationMonitor(rule, CONTRACT), []
    for i, label in enumerate(story):
        now = i / 10
        tracks = [] if label == "gone" else [head(NONE if label is None else label, seen=label is not None, now=now)]
        happened += [(now, c) for c in monitor.update(tracks, SIZE, now)]
    happened += [(len(story) / 10, c) for c in monitor.close(len(story) / 10)]
    kinds = [isinstance(c, ViolationEnded) for _, c in happened]
    assert kinds == [i % 2 == 1 for i in range(len(kinds))] and len(kinds) % 2 == 0
    alerts = [now for (now, _), is_end in zip(happened, kinds, strict=True) if not is_end]
    assert all(b - a >= cooldown - 1e-9 for a, b in itertools.pairwise(alerts))
    for _, change in happened:
        if isinstance(change, ViolationEnded):
            assert change.ended >= change.started and change.duration >= 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": 2, "of": 4}, "frames must be more than half"),
        ({"frames": 5, "of": 4}, "frames must be more than half"),
        ({"zones": {"gate": [[0, 0], [1, 1]]}}, "zone 'gate': expected three corners or more, got 2"),
        ({"zones": {"gate": [[0, 0], [1, 1], [200, 1]]}}, "parts of width and height"),
    ],
)
def test_rules_that_cannot_be_are_refused(change, says):
    with pytest.raises(ValidationError, match=says):
        RuleConfig(**change)


def test_a_rule_that_the_model_cannot_serve_is_refused():
    with pytest.raises(EdgeError, match="expected one of the model's classes helmet, none, got 'person'"):
        ViolationMonitor(RuleConfig(violation_class="person"), CONTRACT)
    with pytest.raises(EdgeError, match="the model names none for 'helmet'"):
        ViolationMonitor(RuleConfig(violation_class="helmet"), CONTRACT)
