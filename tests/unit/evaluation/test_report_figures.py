"""Kinds of mistakes, calibration, intervals of average precision, and the texts of a report."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from target_tables import targets_from

from ppe_yolo.core.drawing import BARE_HEAD
from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.evaluation.data_sets import Domain, ground_truth_of
from ppe_yolo.evaluation.decisions.operating_point import decide, operating_point_to_plain
from ppe_yolo.evaluation.ground_truth import EvaluationInfo
from ppe_yolo.evaluation.metrics.bootstrap import interval, resample, resampled_map, running_sums
from ppe_yolo.evaluation.metrics.coco_ap import coco_average_precision, judge
from ppe_yolo.evaluation.metrics.matching import detection_table, match, target_table
from ppe_yolo.evaluation.metrics.mistakes import above_threshold, calibration, confusion_matrix, false_alarms, misses
from ppe_yolo.evaluation.report.figures import measure, to_plain
from ppe_yolo.evaluation.report.gallery import SIZE, crop
from ppe_yolo.evaluation.report.material import Material
from ppe_yolo.evaluation.report.texts import results_text, too_few

NAMES = ("helmet", "none")
A, B, C, D = (0, 0, 20, 20), (40, 0, 60, 20), (0, 40, 30, 70), (60, 60, 90, 90)


def image(name, *objects):
    annotated = tuple(AnnotatedObject(n, b, len(rest) > 0) for n, b, *rest in objects)
    return AnnotatedImage(image=f"{name}.jpg", objects=annotated, source=Path(f"{name}.xml"), image_id=name)


ANNOTATED = [image("first", ("helmet", A), ("none", B), ("none", C), ("none", D, "difficult")), image("second", ("helmet", B))]
DETECTED = [  # image, label, score, box
    (0, 0, 0.9, A),
    (0, 0, 0.85, (1, 0, 21, 20)),  # the same object again
    (0, 0, 0.8, B),  # annotated as none
    (0, 1, 0.7, (0, 40, 30, 54)),  # 14 of 30 rows: not enough
    (0, 1, 0.65, D),  # difficult
    (1, 1, 0.6, (0, 60, 20, 80)),  # nothing there
    (1, 0, 0.2, B),  # right, but weak
]


@pytest.fixture
def material():
    table = detection_table(
        [r[0] for r in DETECTED], [r[3] for r in DETECTED], [r[1] for r in DETECTED], [r[2] for r in DETECTED]
    )
    domain = Domain(name="data", root="data", class_map="default", images=ANNOTATED, sizes=[(100, 100)] * 2)
    info = EvaluationInfo(model="model", split="val", checkpoint_blake2b="aa", input_size=(200, 200))
    truth = ground_truth_of([domain], NAMES, info)
    return Material(truth=truth, detections=table, domains=[domain], annotated=ANNOTATED)


def matched(material):
    targets = target_table(material.annotated, NAMES)
    strong = above_threshold(material.detections, NAMES, {"helmet": 0.3, "none": 0.3})
    return targets, match(material.detections, targets), strong


def test_false_alarms_are_explained(material):
    targets, outcome, strong = matched(material)
    alarms = false_alarms(material.detections, targets, outcome, strong, NAMES)
    assert [(a.detection, a.kind, a.is_suspect) for a in alarms] == [
        (1, "second detection of one object", False),
        (2, "annotated as none", True),
        (3, "inaccurate box (IoU 0.47)", False),
        (5, "nothing annotated here", True),
    ]


def test_false_alarm_is_no_suspect_if_stronger_detection_agrees_with_annotation():
    detections = detection_table([0, 0], [A, A], [0, 1], [0.9, 0.8])
    targets = target_table([image("p", ("helmet", A))], NAMES)
    [alarm] = false_alarms(detections, targets, match(detections, targets), np.ones(2, bool), NAMES)
    assert (alarm.kind, alarm.is_suspect) == ("annotated as helmet", False)


def test_misses_are_sorted_by_size(material):
    targets, outcome, strong = matched(material)
    # C (30x30), then B of the first image, then B of the second, detected with 0.2 only; never the difficult D
    assert misses(targets, outcome, strong).tolist() == [2, 1, 4]
    assert outcome.taker.tolist() == [0, -1, -1, 4, 6]


def test_confusion_matrix_matches_hand_calculation(material):
    targets, _, strong = matched(material)
    matrix = confusion_matrix(material.detections, targets, strong, 2)
    # rows: annotated as helmet, none, background; columns: detected as helmet, none, missed
    assert matrix.tolist() == [[1, 0, 1], [1, 0, 1], [1, 2, 0]]


def test_calibration_matches_hand_calculation():
    one = calibration(np.array([0.95, 0.91, 0.15, 0.15, 1.0]), np.array([True, False, False, False, True]))
    assert one.counts.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 3]
    assert one.mean_score[[1, 9]] == pytest.approx([0.15, 2.86 / 3]) and one.precision[[1, 9]] == pytest.approx([0, 2 / 3])
    assert one.error == pytest.approx(2 / 5 * 0.15 + 3 / 5 * (2.86 / 3 - 2 / 3))
    assert calibration(np.zeros(0), np.zeros(0, bool)).error is None


def test_running_sums_match_hand_calculation():
    samples = np.array([[1, 1], [0, 3]])
    sums = running_sums(np.array([0, 1, 1, 0]), np.array([True, False, True, True]), np.array([1, 2]), samples)
    assert sums.tolist() == [[1, 0], [2, 3]]


def drawn_split(seed=2, images=30):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 200, (images, 6, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(10, 60, (images, 6, 2))), axis=2)
    labels, number = rng.integers(0, 2, (images, 6)), np.repeat(np.arange(images), 6)
    near = boxes + rng.normal(0, 5, boxes.shape)
    near[..., 2:] = np.maximum(near[..., 2:], near[..., :2] + 1)
    scores = rng.permutation(images * 6) / 1000 + 0.1
    targets = targets_from(number, boxes.reshape(-1, 4), labels.ravel(), np.zeros(images * 6, bool))
    return detection_table(number, near.reshape(-1, 4), labels.ravel(), scores), targets


def test_resampled_map_counts_images_as_often_as_drawn():
    detections, targets = drawn_split()
    sample = resample(30, 3)
    values = resampled_map(judge(detections, targets, 2), np.concatenate((np.ones((1, 30), int), sample)), "coco")
    assert values[0] == pytest.approx(coco_average_precision(detections, targets, 2).mean(), abs=1e-3)
    for row, value in zip(sample, values[1:], strict=True):
        # the same images written out, each under an index of its own
        chosen = np.repeat(np.arange(30), row)
        d = np.concatenate([np.nonzero(detections.images == p)[0] for p in chosen])
        d_images = np.concatenate([np.full((detections.images == p).sum(), i) for i, p in enumerate(chosen)])
        t = np.concatenate([np.nonzero(targets.images == p)[0] for p in chosen])
        t_images = np.concatenate([np.full((targets.images == p).sum(), i) for i, p in enumerate(chosen)])
        written = detection_table(d_images, detections.boxes_xyxy[d], detections.labels[d], detections.scores[d])
        marked = targets_from(t_images, targets.boxes_xyxy[t], targets.labels[t], targets.difficult[t])
        expected = coco_average_precision(written, marked, 2).mean()
        assert value == pytest.approx(expected, abs=2e-3)
        assert abs(value - values[0]) > 1e-3


def test_interval_needs_nine_tenths_defined():
    assert interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert interval(np.array([np.nan] * 2 + [1.0] * 8)) is None


def measured(material, **options):
    outcome = match(material.detections, material.truth.targets)
    point = decide(material.truth, material.detections, outcome, **options)
    return point, measure(material, outcome, point)


def test_measured_figures_match_hand_calculation(material):
    point, figures = measured(material, rules=["recall>=0.5"])
    plain = to_plain(material, figures)
    assert (plain["images"], plain["split"], plain["checkpoint_blake2b"]) == (2, "val", "aa")
    helmet, bare = (plain["per_class"][n] for n in NAMES)
    # hit, false, false, hit of two objects: 51 recalls at precision 1, 50 at 1/2; for VOC the last one is too weak
    assert helmet["coco_ap_50"] == pytest.approx((51 + 50 / 2) / 101) and helmet["voc_ap"] == 0.5
    assert (bare["objects"], bare["difficult"], bare["coco_ap_50"], bare["voc_ap"]) == (2, 1, 0.0, 0.0)
    assert plain["coco"]["map_50"] == pytest.approx((51 + 50 / 2) / 202) and plain["voc"]["map"] == 0.25
    assert (helmet["threshold"], bare["threshold"]) == (pytest.approx(0.875), 0.3)
    classes = operating_point_to_plain(material.truth, material.detections, material.data, point)["classes"]
    assert classes["helmet"]["recall"] == 0.5 and classes["helmet"]["precision"] == 1.0
    assert classes["none"] == {
        "rule": "recall>=0.5",
        "threshold": None,
        "threshold_interval": None,
        "rule_met_in_samples": 0.0,
        "nearest_to_rule": 0.0,
    }
    assert too_few(figures, material, "none") == " (highest recall: 0.0 %): give another --rule"
    no_bare = replace(point.counts[1], wanted=point.counts[1].wanted[:0])
    figures = replace(figures, operating_point=replace(point, counts=(point.counts[0], no_bare)))
    assert too_few(figures, material, "none") == ": these images show none: choose on images that do"


def test_results_text_lists_voc_figures(material):
    _, figures = measured(material, given=dict.fromkeys(NAMES, 0.3))
    assert results_text(material, figures).splitlines() == [
        "# AP and precision/recall per class (VOC: IoU 0.5, all points, scores from 0.3, difficult ignored)",
        "50.00% = helmet AP",
        " Precision: [1.00, 0.50, 0.33]",
        " Recall: [0.50, 0.50, 0.50]",
        "0.00% = none AP",
        " Precision: [0.00, 0.00]",
        " Recall: [0.00, 0.00]",
        "",
        "# mAP of all classes",
        "mAP = 25.00%",
        "",
        "# For comparison: the COCO protocol (101 recalls, all scores)",
        "mAP@0.5 = 37.62%",
        "mAP@0.5:0.95 = 37.62%",
        "",
        "# Number of ground-truth objects per class",
        "helmet: 2",
        "none: 2",
        "",
        "# Number of predicted objects per class",
        "helmet: 3 (tp:1, fp:2)",
        "none: 2 (tp:0, fp:2)",
    ]


@pytest.mark.parametrize("size", [(40, 30), (500, 90), (90, 500), (480, 640)])
def test_crop_contains_its_box(size):
    height, width = size
    image = np.full((*size, 3), 60, dtype=np.uint8)
    box = np.array([width - 20.0, height - 16.0, width - 4.0, height - 2.0])
    image[height - 16 : height - 2, width - 20 : width - 4] = (0, 0, 255)
    part = cv2.imdecode(np.frombuffer(crop(image, box, box[None]), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert part.shape == (*SIZE, 3)
    blue = (part[..., 2].astype(int) - part[..., 0]) > 100
    assert blue.mean() > 0.01  # not lost, nor a speck
    edge = (part.min(axis=2) > 200).mean()
    assert edge > 0.001  # the white box
    jpeg = crop(image, box, box[None], box, BARE_HEAD, "bare head 0.90")
    red = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert ((red[..., 0].astype(int) - red[..., 1]) > 100).mean() > 0.003
