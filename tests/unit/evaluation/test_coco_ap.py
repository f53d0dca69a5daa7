"""COCO's figures equal those of pycocotools and torchmetrics, on drawn cases with crowds, sizes, limits and ties."""

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from target_tables import targets_from

from ppe_yolo.evaluation.metrics.coco_ap import (
    AREA_RANGES,
    coco_average_precision,
    coco_figures,
    judge,
    precision_recall_curve,
)
from ppe_yolo.evaluation.metrics.matching import (
    detection_table,
    match,
    overlapping_pairs,
    rank_in_group,
)
from ppe_yolo.evaluation.metrics.mean_ap import (
    build_metric,
    precision_recall_curves,
    summarise,
    to_metric_predictions,
    to_metric_targets,
)


def reference(detections, targets, images, num_classes, limits):
    """pycocotools' precision [T, R, C, sizes, limits] and recall [T, C, sizes, limits]; -1 where not defined."""

    def xywh(box):
        return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]

    truth = COCO()
    truth.dataset = {
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": k + 1} for k in range(num_classes)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(targets.images[i]) + 1,
                "category_id": int(targets.labels[i]) + 1,
                "bbox": xywh(box),
                "area": xywh(box)[2] * xywh(box)[3],
                "iscrowd": int(targets.difficult[i]),
            }
            for i, box in enumerate(targets.boxes_xyxy)
        ],
    }
    rows = [
        {
            "image_id": int(detections.images[i]) + 1,
            "category_id": int(detections.labels[i]) + 1,
            "bbox": xywh(box),
            "score": float(detections.scores[i]),
        }
        for i, box in enumerate(detections.boxes_xyxy)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(rows), "bbox")
        run.params.maxDets = limits
        run.evaluate()
        run.accumulate()
    return run.eval["precision"], run.eval["recall"]


def drawn(seed, images=25, objects=9, crowds=0.15):
    """Objects of all sizes; detections near them, of the other class, twice, or of nothing; scores with ties."""
    rng = np.random.default_rng(seed)
    annotated, detected = [], []
    for image in range(images):
        count = int(rng.integers(0, objects))
        corners, size = rng.uniform(0, 300, (count, 2)), np.exp(rng.uniform(2, 5.3, (count, 2)))
        boxes, own = np.concatenate((corners, corners + size), axis=1), rng.integers(0, 2, count)
        annotated += [(image, k, b, rng.random() < crowds) for k, b in zip(own, boxes, strict=True)]
        of = rng.integers(0, max(count, 1), 2 * count)
        near = boxes[of] + rng.normal(0, 0.12, (len(of), 1)) * np.tile(size, 2)[of] if count else np.zeros((0, 4))
        nothing = rng.uniform([0, 0, 200, 200], [150, 150, 400, 400], (4, 4))
        for box, k in zip((*near, *nothing), (*own[of], 0, 1, 0, 1), strict=True):
            k = k ^ int(rng.random() < 0.1)
            detected.append((image, k, rng.integers(1, 40) / 40, (*box[:2], *np.maximum(box[2:], box[:2] + 1))))
    detections = detection_table(*([r[i] for r in detected] for i in (0, 3, 1, 2)))
    targets = targets_from(*(np.array([r[i] for r in annotated]) for i in (0, 2, 1, 3)))
    return detections, targets, images


@pytest.mark.parametrize("seed", range(4))
def test_coco_average_precision_equals_pycocotools(seed):
    detections, targets, images = drawn(seed)
    limits = [1, 3, 100]
    precision, recall = reference(detections, targets, images, 2, limits)
    compared = 0
    for a, area_range in enumerate(AREA_RANGES.values()):
        for m, limit in enumerate(limits):
            ours = coco_average_precision(detections, targets, 2, area_range=area_range, max_detections=limit)
            np.testing.assert_allclose(np.nan_to_num(ours.precision, nan=-1.0), precision[:, :, :, a, m], atol=1e-9)
            np.testing.assert_allclose(np.nan_to_num(ours.recall, nan=-1.0), recall[:, :, a, m], atol=1e-12)
            compared += (precision[:, :, :, a, m] > 0).sum()
    assert compared > 5000
    # without a limit it is the highest one
    unlimited = coco_average_precision(detections, targets, 2)
    assert unlimited.mean() == pytest.approx(precision[:, :, :, 0, 2].mean(), abs=1e-9)
    assert unlimited.mean(0) == pytest.approx(precision[0, :, :, 0, 2].mean(), abs=1e-9)


