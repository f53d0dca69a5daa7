"""Suppression in the graph equals inference.postprocess, for whole batches."""

from functools import cache

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.export.graph import suppression_model
from ppe_yolo.inference.postprocess import postprocess_batch

NAMES = ("a", "b", "c")


@cache
def open_suppression(
    locations: int, classes: int, floor: float, iou: float, most: int
) -> tuple[ort.InferenceSession, ModelContract]:
    contract = ModelContract(NAMES[:classes], (64, 96), score_floor=floor, nms_iou_threshold=iou, max_detections=most)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(suppression_model(locations, contract).SerializeToString(), options), contract


def in_graph(session, boxes, scores) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    feed = {"decoded_xyxy": np.float32(boxes), "decoded_scores": np.float32(scores)}
    return list(zip(*session.run(["boxes_xyxy", "scores", "labels"], feed), strict=True))


def assert_same_as_postprocess(locations, classes, floor, iou, most, boxes, scores) -> int:
    session, contract = open_suppression(locations, classes, floor, iou, most)
    expected = postprocess_batch(torch.from_numpy(boxes), torch.from_numpy(scores), contract)
    for want, (found_boxes, found_scores, found_labels) in zip(expected, in_graph(session, boxes, scores), strict=True):
        count = len(want["scores"])
        assert found_boxes.shape == (most, 4) and found_scores.shape == found_labels.shape == (most,)
        np.testing.assert_array_equal(found_scores[:count], want["scores"])
        np.testing.assert_array_equal(found_boxes[:count], want["boxes_xyxy"])
        np.testing.assert_array_equal(found_labels[:count], want["labels"])
        # the rest is padding
        assert not found_scores[count:].any() and not found_boxes[count:].any() and not found_labels[count:].any()
    return sum(len(w["scores"]) for w in expected)


def random_boxes(rng: np.random.Generator, batch: int, locations: int) -> np.ndarray:
    centre, half = rng.uniform(-10, 100, (batch, locations, 2)), rng.uniform(0, 25, (batch, locations, 2))
    return np.concatenate((centre - half, centre + half), axis=2).astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.sampled_from([1, 3, 8]),
    locations=st.sampled_from([15, 90]),
    classes=st.integers(1, 3),
    limits=st.sampled_from([(0.01, 0.5, 300), (0.3, 0.45, 7), (0.0, 0.0, 20), (0.5, 1.0, 300)]),
    levels=st.sampled_from([3, 50, 2**20]),
)
@settings(max_examples=60)
def test_suppression_equals_postprocess(seed, batch, locations, classes, limits, levels) -> None:
    rng = np.random.default_rng(seed)
    # few levels: many scores are equal, and some lie exactly at the floor
    scores = (rng.integers(1, levels + 1, (batch, locations, classes)) / levels).astype(np.float32)
    assert_same_as_postprocess(locations, classes, *limits, random_boxes(rng, batch, locations), scores)


def test_suppression_ignores_candidates_beyond_limit() -> None:
    rng = np.random.default_rng(3)
    # 1200 candidates of different scores; only the strongest 1000 may suppress or be kept
    scores = (np.stack([rng.permutation(1200) for _ in range(2)]).reshape(2, 600, 2) + 1).astype(np.float32) / 1200
    found = assert_same_as_postprocess(600, 2, 0.01, 0.9, 1200, random_boxes(rng, 2, 600), scores)
    assert 1000 < found <= 2000  # in two images


def test_suppression_works_per_class_and_clips_and_pads() -> None:
    session, _ = open_suppression(15, 2, 0.25, 0.5, 4)
    boxes, scores = np.zeros((2, 15, 4)), np.zeros((2, 15, 2))
    boxes[0, :5] = [[10, 10, 30, 30], [10, 10, 30, 31], [-5, -5, 20, 20], [80, 50, 120, 90], [40, 40, 50, 50]]
    # location 1 is suppressed by location 0 as `a`, not as `b`; location 3 is exactly at the floor, location 4 just below
    scores[0, :5] = [[0.9, 0], [0.8, 0.7], [0, 0.5], [0.25, 0], [0.2499, 0]]
    (boxes_a, scores_a, labels_a), (boxes_b, scores_b, _) = in_graph(session, boxes, scores)
    np.testing.assert_allclose(scores_a, [0.9, 0.7, 0.5, 0.25])
    assert labels_a.tolist() == [0, 1, 1, 0]
    assert boxes_a.tolist() == [[10, 10, 30, 30], [10, 10, 30, 31], [0, 0, 20, 20], [80, 50, 96, 64]]  # clipped to 96x64
    assert not scores_b.any() and not boxes_b.any()  # the other image is empty


@pytest.mark.parametrize(("iou", "kept"), [(0.4999, 1), (0.5, 2)])
def test_suppression_keeps_overlap_at_threshold(iou: float, kept: int) -> None:
    session, _ = open_suppression(15, 1, 0.1, iou, 5)
    boxes, scores = np.zeros((1, 15, 4)), np.zeros((1, 15, 1))
    boxes[0, :2], scores[0, :2, 0] = [[0, 0, 20, 20], [0, 0, 20, 10]], [0.9, 0.8]  # IoU one half
    [(_, found, _)] = in_graph(session, boxes, scores)
    assert np.count_nonzero(found) == kept
