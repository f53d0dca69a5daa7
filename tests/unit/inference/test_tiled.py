"""Tiles: their windows, the boxes that they cut, and small heads that only tiles show."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.inference.tiled import TiledDetector, drop_cut, suppress, tile_windows


def test_tile_windows_match_hand_calculation():
    # two tiles that share a fifth of their side span 1.8 sides: 100 / 1.8 = 55.6, 180 / 1.8 = 100
    assert tile_windows(100, 180, 2) == [(0, 0, 100, 56), (80, 0, 180, 56), (0, 44, 100, 100), (80, 44, 180, 100)]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(2, 5))
def test_tile_windows_cover_the_image_and_overlap(height, width, tiles):
    windows = tile_windows(height, width, tiles)
    assert len(windows) == tiles**2 and windows[0][:2] == (0, 0) and windows[-1][2:] == (width, height)
    for x1, y1, x2, y2 in windows:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    row = windows[:tiles]
    for left, right in pairwise(row):
        assert left[2] - right[0] >= 0.2 * (left[2] - left[0]) - 1  # rounding to pixels


def make_detections(*boxes):
    count = len(boxes)
    scores = np.linspace(0.9, 0.5, count, dtype=np.float32)
    return Detections(np.array(boxes, dtype=np.float32).reshape(-1, 4), scores, np.arange(count) % 2)


def test_drop_cut_drops_boxes_at_inner_edges_only():
    # a tile in the upper right corner: its left and lower edges cut boxes, its upper and right edges are those of the image
    in_tile = make_detections((10, 0, 30, 20), (1, 10, 20, 30), (40, 20, 60, 55.5), (80, 5, 100, 25))
    kept = drop_cut(in_tile, (80, 0, 180, 56), (100, 180))
    assert kept.boxes_xyxy.tolist() == [[90, 0, 110, 20], [160, 5, 180, 25]]
    assert kept.labels.tolist() == [0, 1] and kept.scores.tolist() == pytest.approx([0.9, 0.5])


class SeesLargeSpots:
    """Detects white spots at least 8 pixels wide in the letterboxed input; the score is the width / 100."""

    contract = ModelContract(("helmet", "none"), (96, 128), max_detections=3)

    def detect(self, images):
        result = []
        for image in images:
            canvas, placement = letterbox(image, self.contract.input_size, self.contract.pad_value)
            white = np.zeros((canvas.shape[0] + 2, canvas.shape[1] + 2), dtype=int)
            white[1:-1, 1:-1] = canvas[..., 0] > 200
            y1, x1 = np.nonzero((white[1:-1, 1:-1] == 1) & (white[:-2, 1:-1] == 0) & (white[1:-1, :-2] == 0))
            boxes = []
            for x, y in zip(x1, y1, strict=True):
                width, height = (int(np.argmin(line)) for line in (white[y + 1, x + 1 :], white[y + 1 :, x + 1]))
                boxes += [[x, y, x + width, y + height]] if width >= 8 else []
            box = placement.restore(np.array(boxes, dtype=np.float32).reshape(-1, 4))
            result.append(
                Detections(box, np.array([(b[2] - b[0]) / 100 for b in boxes], dtype=np.float32), np.zeros(len(box), np.int64))
            )
        return result


def test_tiled_detector_finds_small_heads_once():
    image = np.zeros((192, 256, 3), dtype=np.uint8)  # the network sees it at half its size
    image[20:32, 30:42] = 255  # 12 pixels: 6 in the whole, 10.8 in a tile
    image[60:100, 60:100] = 255  # large, seen by the whole and by one tile
    image[88:100, 122:134] = 255  # small, in the overlap of all four tiles
    plain, tiled = SeesLargeSpots(), TiledDetector(SeesLargeSpots(), 2)
    [before], [after] = plain.detect([image]), tiled.detect([image])
    assert before.boxes_xyxy.tolist() == [[60, 60, 100, 100]]
    assert len(after.scores) == 3 and (np.diff(after.scores) <= 0).all()
    order = np.argsort(after.boxes_xyxy[:, 0])
    assert after.boxes_xyxy[order] == pytest.approx(
        np.array([[30, 20, 42, 32], [60, 60, 100, 100], [122, 88, 134, 100]], dtype=np.float32), abs=1.5
    )
    assert tiled.contract is plain.contract
    assert tiled.detect([np.zeros((1, 1, 3), dtype=np.uint8)])[0].scores.size == 0
    with pytest.raises(UserError, match=r"^expected an RGB image, .* got uint8 \[256, 3\]"):
        tiled.detect(image)  # not in a list


def test_tiled_detector_keeps_max_detections():
    image = np.zeros((192, 256, 3), dtype=np.uint8)
    for x in range(10, 250, 40):
        image[20:40, x : x + 20] = 255
    [after] = TiledDetector(SeesLargeSpots(), 2).detect([image])
    assert len(after.scores) == 3


def test_tiled_detector_limits_its_batches(monkeypatch):
    detector, sizes = SeesLargeSpots(), []
    detect = detector.detect
    monkeypatch.setattr(detector, "detect", lambda images: sizes.append(len(images)) or detect(images))
    TiledDetector(detector, 4).detect([np.zeros((96, 128, 3), dtype=np.uint8)])
    assert sizes == [16, 1]  # the image and 4 x 4 tiles


def test_suppress_equals_torchvision() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (300, 2)).astype(np.float32)
    boxes = np.concatenate((corners, corners + rng.uniform(5, 40, (300, 2)).astype(np.float32)), axis=1)
    scores = rng.permutation(300).astype(np.float32) / 300
    detections = Detections(boxes, scores, rng.integers(0, 2, 300))
    kept = batched_nms(*map(torch.from_numpy, (boxes, scores, detections.labels)), 0.5).numpy()
    expected, actual = detections.select(kept), suppress(detections, 0.5)
    assert 20 < len(actual) < 280
    assert np.array_equal(actual.scores, expected.scores) and np.array_equal(actual.boxes_xyxy, expected.boxes_xyxy)
    assert len(suppress(detections.select(slice(0)), 0.5)) == 0