small_boxes = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(2, 8)] * 2).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 5).map(lambda v: v / 5), small_boxes), min_size=1, max_size=10),
    st.lists(st.tuples(st.integers(0, 1), small_boxes, st.booleans()), min_size=1, max_size=6),
)
def test_matching_of_ties_and_crowds_equals_pycocotools(detected, annotated):
    detections = detection_table(
        [r[0] for r in detected], [r[2] for r in detected], [0] * len(detected), [r[1] for r in detected]
    )
    targets = targets_from(
        np.array([r[0] for r in annotated]),
        np.array([r[1] for r in annotated], dtype=np.float64),
        np.zeros(len(annotated), dtype=np.int64),
        np.array([r[2] for r in annotated]),
    )
    precision, _ = reference(detections, targets, 2, 1, [1, 10, 100])
    ours = coco_average_precision(detections, targets, 1)
    np.testing.assert_allclose(np.nan_to_num(ours.precision[:, :, 0], nan=-1.0), precision[:, :, 0, 0, 2], atol=1e-9)


def test_class_without_objects_has_no_average_precision():
    detections, targets, _ = drawn(0)
    figures = coco_average_precision(detections, targets, 3)
    assert np.isnan(figures.per_class[:, 2]).all() and figures.objects[2] == 0
    assert figures.mean() == pytest.approx(figures.per_class[:, :2].mean())
    none = targets_from(*(v[:0] for v in (targets.images, targets.boxes_xyxy, targets.labels, targets.difficult)))
    assert coco_average_precision(detections, none, 2).mean() is None
    assert coco_average_precision(detections.select(detections.scores > 2), targets, 2).mean() == 0.0


def test_overlapping_pairs_share_image_and_class():
    box = [[0, 0, 10, 10]]
    detections = detection_table([0, 0, 1], box * 3, [0, 1, 0], [0.9, 0.8, 0.7])
    targets = targets_from(
        np.array([1, 0]), np.array([[0, 0, 10, 5], [0, 0, 10, 10]], float), np.array([0, 1]), np.zeros(2, bool)
    )
    pairs = overlapping_pairs(detections, targets, 0.1)
    assert list(zip(pairs.detections, pairs.targets, pairs.iou, strict=True)) == [(1, 1, 1.0), (2, 0, 0.5)]
    pairs = overlapping_pairs(detections, targets, 0.1, any_class=True)
    assert list(zip(pairs.detections, pairs.targets, strict=True)) == [(0, 1), (1, 1), (2, 0)]


def test_rank_in_group_counts_earlier_members():
    assert rank_in_group(np.array([5, 2, 5, 5, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert rank_in_group(np.zeros(0, dtype=np.int64)).tolist() == []


def test_match_of_strong_detections_ignores_weaker_ones():
    """One matching serves every score threshold."""
    detections, targets, _ = drawn(7)
    whole = match(detections, targets)
    for threshold in (0.25, 0.5, 0.75):
        strong = detections.scores >= threshold
        part = match(detections.select(strong), targets)
        assert 0 < len(part.hit) < len(whole.hit)
        np.testing.assert_array_equal(part.target, whole.target[strong])
        np.testing.assert_array_equal(part.hit, whole.hit[strong])


def test_match_prefers_object_to_crowd():
    # the detection lies within the crowd (overlap 1 by its own area), and covers 0.6 of the object
    detections = detection_table([0], [[0, 0, 10, 6]], [0], [0.9])
    targets = targets_from(
        np.zeros(2, int), np.array([[0, 0, 50, 50], [0, 0, 10, 10]], float), np.zeros(2, int), np.array([True, False])
    )
    outcome = match(detections, targets)
    assert outcome.target.tolist() == [1] and outcome.hit.tolist() == [True]
    precision, _ = reference(detections, targets, 1, 1, [1, 10, 100])
    assert coco_average_precision(detections, targets, 1).mean(0) == 1.0
    assert precision[0, :, 0, 0, 2].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(3))
def test_coco_average_precision_equals_torchmetrics(seed):
    detections, targets, images = drawn(seed)
    metric = build_metric(100)
    for image in range(images):
        own, asked = detections.images == image, targets.images == image
        prediction = {k: torch.from_numpy(getattr(detections, k)[own]) for k in ("boxes_xyxy", "scores", "labels")}
        target = {k: torch.from_numpy(getattr(targets, k)[asked]) for k in ("boxes_xyxy", "labels", "difficult")}
        metric.update(to_metric_predictions([prediction]), to_metric_targets([target]))
    result = metric.compute()
    summary, judged = summarise(result, ("helmet", "none")), judge(detections, targets, 2, max_detections=100)
    figures = coco_figures(judged)
    assert 0.05 < figures.mean() < 0.95
    assert figures.mean() == pytest.approx(summary["map"], abs=1e-6)
    assert figures.mean(0) == pytest.approx(summary["map_50"], abs=1e-6)
    curves = precision_recall_curves(result, ("helmet", "none"))
    for label, name in enumerate(("helmet", "none")):
        curve = precision_recall_curve(judged[label])
        np.testing.assert_allclose(curve.precision, curves[name].precision, atol=1e-6)
        np.testing.assert_allclose(curve.scores, curves[name].scores, atol=1e-6)
