"""Pictures of alerts: heads cannot be known again, boxes are where they belong, the file is not too large."""

import cv2
import numpy as np
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.pictures.snapshot import (
    CELLS,
    NO_BOXES,
    SnapshotConfig,
    View,
    draw,
    encode,
    hide_heads,
    make_snapshot,
    weak_heads,
)
from ppe_edge.rules.tracker import Track

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

CONTRACT = ModelContract(("helmet", "none"), (64, 64))
NOISE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


RED, GREEN = [213, 40, 40], [0, 158, 115]


def head(box, label=1, seen=True, number=7, score=0.87):
    return Track(number, np.array(box, np.float32), score, label, seen, 3, 0.0, 0.0)


def view(tracks, heads_xyxy=NO_BOXES, image=NOISE):
    return View(Frame("gate", 0, 0.0, 0.0, image), tuple(tracks), CONTRACT, heads_xyxy, (0.4, 0.5), frozenset())


def test_a_hidden_head_is_a_few_squares_of_mean_colours():
    image = NOISE.copy()
    hide_heads(image, np.array([[100, 50, 140, 90]]))
    inside = image[44:96, 94:146]  # with 15 % of 40 pixels around
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= CELLS**2
    np.testing.assert_allclose(inside[0, 0], NOISE[44:57, 94:107].reshape(-1, 3).mean(0), atol=1.0)
    untouched = np.ones(image.shape[:2], bool)
    untouched[44:96, 94:146] = False
    assert (image[untouched] == NOISE[untouched]).all()


def test_heads_beyond_the_picture_are_hidden_as_far_as_they_are_in_it():
    image = NOISE.copy()
    hide_heads(image, np.array([[-30, -30, 10, 10], [290, 190, 400, 400], [500, 500, 600, 600], [20, 20, 20, 20]]))
    assert not (image[:10, :10] == NOISE[:10, :10]).all() and not (image[195:, 295:] == NOISE[195:, 295:]).all()


def test_all_heads_are_hidden_and_only_those_found_are_framed():
    found, unseen = head((100, 50, 140, 90)), head((200, 100, 240, 140), seen=False)
    picture = draw(view([found, unseen]), SnapshotConfig(), ())
    assert picture.shape == NOISE.shape and picture is not NOISE
    assert (picture[90, 100:141] == RED).all() and (picture[50:91, 140] == RED).all()
    # 100..140 and its margin hold squares alone, nothing of the frame
    assert len(np.unique(picture[95:145, 195:245].reshape(-1, 3), axis=0)) <= CELLS**2
    plain = draw(view([found, unseen]), SnapshotConfig(blur=False), ())
    assert (plain[100:140, 200:240] == NOISE[100:140, 200:240]).all()


GREY = np.full((200, 300, 3), 90, np.uint8)


def red_bars(row):
    """Where a row's red begins, and how long it is."""
    edges = np.flatnonzero(np.diff((row == RED).all(-1).astype(int), prepend=0, append=0)).reshape(-1, 2)
    return [(begin, end - begin) for begin, end in edges.tolist()]


def test_the_head_that_raised_the_alarm_is_marked_whatever_its_score_and_no_other():
    """Thin lines are 1 pixel wide in so small a picture, thick ones 4 (OpenCV makes an odd number of it) around the head."""
    alarmed, other = head((50, 100, 90, 140), number=3, score=0.2), head((150, 100, 190, 140), number=4, score=0.9)
    picture = draw(view([alarmed, other], image=GREY), SnapshotConfig(), {3})
    assert red_bars(picture[120]) == [(45, 5), (91, 5), (150, 1), (190, 1)]
    assert (picture[100:141, 50:91] == 90).all()  # nothing is drawn upon the head itself
    # the words on their red ground: longer, since they begin with ALERT
    assert red_bars(picture[90])[0][0] < 60 and not (picture[80:94, 46:120] == 90).all()
    assert red_bars(draw(view([alarmed, other], image=GREY), SnapshotConfig(), {4})[120]) == [(145, 5), (191, 5)]


def test_an_alarmed_head_at_the_edge_of_the_picture_is_framed_on_all_sides():
    picture = draw(view([head((0, 160, 30, 199))], image=GREY), SnapshotConfig(), {7})
    assert [bar[1] for bar in red_bars(picture[180])] == [5, 5]
    assert (picture[197:, 10] == RED).all()


def test_heads_are_framed_from_their_alarm_threshold_on():
    """0.4 for a helmet, 0.5 for a bare head."""
    tracks = [head((x, 100, x + 20, 120), label, number=x, score=s) for x, label, s in (
        (10, 0, 0.4), (60, 0, 0.39), (110, 1, 0.5), (160, 1, 0.49),
    )]  # fmt: skip
    row = draw(view(tracks, image=GREY), SnapshotConfig(), ())[110]
    assert np.flatnonzero((row == GREEN).all(-1)).tolist() == [10, 30]
    assert np.flatnonzero((row == RED).all(-1)).tolist() == [110, 130]
    assert (np.delete(row, [10, 30, 110, 130], axis=0) == 90).all()
    hidden = draw(view(tracks[3:]), SnapshotConfig(), ())  # who is not framed is hidden all the same
    assert len(np.unique(hidden[97:123, 157:183].reshape(-1, 3), axis=0)) <= CELLS**2


def test_a_weak_detection_that_is_no_track_is_hidden_too():
    found = Detections(
        np.array([[200, 100, 240, 140], [20, 20, 40, 40]], np.float32), np.array([0.1, 0.09], np.float32), np.array([0, 1])
    )
    picture = draw(view([], weak_heads(found)), SnapshotConfig(), ())
    assert len(np.unique(picture[95:145, 195:245].reshape(-1, 3), axis=0)) <= CELLS**2
    assert (picture[20:40, 20:40] == NOISE[20:40, 20:40]).all()  # below that it is nobody
    half = draw(view([], weak_heads(found)), SnapshotConfig(max_side=150), ())
    assert len(np.unique(half[50:70, 100:120].reshape(-1, 3), axis=0)) <= CELLS**2


def test_a_large_picture_is_made_smaller_with_its_boxes():
    picture = draw(view([head((100, 100, 200, 150), label=0)]), SnapshotConfig(max_side=150, blur=False), ())
    assert picture.shape == (100, 150, 3)
    assert (picture[75, 50:101] == [0, 158, 115]).all()  # 150 and 100..200 at half the size


def test_the_jpeg_is_as_small_as_asked_for():
    large = np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    config = SnapshotConfig(max_bytes=30_000, max_side=1600)
    data = encode(large, config)
    assert data is not None and len(data) <= 30_000
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[0] < 1200
    plain = make_snapshot(view([]), SnapshotConfig(), ())
    assert plain is not None and cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR).shape == NOISE.shape


def test_the_colours_of_the_jpeg_are_those_of_the_picture():
    red = np.full((64, 64, 3), (230, 20, 20), np.uint8)
    data = encode(red, SnapshotConfig())
    assert data is not None
    blue_green_red = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[32, 32]
    np.testing.assert_allclose(blue_green_red, [20, 20, 230], atol=6)
