"""IoU of numpy boxes, by hand and against the torch version."""

import numpy as np
import pytest
import torch

from ppe_yolo.core.boxes import intersection_and_areas, iou_of_sizes, pairwise_iou, pairwise_iou_and_cover
from ppe_yolo.model import boxes as torch_boxes


def test_pairwise_iou_equals_torch_version() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (2, 50, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(0, 50, (2, 50, 2))), axis=2)
    boxes[1, 7] = boxes[0, 3]
    expected = torch_boxes.pairwise_iou(torch.from_numpy(boxes[0]), torch.from_numpy(boxes[1])).numpy()
    np.testing.assert_allclose(pairwise_iou(boxes[0], boxes[1]), expected, rtol=1e-12)
    assert pairwise_iou(boxes[0].astype(np.float32), boxes[1].astype(np.float32)).dtype == np.float32
    assert pairwise_iou(boxes[0, :0], boxes[1]).shape == (0, 50)


def test_pairwise_iou_of_empty_boxes_is_zero() -> None:
    empty = np.array([[3.0, 3, 3, 3]])
    assert pairwise_iou(empty, empty).tolist() == [[0.0]]


def test_pairwise_iou_and_cover_match_hand_calculation() -> None:
    iou, cover = pairwise_iou_and_cover(
        np.array([[0.0, 0, 10, 10]]), np.array([[2.0, 2, 4, 4], [8, 0, 12, 10], [20, 0, 30, 10]])
    )
    assert iou[0] == pytest.approx([0.04, 20 / 120, 0])
    assert cover[0] == pytest.approx([1, 0.5, 0])  # 20 of 40


def test_intersection_and_areas_with_voc_border_counts_the_last_pixel() -> None:
    intersection, area_a, area_b = intersection_and_areas(np.array([0.0, 0, 9, 9]), np.array([9.0, 5, 19, 9]), border=1)
    assert (intersection, area_a, area_b) == (1 * 5, 100, 11 * 5)


def test_iou_of_sizes_equals_torch_version() -> None:
    a, b = np.random.default_rng(1).uniform(1, 50, (2, 20, 2))
    expected = torch_boxes.iou_of_sizes(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(iou_of_sizes(a, b), expected, rtol=1e-12)
