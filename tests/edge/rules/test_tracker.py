import itertools

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


def detections(*heads):
    """Heads as (x1, y1, x2, y2, score, label)."""
    table = np.array(heads, dtype=np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def test_overlap_matches_values_by_hand():
    a, b = np.array([[0, 0, 10, 10]], np.float32), np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10]], np.float32)
    np.testing.assert_allclose(pairwise_iou(a, b), [[50 / 150, 0, 1]], rtol=1e-6)
    iou, cover = pairwise_iou_and_cover(a, np.array([[5, 0, 15, 10], [2, 2, 4, 4]], np.float32))
    np.testing.assert_allclose(iou, [[50 / 150, 0.04]], rtol=1e-6)
    np.testing.assert_allclose(cover, [[0.5, 1]])
    np.testing.assert_allclose(enlarged(a, 0.3), [[-3, -3, 13, 13]])


def test_is_inside_matches_values_by_hand():
    corner = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))  # the upper left half
    assert is_inside(0.2, 0.2, corner) and not is_inside(0.8, 0.8, corner) and not is_inside(-0.1, 0.2, corner)


def test_track_keeps_id_when_label_changes():
    tracker = Tracker(CONFIG)
    (first,) = tracker.update(detections((10, 10, 30, 30, 0.9, 0)), 0.0)
    (second,) = tracker.update(detections((12, 10, 32, 30, 0.8, 1)), 0.1)
    assert (first.id, first.label, first.hits) == (1, 0, 1)
    assert (second.id, second.label, second.hits, second.first_time, second.last_time) == (1, 1, 2, 0.0, 0.1)


def test_detections_of_both_classes_at_same_place_are_one_track():
    tracks = Tracker(CONFIG).update(
        detections((10, 10, 30, 30, 0.5, 0), (11, 10, 31, 30, 0.7, 1), (60, 10, 80, 30, 0.4, 0), (62, 12, 70, 28, 0.3, 0)), 0.0
    )
    # the last one is part of a head
    assert [(t.label, round(t.score, 1)) for t in tracks] == [(1, 0.7), (0, 0.4)]


def test_weak_detection_continues_track_but_starts_none():
    tracker = Tracker(CONFIG)
    assert tracker.update(detections((10, 10, 30, 30, 0.2, 0)), 0.0) == []
    tracker.update(detections((10, 10, 30, 30, 0.3, 0)), 0.1)
    (track,) = tracker.update(detections((10, 10, 30, 30, 0.15, 0), (50, 10, 70, 30, 0.15, 0)), 0.2)
    assert track.id == 1 and track.seen and track.hits == 2


def test_unseen_track_moves_on_and_ends_after_keep_s():
    tracker = Tracker(CONFIG)
    tracker.update(detections((0, 0, 20, 20, 0.9, 0)), 0.0)
    tracker.update(detections((10, 0, 30, 20, 0.9, 0)), 0.5)  # 20 pixels per second
    (track,) = tracker.update(detections(), 1.0)
    assert not track.seen
    np.testing.assert_allclose(track.box_xyxy, [20, 0, 40, 20])
    (track,) = tracker.update(detections(), 1.5)  # exactly keep_s after it was last seen
    np.testing.assert_allclose(track.box_xyxy, [30, 0, 50, 20])
    (again,) = Tracker.update(tracker, detections((30, 0, 50, 20, 0.9, 0)), 1.5)
    assert again.id == 1 and again.seen
    assert tracker.update(detections(), 2.6) == []
    (new,) = tracker.update(detections((30, 0, 50, 20, 0.9, 0)), 2.7)
    assert new.id == 2  # ids are never reused


def test_tracks_that_pass_each_other_keep_ids():
    tracker = Tracker(CONFIG)
    for i in range(21):
        x = 5.0 * i
        tracks = tracker.update(detections((x, 0, x + 20, 20, 0.9, 0), (100 - x, 14, 120 - x, 34, 0.8, 1)), i / 10)
    assert {t.id: float(t.box_xyxy[0]) for t in tracks} == {1: 100.0, 2: 0.0}


