"""Pictures of alerts: heads cannot be known again, boxes are where they belong, the file is not too large."""

import cv2
import numpy as np
from ppe_edge.detector import Detections
from ppe_edge.snapshot import CELLS, SnapshotConfig, draw, encode, hide_heads, make_snapshot, weak_heads
from ppe_edge.tracker import Track

from ppe_yolo.contract import ModelContract

CONTRACT = ModelContract(("helmet", "none"), (64, 64))
NOISE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


def head(box, label=1, seen=True):
    return Track(7, np.array(box, np.float32), 0.87, label, seen, 3, 0.0, 0.0)


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
    picture = draw(NOISE, [found, unseen], CONTRACT, SnapshotConfig())
    assert picture.shape == NOISE.shape and picture is not NOISE
    red = np.array([213, 40, 40])
    assert (picture[90, 100:141] == red).all() and (picture[50:91, 140] == red).all()
    # 100..140 and its margin hold squares alone, nothing of the frame
    assert len(np.unique(picture[95:145, 195:245].reshape(-1, 3), axis=0)) <= CELLS**2
    plain = draw(NOISE, [found, unseen], CONTRACT, SnapshotConfig(blur=False))
    assert (plain[100:140, 200:240] == NOISE[100:140, 200:240]).all()


def test_a_weak_detection_that_is_no_track_is_hidden_too():
    found = Detections(
        np.array([[200, 100, 240, 140], [20, 20, 40, 40]], np.float32), np.array([0.1, 0.09], np.float32), np.array([0, 1])
    )
    picture = draw(NOISE, [], CONTRACT, SnapshotConfig(), weak_heads(found))
    assert len(np.unique(picture[95:145, 195:245].reshape(-1, 3), axis=0)) <= CELLS**2
    assert (picture[20:40, 20:40] == NOISE[20:40, 20:40]).all()  # below that it is nobody
    half = draw(NOISE, [], CONTRACT, SnapshotConfig(max_side=150), weak_heads(found))
    assert len(np.unique(half[50:70, 100:120].reshape(-1, 3), axis=0)) <= CELLS**2


def test_a_large_picture_is_made_smaller_with_its_boxes():
    picture = draw(NOISE, [head((100, 100, 200, 150), label=0)], CONTRACT, SnapshotConfig(max_side=150, blur=False))
    assert picture.shape == (100, 150, 3)
    assert (picture[75, 50:101] == [0, 158, 115]).all()  # 150 and 100..200 at half the size


def test_the_jpeg_is_as_small_as_asked_for():
    large = np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    config = SnapshotConfig(max_bytes=30_000, max_side=1600)
    data = encode(large, config)
    assert data is not None and len(data) <= 30_000
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[0] < 1200
    plain = make_snapshot(NOISE, [], CONTRACT, SnapshotConfig())
    assert plain is not None and cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR).shape == NOISE.shape


def test_the_colours_of_the_jpeg_are_those_of_the_picture():
    red = np.full((64, 64, 3), (230, 20, 20), np.uint8)
    data = encode(red, SnapshotConfig())
    assert data is not None
    blue_green_red = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[32, 32]
    np.testing.assert_allclose(blue_green_red, [20, 20, 230], atol=6)
