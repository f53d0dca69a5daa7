"""Tracks: the same head keeps its number, whatever it wears."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ppe_edge.rules.geometry import enlarged, is_inside
from ppe_edge.rules.tracker import Tracker, TrackerConfig
from pydantic import ValidationError

from ppe_yolo.core.boxes import pairwise_iou, pairwise_iou_and_cover
from ppe_yolo.core.detections import Detections

CONFIG = TrackerConfig(high_score=0.3, low_score=0.1, keep_s=1.0)


def found(*heads):
    """(x1, y1, x2, y2, score, label) each."""
    table = np.array(heads, dtype=np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def test_overlap_by_hand():
    a, b = np.array([[0, 0, 10, 10]], np.float32), np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10]], np.float32)
    np.testing.assert_allclose(pairwise_iou(a, b), [[50 / 150, 0, 1]], rtol=1e-6)
    iou, cover = pairwise_iou_and_cover(a, np.array([[5, 0, 15, 10], [2, 2, 4, 4]], np.float32))
    np.testing.assert_allclose(iou, [[50 / 150, 0.04]], rtol=1e-6)
    np.testing.assert_allclose(cover, [[0.5, 1]])
    np.testing.assert_allclose(enlarged(a, 0.3), [[-3, -3, 13, 13]])


def test_points_in_a_polygon_by_hand():
    corner = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))  # the upper left half
    assert is_inside(0.2, 0.2, corner) and not is_inside(0.8, 0.8, corner) and not is_inside(-0.1, 0.2, corner)


def test_a_head_keeps_its_number_when_the_helmet_goes_off():
    tracker = Tracker(CONFIG)
    (first,) = tracker.update(found((10, 10, 30, 30, 0.9, 0)), 0.0)
    (second,) = tracker.update(found((12, 10, 32, 30, 0.8, 1)), 0.1)
    assert (first.id, first.label, first.hits) == (1, 0, 1)
    assert (second.id, second.label, second.hits, second.first_time, second.last_time) == (1, 1, 2, 0.0, 0.1)


def test_both_classes_at_one_place_are_one_head_of_the_stronger():
    tracks = Tracker(CONFIG).update(
        found((10, 10, 30, 30, 0.5, 0), (11, 10, 31, 30, 0.7, 1), (60, 10, 80, 30, 0.4, 0), (62, 12, 70, 28, 0.3, 0)), 0.0
    )
    # the last one is a part of a head
    assert [(t.label, round(t.score, 1)) for t in tracks] == [(1, 0.7), (0, 0.4)]


def test_a_weak_detection_continues_a_track_and_begins_none():
    tracker = Tracker(CONFIG)
    assert tracker.update(found((10, 10, 30, 30, 0.2, 0)), 0.0) == []
    tracker.update(found((10, 10, 30, 30, 0.3, 0)), 0.1)
    (track,) = tracker.update(found((10, 10, 30, 30, 0.15, 0), (50, 10, 70, 30, 0.15, 0)), 0.2)
    assert track.id == 1 and track.seen and track.hits == 2


def test_an_unseen_head_moves_on_is_kept_for_a_while_and_then_gone():
    tracker = Tracker(CONFIG)
    tracker.update(found((0, 0, 20, 20, 0.9, 0)), 0.0)
    tracker.update(found((10, 0, 30, 20, 0.9, 0)), 0.5)  # 20 pixels a second
    (track,) = tracker.update(found(), 1.0)
    assert not track.seen
    np.testing.assert_allclose(track.box_xyxy, [20, 0, 40, 20])
    (track,) = tracker.update(found(), 1.5)  # exactly keep_s after it was seen last
    np.testing.assert_allclose(track.box_xyxy, [30, 0, 50, 20])
    (again,) = Tracker.update(tracker, found((30, 0, 50, 20, 0.9, 0)), 1.5)
    assert again.id == 1 and again.seen
    assert tracker.update(found(), 2.6) == []
    (new,) = tracker.update(found((30, 0, 50, 20, 0.9, 0)), 2.7)
    assert new.id == 2  # no number is used twice


def test_two_heads_that_pass_each_other_keep_their_numbers():
    tracker = Tracker(CONFIG)
    for i in range(21):
        x = 5.0 * i
        tracks = tracker.update(found((x, 0, x + 20, 20, 0.9, 0), (100 - x, 14, 120 - x, 34, 0.8, 1)), i / 10)
    assert {t.id: float(t.box_xyxy[0]) for t in tracks} == {1: 100.0, 2: 0.0}


@settings(max_examples=60)
@given(st.floats(-25, 25), st.floats(-25, 25), st.integers(12, 60), st.lists(st.sampled_from([0, 1]), min_size=2, max_size=30))
def test_a_head_that_moves_smoothly_is_one_track(step_x, step_y, side, labels):
    side = max(side, 1.25 * max(abs(step_x), abs(step_y)))  # it must not jump over more than its own size
    tracker = Tracker(CONFIG)
    for i, label in enumerate(labels):
        x, y = 500 + step_x * i, 500 + step_y * i
        tracks = tracker.update(found((x, y, x + side, y + side, 0.6, label)), i / 10)
        assert [(t.id, t.label) for t in tracks] == [(1, label)]


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 90), st.floats(0, 90), st.floats(0, 1), st.integers(0, 1)), max_size=6), max_size=15
    )
)
def test_whatever_comes_each_number_is_one_track_and_each_head_at_most_once(pictures):
    tracker, seen = Tracker(CONFIG), set()
    for i, picture in enumerate(pictures):
        tracks = tracker.update(found(*((x, y, x + 10, y + 10, s, n) for x, y, s, n in picture)), i * 0.3)
        ids = [t.id for t in tracks]
        assert len(set(ids)) == len(ids)
        new = set(ids) - seen
        assert not new or min(new) > max(seen, default=0)  # a number that is gone does not come back
        seen |= set(ids)
        assert sum(t.seen for t in tracks) <= len(picture)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.floats(-0.4, 0.6),  # seconds since the last picture: the clock may be set back a little
            st.lists(
                st.one_of(st.none(), st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 1), st.integers(0, 1))),
                min_size=4,
                max_size=4,
            ),
        ),
        max_size=15,
    )
)
def test_heads_far_apart_are_followed_as_if_each_were_alone(pictures):
    together, alone = Tracker(CONFIG), [Tracker(CONFIG) for _ in range(4)]
    now = 100.0
    for elapsed, heads in pictures:
        now += elapsed
        found_here = [
            () if head is None else ((1000 * i + head[0], head[1], 1000 * i + head[0] + 20, head[1] + 20, *head[2:]),)
            for i, head in enumerate(heads)
        ]
        joint = together.update(found(*(box for boxes in found_here for box in boxes)), now)
        single = [t for tracker, boxes in zip(alone, found_here, strict=True) for t in tracker.update(found(*boxes), now)]
        assert sorted(map(_without_number, joint)) == sorted(map(_without_number, single))


def _without_number(track):
    return (*track.box_xyxy.tolist(), track.score, track.label, track.seen, track.hits, track.first_time, track.last_time)


def test_a_clock_that_goes_back_a_little_starts_nothing_anew():
    tracker = Tracker(CONFIG)
    tracker.update(found((0, 0, 20, 20, 0.9, 0)), 100.0)
    (track,) = tracker.update(found((1, 0, 21, 20, 0.9, 0)), 99.5)
    assert track.id == 1 and track.last_time == 100.0


def test_after_a_clock_was_set_back_heads_are_new_and_end_as_ever():
    tracker = Tracker(CONFIG)
    tracker.update(found((0, 0, 20, 20, 0.9, 0)), 4000.0)
    (track,) = tracker.update(found((0, 0, 20, 20, 0.9, 0)), 400.0)
    assert (track.id, track.first_time, track.last_time) == (2, 400.0, 400.0)
    assert len(tracker.update(found(), 401.0)) == 1 and tracker.update(found(), 401.1) == []


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ValidationError, match=r"low_score must not be above high_score, got 0\.5 and 0\.3"):
        TrackerConfig(low_score=0.5)