@settings(max_examples=60)
@given(st.floats(-25, 25), st.floats(-25, 25), st.integers(12, 60), st.lists(st.sampled_from([0, 1]), min_size=2, max_size=30))
def test_smoothly_moving_head_is_one_track(step_x, step_y, side, labels):
    side = max(side, 1.25 * max(abs(step_x), abs(step_y)))  # each step is smaller than the head
    tracker = Tracker(CONFIG)
    for i, label in enumerate(labels):
        x, y = 500 + step_x * i, 500 + step_y * i
        tracks = tracker.update(detections((x, y, x + side, y + side, 0.6, label)), i / 10)
        assert [(t.id, t.label) for t in tracks] == [(1, label)]


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 90), st.floats(0, 90), st.floats(0, 1), st.integers(0, 1)), max_size=6), max_size=15
    )
)
def test_ids_are_unique_and_never_reused(frames):
    tracker, seen = Tracker(CONFIG), set()
    for i, frame in enumerate(frames):
        tracks = tracker.update(detections(*((x, y, x + 10, y + 10, s, n) for x, y, s, n in frame)), i * 0.3)
        ids = [t.id for t in tracks]
        assert len(set(ids)) == len(ids)
        new = set(ids) - seen
        assert not new or min(new) > max(seen, default=0)  # an id that is gone does not return
        seen |= set(ids)
        assert sum(t.seen for t in tracks) <= len(frame)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.floats(-0.4, 0.6),  # seconds since the last frame: the clock may be set back a little
            st.lists(
                st.one_of(st.none(), st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 1), st.integers(0, 1))),
                min_size=4,
                max_size=4,
            ),
        ),
        max_size=15,
    )
)
def test_distant_heads_are_tracked_independently(frames):
    together, alone = Tracker(CONFIG), [Tracker(CONFIG) for _ in range(4)]
    now = 100.0
    for elapsed, heads in frames:
        now += elapsed
        boxes_here = [
            () if head is None else ((1000 * i + head[0], head[1], 1000 * i + head[0] + 20, head[1] + 20, *head[2:]),)
            for i, head in enumerate(heads)
        ]
        joint = together.update(detections(*(box for boxes in boxes_here for box in boxes)), now)
        single = [t for tracker, boxes in zip(alone, boxes_here, strict=True) for t in tracker.update(detections(*boxes), now)]
        assert sorted(map(_without_id, joint)) == sorted(map(_without_id, single))


def _without_id(track):
    return (*track.box_xyxy.tolist(), track.score, track.label, track.seen, track.hits, track.first_time, track.last_time)


def test_clock_set_back_a_little_keeps_tracks():
    tracker = Tracker(CONFIG)
    tracker.update(detections((0, 0, 20, 20, 0.9, 0)), 100.0)
    (track,) = tracker.update(detections((1, 0, 21, 20, 0.9, 0)), 99.5)
    assert track.id == 1 and track.last_time == 100.0


def test_clock_set_back_far_starts_new_tracks():
    tracker = Tracker(CONFIG)
    tracker.update(detections((0, 0, 20, 20, 0.9, 0)), 4000.0)
    (track,) = tracker.update(detections((0, 0, 20, 20, 0.9, 0)), 400.0)
    assert (track.id, track.first_time, track.last_time) == (2, 400.0, 400.0)
    assert len(tracker.update(detections(), 401.0)) == 1 and tracker.update(detections(), 401.1) == []


@pytest.mark.parametrize("step", [1.0, 2.5, 5.0])
def test_track_at_rare_frames_survives_one_without_detection(step):
    tracker, here = Tracker(CONFIG), detections((0, 0, 20, 20, 0.9, 0))
    ids = [
        [t.id for t in tracker.update(found, i * step)]
        for i, found in enumerate([here, here, here, detections(), here, detections(), detections(), here])
    ]
    assert ids == [[1], [1], [1], [1], [1], [1], [], [2]]


def test_walking_head_at_one_frame_per_second_is_one_track():
    tracker = Tracker(CONFIG)
    for i in range(5):  # 1.2 m/s, and heads of 25 cm
        x = 96.0 * i
        tracks = tracker.update(detections((x, 0, x + 20, 20, 0.9, 1), (x, 200, x + 20, 220, 0.9, 0)), float(i))
        assert sorted((t.id, t.label) for t in tracks) == [(1, 1), (2, 0)]


def test_thresholds_in_wrong_order_are_rejected():
    with pytest.raises(ValidationError, match=r"low_score must not be above high_score, got 0\.5 and 0\.3"):
        TrackerConfig(low_score=0.5)


def test_update_with_nan_box_raises():
    tracker = Tracker(CONFIG)
    tracker.update(detections((10, 10, 30, 30, 0.9, 0)), 0.0)
    with pytest.raises(ValueError, match="expected finite boxes"):
        tracker.update(detections((np.nan, 10, 30, 30, 0.9, 0)), 0.1)


@settings(max_examples=200)
@given(st.integers(1, 7), st.integers(1, 7), st.randoms(use_true_random=False))
def test_match_has_largest_total_overlap(rows, columns, random):
    """Compared with all assignments that exist; equal overlaps make several of them the best."""
    boxes = np.array(
        [[x := random.randint(0, 40), 0, x + random.randint(5, 30), 20] for _ in range(rows + columns)], np.float32
    )
    tracker = Tracker(TrackerConfig(min_overlap=1e-6, enlarge=0.0))
    matches = tracker._match(boxes[:rows], boxes[rows:], columns)
    overlap = pairwise_iou(boxes[:rows], boxes[rows:]).astype(np.float64)
    wide = overlap if rows <= columns else overlap.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(wide.shape[1]), len(wide))
    )
    assert sum(overlap[i, j] for i, j in matches.items()) == pytest.approx(best)
