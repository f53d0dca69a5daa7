"""COCO's figures: the same as pycocotools', on drawn cases with crowds, sizes, limits, ties and empty photos."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ppe_yolo.evaluation.metrics.coco_ap import AREA_RANGES, coco_average_precision
from ppe_yolo.evaluation.metrics.matching import (
    TargetTable,
    detection_table,
    match_at_half,
    overlapping_pairs,
    rank_in_group,
)


def reference(detections, targets, photos, num_classes, limits):
    """pycocotools' precision [T, R, C, sizes, limits] and recall [T, C, sizes, limits]; -1 where not defined."""

    def xywh(box):
        return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]

    truth = COCO()
    truth.dataset = {
        "images": [{"id": i + 1} for i in range(photos)],
        "categories": [{"id": k + 1} for k in range(num_classes)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(targets.photos[i]) + 1,
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
            "image_id": int(detections.photos[i]) + 1,
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


def drawn(seed, photos=25, objects=9, crowds=0.15):
    """Objects of all sizes, and detections near them, of the other class, twice, or of nothing; scores with ties."""
    rng = np.random.default_rng(seed)
    marked, found = [], []
    for photo in range(photos):
        count = int(rng.integers(0, objects))
        corners, size = rng.uniform(0, 300, (count, 2)), np.exp(rng.uniform(2, 5.3, (count, 2)))
        boxes, own = np.concatenate((corners, corners + size), axis=1), rng.integers(0, 2, count)
        marked += [(photo, k, b, rng.random() < crowds) for k, b in zip(own, boxes, strict=True)]
        of = rng.integers(0, max(count, 1), 2 * count)
        near = boxes[of] + rng.normal(0, 0.12, (len(of), 1)) * np.tile(size, 2)[of] if count else np.zeros((0, 4))
        nothing = rng.uniform([0, 0, 200, 200], [150, 150, 400, 400], (4, 4))
        for box, k in zip((*near, *nothing), (*own[of], 0, 1, 0, 1), strict=True):
            k = k ^ int(rng.random() < 0.1)
            found.append((photo, k, rng.integers(1, 40) / 40, (*box[:2], *np.maximum(box[2:], box[:2] + 1))))
    detections = detection_table([r[0] for r in found], [r[3] for r in found], [r[1] for r in found], [r[2] for r in found])
    targets = TargetTable(*(np.array([r[i] for r in marked]) for i in (0, 2, 1, 3)))
    return detections, targets, photos


@pytest.mark.parametrize("seed", range(4))
def test_every_figure_is_pycocotools(seed):
    detections, targets, photos = drawn(seed)
    limits = [1, 3, 100]
    precision, recall = reference(detections, targets, photos, 2, limits)
    compared = 0
    for a, area in enumerate(AREA_RANGES):
        for m, limit in enumerate(limits):
            ours = coco_average_precision(detections, targets, 2, area=area, max_detections=limit)
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
def test_ties_and_crowds_are_settled_as_pycocotools_does(found, marked):
    detections = detection_table([r[0] for r in found], [r[2] for r in found], [0] * len(found), [r[1] for r in found])
    targets = TargetTable(
        np.array([r[0] for r in marked]),
        np.array([r[1] for r in marked], dtype=np.float64),
        np.zeros(len(marked), dtype=np.int64),
        np.array([r[2] for r in marked]),
    )
    precision, _ = reference(detections, targets, 2, 1, [1, 10, 100])
    ours = coco_average_precision(detections, targets, 1)
    np.testing.assert_allclose(np.nan_to_num(ours.precision[:, :, 0], nan=-1.0), precision[:, :, 0, 0, 2], atol=1e-9)


def test_a_class_without_objects_has_no_figure():
    detections, targets, _ = drawn(0)
    figures = coco_average_precision(detections, targets, 3)
    assert np.isnan(figures.per_class[:, 2]).all() and figures.objects[2] == 0
    assert figures.mean() == pytest.approx(figures.per_class[:, :2].mean())
    none = TargetTable(*(v[:0] for v in (targets.photos, targets.boxes_xyxy, targets.labels, targets.difficult)))
    assert coco_average_precision(detections, none, 2).mean() is None
    assert coco_average_precision(detections.select(detections.scores > 2), targets, 2).mean() == 0.0


def test_pairs_are_those_of_a_photo_and_class():
    box = [[0, 0, 10, 10]]
    detections = detection_table([0, 0, 1], box * 3, [0, 1, 0], [0.9, 0.8, 0.7])
    targets = TargetTable(
        np.array([1, 0]), np.array([[0, 0, 10, 5], [0, 0, 10, 10]], float), np.array([0, 1]), np.zeros(2, bool)
    )
    pairs = overlapping_pairs(detections, targets, 0.1)
    assert list(zip(pairs.detections, pairs.targets, pairs.iou, strict=True)) == [(1, 1, 1.0), (2, 0, 0.5)]
    pairs = overlapping_pairs(detections, targets, 0.1, any_class=True)
    assert list(zip(pairs.detections, pairs.targets, strict=True)) == [(0, 1), (1, 1), (2, 0)]


def test_ranks():
    assert rank_in_group(np.array([5, 2, 5, 5, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert rank_in_group(np.zeros(0, dtype=np.int64)).tolist() == []


def test_weaker_detections_change_nothing_for_stronger_ones():
    """One matching serves every threshold."""
    detections, targets, _ = drawn(7)
    whole = match_at_half(detections, targets)
    for threshold in (0.25, 0.5, 0.75):
        strong = detections.scores >= threshold
        part = match_at_half(detections.select(strong), targets)
        assert 0 < len(part.hit) < len(whole.hit)
        np.testing.assert_array_equal(part.target, whole.target[strong])
        np.testing.assert_array_equal(part.hit, whole.hit[strong])


def test_an_object_that_is_asked_for_comes_before_a_crowd():
    # the detection lies wholly in the crowd (overlap 1 by its own area), and covers 0.6 of the object
    detections = detection_table([0], [[0, 0, 10, 6]], [0], [0.9])
    targets = TargetTable(
        np.zeros(2, int), np.array([[0, 0, 50, 50], [0, 0, 10, 10]], float), np.zeros(2, int), np.array([True, False])
    )
    outcome = match_at_half(detections, targets)
    assert outcome.target.tolist() == [1] and outcome.hit.tolist() == [True]
    precision, _ = reference(detections, targets, 1, 1, [1, 10, 100])
    assert coco_average_precision(detections, targets, 1).mean(0) == 1.0
    assert precision[0, :, 0, 0, 2].mean() == pytest.approx(1.0)
