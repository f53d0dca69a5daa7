"""Average precision by the VOC protocol: by hand, and against a slow implementation of the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from target_tables import targets_from

from ppe_yolo.evaluation.metrics.matching import detection_table
from ppe_yolo.evaluation.metrics.voc_ap import mean_average_precision, voc_average_precision

A, B, C = (0, 0, 19, 19), (40, 0, 59, 19), (0, 40, 19, 59)
NOWHERE = (80, 80, 99, 99)


def tables(detected, annotated):
    """Rows of (image, label, score, box) and of (image, label, box, difficult)."""
    return (
        detection_table([r[0] for r in detected], [r[3] for r in detected], [r[1] for r in detected], [r[2] for r in detected]),
        targets_from(
            np.array([r[0] for r in annotated], dtype=np.int64),
            np.array([r[2] for r in annotated], dtype=np.float64).reshape(-1, 4),
            np.array([r[1] for r in annotated], dtype=np.int64),
            np.array([r[3] for r in annotated], dtype=bool),
        ),
    )


def curve(detected, annotated):
    """Of one class, from (score, box) and (box,) or (box, difficult), in one image."""
    rows = [(0, 0, s, b) for s, b in detected]
    return voc_average_precision(*tables(rows, [(0, 0, m[0], len(m) > 1) for m in annotated]), 1)[0]


def test_average_precision_integrates_every_recall():
    # hit, false alarm, hit: precision 1 up to recall 1/3, then 2/3 up to 2/3; two thirds is no multiple of 1/101
    one = curve([(0.9, A), (0.8, NOWHERE), (0.7, B)], [(A,), (B,), (C,)])
    assert one.average_precision == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3, abs=1e-12)
    assert (one.hits, one.false_alarms, one.objects) == (2, 1, 3)
    assert one.precision == pytest.approx([1, 1 / 2, 2 / 3]) and one.recall == pytest.approx([1 / 3, 1 / 3, 2 / 3])


def test_average_precision_interpolates_precision():
    # false alarm, hit, hit: at recall 1/2 the precision of the second hit counts, 2/3 instead of 1/2
    assert curve([(0.9, NOWHERE), (0.8, A), (0.7, B)], [(A,), (B,)]).average_precision == pytest.approx(2 / 3)


def test_boxes_include_their_last_pixel():
    # 20x20 pixels against the upper 10 rows: 200 of 400, exactly one half; without the +1 it would be 171 of 361
    assert curve([(0.9, (0, 0, 19, 9))], [(A,)]).average_precision == 1.0
    assert curve([(0.9, (0, 0, 19, 8))], [(A,)]).average_precision == 0.0
    # without a common pixel there is no overlap: x = 20 is the next column
    assert curve([(0.9, (20, 0, 39, 19))], [(A,)]).hits == 0


def test_detections_below_lowest_score_do_not_count():
    assert curve([(0.3, A), (0.29999, B)], [(A,), (B,)]).average_precision == 0.5
    assert curve([(0.9, A), (0.2, NOWHERE)], [(A,)]).false_alarms == 0


def test_second_detection_of_object_is_false_alarm():
    one = curve([(0.9, A), (0.8, A), (0.7, B)], [(A,), (B,)])
    assert (one.hits, one.false_alarms) == (2, 1)
    assert one.average_precision == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_detection_belongs_to_object_with_highest_iou_even_if_taken():
    near = (0, 4, 19, 23)  # overlaps A by 2/3
    # the second overlaps A most, which is taken; COCO would give it `near`, VOC does not
    one = curve([(0.9, A), (0.8, (0, 1, 19, 20))], [(A,), (near,)])
    assert (one.hits, one.false_alarms) == (1, 1)


def test_difficult_objects_are_neither_misses_nor_false_alarms():
    for detected in ([], [(0.8, B)], [(0.8, B), (0.7, B)]):
        one = curve([(0.9, A), *detected], [(A,), (B, True)])
        assert (one.average_precision, one.hits, one.false_alarms, one.objects) == (1.0, 1, 0, 1)
    assert curve([(0.9, A)], [(A, True)]).average_precision is None


def test_classes_and_images_are_matched_separately():
    detected = [(0, 0, 0.9, A), (1, 1, 0.8, A), (1, 0, 0.7, B)]
    curves = voc_average_precision(*tables(detected, [(0, 0, A, False), (1, 0, A, False), (1, 1, B, False)]), 3)
    assert [c.average_precision for c in curves] == [0.5, 0.0, None]
    assert mean_average_precision(curves) == 0.25
    assert mean_average_precision(curves[2:]) is None


def test_empty_split_has_no_average_precision():
    [one] = voc_average_precision(*tables([], []), 1)
    assert (one.average_precision, one.hits, len(one.precision)) == (None, 0, 0)
    assert curve([], [(A,)]).average_precision == 0.0


def slow_average_precision(detected, annotated, label):
    """The development kit's VOCevaldet line by line, with loops."""
    strong = [r for r in detected if r[1] == label and r[2] >= 0.3]
    order = sorted(range(len(strong)), key=lambda i: (-strong[i][2], strong[i][0], i))
    objects = sum(1 for m in annotated if m[1] == label and not m[3])
    taken, flags = set(), []
    for i in order:
        image, _, _, (x1, y1, x2, y2) = strong[i]
        most, which = 0.0, None
        for j, (other, name, (a1, b1, a2, b2), _) in enumerate(annotated):
            if other != image or name != label:
                continue
            width, height = min(x2, a2) - max(x1, a1) + 1, min(y2, b2) - max(y1, b1) + 1
            if width > 0 and height > 0:
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - width * height
                if width * height / union > most:
                    most, which = width * height / union, j
        if which is not None and most >= 0.5:
            if annotated[which][3]:
                continue
            flags.append(which not in taken)
            taken.add(which)
        else:
            flags.append(False)
    if not objects:
        return None
    points, hits = [], 0
    for n, flag in enumerate(flags, start=1):
        hits += flag
        points.append((hits / objects, hits / n))
    area, before = 0.0, 0.0
    for recall in sorted({r for r, _ in points}):
        area += (recall - before) * max(p for r, p in points if r >= recall)
        before = recall
    return area


