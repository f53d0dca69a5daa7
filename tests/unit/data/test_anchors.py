"""Anchors by k-means with IoU distance."""

from pathlib import Path

import numpy as np
import pytest

from ppe_yolo.core.boxes import iou_of_sizes
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.anchors import fit_anchors, letterboxed_sizes, mean_best_iou
from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject


@pytest.mark.parametrize("seed", range(4))
def test_fit_anchors_finds_planted_clusters(seed: int) -> None:
    planted = np.array([(10.0, 12.0), (30.0, 20.0), (40.0, 90.0), (200.0, 150.0)])
    rng = np.random.default_rng(seed)
    boxes_wh = np.concatenate([c * rng.uniform(0.97, 1.03, (50, 2)) for c in planted])
    fitted = fit_anchors(rng.permutation(boxes_wh), 4, seed=seed)
    assert fitted == pytest.approx(planted, rel=0.02)  # in ascending order of area
    assert mean_best_iou(boxes_wh, fitted) > 0.95


def test_fit_anchors_same_seed_gives_same_anchors() -> None:
    boxes_wh = np.random.default_rng(0).uniform(5, 300, (200, 2))
    assert np.array_equal(fit_anchors(boxes_wh, 6, seed=1), fit_anchors(boxes_wh, 6, seed=1))


def test_iou_of_sizes_and_mean_best_iou_match_hand_calculation() -> None:
    # (10, 10) with (20, 10): 100 of 200; with (5, 20): 50 of 150
    assert iou_of_sizes(np.array([(10.0, 10.0)]), np.array([(20.0, 10.0), (5.0, 20.0)])) == pytest.approx(
        np.array([[1 / 2, 1 / 3]])
    )
    # the second box fits (20, 10) best: 200 of 400
    boxes_wh, anchors_wh = np.array([(10.0, 10.0), (20.0, 20.0)]), np.array([(20.0, 10.0), (5.0, 20.0)])
    assert mean_best_iou(boxes_wh, anchors_wh) == pytest.approx(0.5)


def test_fit_anchors_too_few_boxes_raises() -> None:
    with pytest.raises(UserError, match="expected at least 3 boxes of different sizes, got 2: add images"):
        fit_anchors(np.array([(1.0, 2.0), (1.0, 2.0), (3.0, 4.0)]), 3)


def test_letterboxed_sizes_match_hand_calculation() -> None:
    objects = (AnnotatedObject("helmet", (10, 20, 30, 60)),)
    image = AnnotatedImage(image="a.jpg", objects=objects, source=Path("a.xml"), image_id="a")
    # 400 wide and 200 high into 100x100: times 0.25
    assert letterboxed_sizes([image], {"a.jpg": (200, 400)}, (100, 100)).tolist() == [[5.0, 10.0]]
    assert letterboxed_sizes([], {}, (100, 100)).shape == (0, 2)
