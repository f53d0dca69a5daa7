"""Suppression against a brute-force reference, and its limits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.inference.postprocess import MAX_CANDIDATES, postprocess, postprocess_batch

LIMITS = ModelContract(("helmet", "none"), (64, 96), score_floor=0.1, nms_iou_threshold=0.5, max_detections=100)


def found(boxes_xyxy, scores, **changed):
    result = postprocess(
        torch.tensor(boxes_xyxy).float().reshape(-1, 4), torch.tensor(scores).float(), replace(LIMITS, **changed)
    )
    boxes, scores, labels = (result[k].tolist() for k in ("boxes_xyxy", "scores", "labels"))
    return [(label, round(score, 4), box) for box, score, label in zip(boxes, scores, labels, strict=True)]


def test_postprocess_drops_the_weaker_of_two_overlapping_boxes():
    # 10x10 and the same shifted by 3: 70 of 130 shared; shifted by 4: 60 of 140
    boxes = [[0, 0, 10, 10], [3, 0, 13, 10], [14, 20, 24, 30], [18, 20, 28, 30]]
    assert found(boxes, [[0.6], [0.9], [0.5], [0.4]]) == [
        (0, 0.9, [3, 0, 13, 10]),
        (0, 0.5, [14, 20, 24, 30]),
        (0, 0.4, [18, 20, 28, 30]),
    ]


def test_postprocess_keeps_overlap_of_exactly_the_threshold():
    # 10x10 inside 10x20: IoU 0.5, which is not more than 0.5
    assert len(found([[0, 0, 10, 20], [0, 0, 10, 10]], [[0.9], [0.8]])) == 2


def test_postprocess_suppresses_each_class_on_its_own():
    assert found([[0, 0, 10, 10]], [[0.3, 0.8]]) == [(1, 0.8, [0, 0, 10, 10]), (0, 0.3, [0, 0, 10, 10])]
    # suppression shifts class 1 by 97 pixels: without clipping, the first box would coincide with the second
    assert len(found([[97, 97, 193, 161], [0, 0, 96, 64]], [[0.9, 0.0], [0.0, 0.8]])) == 2


def test_postprocess_clips_boxes_to_the_input():
    assert found([[-5, -5, 200, 30]], [[0.9]]) == [(0, 0.9, [0, 0, 96, 30])]


def test_postprocess_keeps_scores_from_the_floor_on():
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30]]
    assert found(boxes, [[0.5], [0.49999]], score_floor=0.5) == [(0, 0.5, [0, 0, 10, 10])]


def test_postprocess_without_detections_returns_empty_tensors():
    result = postprocess(torch.rand(5, 4), torch.zeros(5, 2), LIMITS)
    assert result["boxes_xyxy"].shape == (0, 4) and result["scores"].shape == result["labels"].shape == (0,)
    assert result["labels"].dtype == torch.long


def test_postprocess_drops_nan_scores():
    assert found([[0, 0, 10, 10], [20, 20, 30, 30]], [[float("nan")], [0.5]]) == [(0, 0.5, [20, 20, 30, 30])]


def test_postprocess_keeps_the_strongest_up_to_max_detections():
    boxes = [[10 * (i % 9), 10 * (i // 9), 10 * (i % 9) + 8, 10 * (i // 9) + 6] for i in range(40)]
    scores = [[0.2 + 0.01 * ((7 * i) % 40)] for i in range(40)]
    kept = found(boxes, scores, max_detections=5)
    assert [score for _, score, _ in kept] == [0.59, 0.58, 0.57, 0.56, 0.55]


def test_postprocess_with_too_many_candidates_keeps_the_best():
    count = 3 * MAX_CANDIDATES
    boxes = torch.rand(count, 4, generator=torch.Generator().manual_seed(0)) * 20
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.full((count, 1), 0.2)
    scores[-1] = 0.9
    result = postprocess(boxes, scores, LIMITS)
    assert result["scores"][0] == scores[-1] and torch.equal(result["boxes_xyxy"][0], boxes[-1])


def test_postprocess_batch_treats_images_independently():
    boxes = torch.rand(3, 20, 4, generator=torch.Generator().manual_seed(1)) * 40
    boxes[..., 2:] += boxes[..., :2]
    scores = torch.rand(3, 20, 2, generator=torch.Generator().manual_seed(2))
    together = postprocess_batch(boxes.half(), scores.half(), LIMITS)
    for i, alone in enumerate(together):
        single = postprocess(boxes[i].half().float(), scores[i].half().float(), LIMITS)
        assert all(torch.equal(alone[k], single[k]) for k in single)


def brute_force(boxes, scores, threshold, floor, most):
    """Returns (score, label, box) by descending score; each is kept unless a kept one of its class overlaps it too much."""
    kept = []
    candidates = [(scores[i][c], c, boxes[i]) for i in range(len(boxes)) for c in range(2) if scores[i][c] >= floor]
    for score, label, box in sorted(candidates, key=lambda c: -c[0]):
        for _, other_label, other in kept:
            common = max(0, min(box[2], other[2]) - max(box[0], other[0])) * max(
                0, min(box[3], other[3]) - max(box[1], other[1])
            )
            areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
            if label == other_label and common / (areas - common) > threshold:
                break
        else:
            kept.append((score, label, box))
    return kept[:most]


spans = st.tuples(st.integers(0, 40), st.integers(1, 20))


@pytest.mark.parametrize("threshold", [0.31, 0.47, 0.71])  # no ratio of small areas, so that rounding cannot matter
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(spans, spans), max_size=12), st.integers(1, 8), st.integers(0, 10_000))
def test_postprocess_equals_brute_force_suppression(threshold, sides, most, seed):
    boxes = [[x, y, x + w, y + h] for (x, w), (y, h) in sides]
    scores = np.random.default_rng(seed).permutation(2 * len(boxes)).reshape(-1, 2) / 32 + 0.01  # distinct
    kept = found(boxes, scores.astype(np.float32), nms_iou_threshold=threshold, score_floor=0.1, max_detections=most)
    expected = brute_force(boxes, scores.astype(np.float32).tolist(), threshold, 0.1, most)
    assert kept == [(label, round(score, 4), box) for score, label, box in expected]
