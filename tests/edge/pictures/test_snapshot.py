from dataclasses import replace

import cv2
import numpy as np
from example_views import a_track, a_view
from ppe_edge.pictures.snapshot import (
    CELLS,
    SnapshotConfig,
    draw,
    encode,
    heads_to_hide,
    hide_heads,
    make_snapshot,
)

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

NOISE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


RED, GREEN = [213, 40, 40], [0, 158, 115]


def view(tracks, image=NOISE, **changes):
    return a_view(image, *tracks, thresholds=(0.4, 0.5), **changes)


def test_hide_heads_replaces_head_by_squares_of_mean_colours():
    image = NOISE.copy()
    hide_heads(image, np.array([[100, 50, 140, 90]]))
    inside = image[48:92, 98:142]  # with a margin of 5 % of 40 pixels
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= CELLS**2
    np.testing.assert_allclose(inside[0, 0], NOISE[48:59, 98:109].reshape(-1, 3).mean(0), atol=1.0)
    untouched = np.ones(image.shape[:2], bool)
    untouched[48:92, 98:142] = False
    assert (image[untouched] == NOISE[untouched]).all()


def test_hide_heads_of_large_head_shows_mean_colours_of_its_quarters():
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    image[:] = np.arange(400)[:, None, None] // 2  # dark above, bright below
    hide_heads(image, np.array([[0, 0, 400, 400]]))
    assert len(np.unique(image)) == CELLS
    np.testing.assert_allclose(image[:: 400 // CELLS, 0, 0], [24.5, 74.5, 124.5, 174.5], atol=1.0)


def test_hide_heads_clips_boxes_to_image():
    image = NOISE.copy()
    hide_heads(image, np.array([[-30, -30, 10, 10], [290, 190, 400, 400], [500, 500, 600, 600], [20, 20, 20, 20]]))
    assert not (image[:10, :10] == NOISE[:10, :10]).all() and not (image[195:, 295:] == NOISE[195:, 295:]).all()


def test_draw_hides_all_heads_and_draws_boxes_of_detected_ones():
    seen, unseen = a_track((100, 50, 140, 90)), a_track((200, 100, 240, 140), seen=False)
    drawn = draw(view([seen, unseen]), SnapshotConfig(), ())
    assert drawn.shape == NOISE.shape and drawn is not NOISE
    assert (drawn[90, 100:141] == RED).all() and (drawn[50:91, 140] == RED).all()
    # only squares in 100..140 and its margin, no box
    assert len(np.unique(drawn[98:142, 198:242].reshape(-1, 3), axis=0)) <= CELLS**2
    plain = draw(view([seen, unseen]), SnapshotConfig(blur=False), ())
    assert (plain[100:140, 200:240] == NOISE[100:140, 200:240]).all()


GREY = np.full((200, 300, 3), 90, np.uint8)


def red_bars(row):
    """Returns (first column, length) of each red run in a row."""
    edges = np.flatnonzero(np.diff((row == RED).all(-1).astype(int), prepend=0, append=0)).reshape(-1, 2)
    return [(start, end - start) for start, end in edges.tolist()]


def test_draw_marks_alarmed_head_whatever_its_score():
    """In an image of this size, thin lines are 1 pixel wide and thick ones 4, which OpenCV rounds up to 5."""
    alarmed, other = a_track((50, 100, 90, 140), number=3, score=0.2), a_track((150, 100, 190, 140), number=4, score=0.9)
    drawn = draw(view([alarmed, other], image=GREY), SnapshotConfig(), {3})
    assert red_bars(drawn[120]) == [(45, 5), (91, 5), (150, 1), (190, 1)]
    assert (drawn[100:141, 50:91] == 90).all()  # nothing is drawn on the head itself
    # the text on red: longer than others, since it begins with ALERT
    assert red_bars(drawn[90])[0][0] < 60 and not (drawn[80:94, 46:120] == 90).all()
    assert red_bars(draw(view([alarmed, other], image=GREY), SnapshotConfig(), {4})[120]) == [(145, 5), (191, 5)]


def test_draw_with_alarmed_head_at_edge_shows_whole_box():
    drawn = draw(view([a_track((0, 160, 30, 199))], image=GREY), SnapshotConfig(), {7})
    assert [bar[1] for bar in red_bars(drawn[180])] == [5, 5]
    assert (drawn[197:, 10] == RED).all()


def test_draw_shows_boxes_from_alarm_threshold_on():
    """0.4 for a helmet, 0.5 for a bare head."""
    tracks = [a_track((x, 100, x + 20, 120), label=label, number=x, score=s) for x, label, s in (
        (10, 0, 0.4), (60, 0, 0.39), (110, 1, 0.5), (160, 1, 0.49),
    )]  # fmt: skip
    row = draw(view(tracks, image=GREY), SnapshotConfig(), ())[110]
    assert np.flatnonzero((row == GREEN).all(-1)).tolist() == [10, 30]
    assert np.flatnonzero((row == RED).all(-1)).tolist() == [110, 130]
    assert (np.delete(row, [10, 30, 110, 130], axis=0) == 90).all()
    hidden = draw(view(tracks[3:]), SnapshotConfig(), ())  # heads without a box are hidden, too
    assert len(np.unique(hidden[99:121, 159:181].reshape(-1, 3), axis=0)) <= CELLS**2


def test_draw_hides_classes_of_privacy_alone():
    """The model knows heads (1) and, here, persons (0): tracked and not tracked."""
    boxes = np.array([[180, 80, 260, 190], [200, 85, 240, 120]], np.float32)
    detections = Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1]))
    tracks = [a_track((20, 20, 90, 150), label=0), a_track((40, 20, 60, 40))]
    shown = view(tracks, detections=detections, hidden=frozenset({1}))
    assert heads_to_hide(shown).tolist() == [[40, 20, 60, 40], [200, 85, 240, 120]]