boxes = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(3, 9)] * 2).map(lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3]))
images, labels = st.integers(0, 1), st.integers(0, 1)


@given(
    st.lists(st.tuples(images, labels, st.integers(2, 9).map(lambda v: v / 10), boxes), max_size=12),
    st.lists(st.tuples(images, labels, boxes, st.booleans()), max_size=8),
)
def test_average_precision_of_small_cases_equals_slow_implementation(detected, annotated):
    curves = voc_average_precision(*tables(detected, annotated), 2)
    for label in (0, 1):
        expected = slow_average_precision(detected, annotated, label)
        assert curves[label].average_precision == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_average_precision_of_large_case_equals_slow_implementation():
    rng = np.random.default_rng(3)
    detected, annotated = [], []
    for image in range(60):
        corners = rng.uniform(0, 120, (12, 2))
        rows = np.concatenate((corners, corners + rng.uniform(8, 30, (12, 2))), axis=1)
        own = rng.integers(0, 2, 12).tolist()
        annotated += [(image, k, tuple(b), bool(rng.random() < 0.1)) for k, b in zip(own, rows.tolist(), strict=True)]
        near = np.concatenate((rows, rows, rows[:6])) + rng.normal(0, 3, (30, 4))
        names = rng.permuted(np.array([*own, *own, *own[:6]]) ^ (rng.random(30) < 0.1))
        names = np.where(rng.random(30) < 0.7, [*own, *own, *own[:6]], names)
        scores = rng.uniform(0.1, 1.0, 30).round(3)
        detected += [(image, int(k), float(s), tuple(b)) for k, s, b in zip(names, scores, near.tolist(), strict=True)]
    curves = voc_average_precision(*tables(detected, annotated), 2)
    for label in (0, 1):
        expected = slow_average_precision(detected, annotated, label)
        assert 0.2 < expected < 0.8
        assert curves[label].average_precision == pytest.approx(expected, abs=1e-12)