def test_draw_hides_detection_near_threshold_without_track():
    """From half the alarm threshold on: 0.2 for a helmet, 0.25 for a bare head. Of two boxes of one head, the stronger one."""
    boxes = np.array([[200, 100, 240, 140], [20, 20, 40, 40], [60, 20, 80, 40], [180, 80, 260, 160]], np.float32)
    detections = Detections(boxes, np.array([0.3, 0.19, 0.24, 0.26], np.float32), np.array([0, 0, 1, 1]))
    assert heads_to_hide(view([], detections=detections)).tolist() == [[200, 100, 240, 140]]
    drawn = draw(view([], detections=detections), SnapshotConfig(), ())
    assert len(np.unique(drawn[98:142, 198:242].reshape(-1, 3), axis=0)) <= CELLS**2
    assert (drawn[20:40, 20:80] == NOISE[20:40, 20:80]).all()  # too weak
    half = draw(view([], detections=detections), SnapshotConfig(max_side=150), ())
    assert len(np.unique(half[50:70, 100:120].reshape(-1, 3), axis=0)) <= CELLS**2


def test_draw_hides_undetected_track_only_if_it_was_detected_often():
    once, often = (replace(a_track((x, 100, x + 20, 120), seen=False, number=x), hits=hits) for x, hits in ((60, 2), (160, 3)))
    drawn = draw(view([once, often]), SnapshotConfig(), ())
    assert (drawn[100:120, 60:80] == NOISE[100:120, 60:80]).all()
    assert len(np.unique(drawn[100:120, 160:180].reshape(-1, 3), axis=0)) <= CELLS**2


def test_draw_shows_violations_in_red_whatever_their_class():
    tracks = [a_track((60, 100, 80, 120), label=0, number=1), a_track((160, 100, 180, 120), number=2)]
    row = draw(view(tracks, image=GREY, contract=ModelContract(("hat", "hatless"), (64, 64))), SnapshotConfig(), ())[110]
    assert np.flatnonzero((row == RED).all(-1)).tolist() == [160, 180]


def test_draw_scales_large_frame_with_its_boxes():
    drawn = draw(view([a_track((100, 100, 200, 150), label=0)]), SnapshotConfig(max_side=150, blur=False), ())
    assert drawn.shape == (100, 150, 3)
    assert (drawn[75, 50:101] == [0, 158, 115]).all()  # rows 150, columns 100..200 at half the size


def test_encode_respects_max_bytes():
    large = np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    config = SnapshotConfig(max_bytes=30_000, max_side=1600)
    data = encode(large, config)
    assert data is not None and len(data) <= 30_000
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[0] < 1200
    plain = make_snapshot(view([]), SnapshotConfig(), ())
    assert plain is not None and cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR).shape == NOISE.shape


def test_encode_keeps_colours():
    red = np.full((64, 64, 3), (230, 20, 20), np.uint8)
    data = encode(red, SnapshotConfig())
    assert data is not None
    blue_green_red = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[32, 32]
    np.testing.assert_allclose(blue_green_red, [20, 20, 230], atol=6)
