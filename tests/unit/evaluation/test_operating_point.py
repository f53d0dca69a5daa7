"""Thresholds by hand and against trying every score; reading them from a file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from target_tables import targets_from

from ppe_yolo.core.errors import UserError
from ppe_yolo.evaluation.decisions.rules import Rule, parse_rules
from ppe_yolo.evaluation.decisions.threshold import ClassCounts, choose, counts_of, figures_at
from ppe_yolo.evaluation.files.operating_point import read_thresholds
from ppe_yolo.evaluation.metrics.bootstrap import resample
from ppe_yolo.evaluation.metrics.matching import detection_table, match

NAMES = ("helmet", "none")
IMAGES = 4
# ten objects; hits and false alarms in falling order of score
ROWS = [(0.95, 1), (0.9, 1), (0.8, 0), (0.7, 1), (0.6, 1), (0.5, 0), (0.5, 1), (0.4, 0), (0.3, 1), (0.2, 0)]


def counts(rows=ROWS, objects=7, images=IMAGES):
    number = np.arange(len(rows)) % images
    return ClassCounts(
        images=number,
        scores=np.array([r[0] for r in rows]),
        hit=np.array([bool(r[1]) for r in rows], dtype=bool),
        wanted=np.arange(objects) % images,
    )


def chosen(rule, one=None, images=IMAGES):
    return choose(rule, counts() if one is None else one, resample(images, 50), np.zeros(images, int))


def test_recall_rule_takes_best_precision_with_enough_recall():
    # 2 of 7 detected with precision 1; 4 of 7 with 4/5 down to 0.6; halfway to the next score, 0.5
    assert chosen(Rule("recall", 2 / 7)).threshold == pytest.approx(0.85)
    assert chosen(Rule("recall", 3 / 7)).threshold == pytest.approx(0.55)
    # the two at 0.5 go together: 5 of 7 detected, 5 of 7 right; down to 0.3 it is 6 of 9
    assert chosen(Rule("recall", 5 / 7)).threshold == pytest.approx(0.45)
    assert chosen(Rule("recall", 6 / 7)).threshold == pytest.approx(0.25)
    figures = figures_at(counts(), 0.45, IMAGES)
    assert (figures.hits, figures.false_alarms, figures.objects) == (5, 2, 7)
    assert (figures.precision, figures.recall, figures.false_alarms_per_1000) == (5 / 7, 5 / 7, 500.0)


def test_choose_returns_none_if_no_score_meets_rule():
    never = chosen(Rule("recall", 0.9))
    assert never.threshold is None and never.threshold_interval is None
    assert never.nearest == pytest.approx(6 / 7)
    strict = chosen(Rule("false-alarms", 100), counts([(0.9, 0), (0.8, 1)]))
    # the one hit comes with one false alarm on 4 images
    assert strict.threshold is None and strict.nearest == 250.0
    nothing = chosen(Rule("recall", 0.5), counts([]))
    assert nothing.threshold is None and nothing.nearest == 0.0 and nothing.met_in_samples == 0.0
    assert chosen(Rule("false-alarms", 5), counts([(0.9, 0)])).nearest is None


def test_false_alarm_rule_takes_best_recall_within_budget():
    assert chosen(Rule("false-alarms", 0)).threshold == pytest.approx(0.85)
    assert chosen(Rule("false-alarms", 250)).threshold == pytest.approx(0.55)
    # 500 allow the pair at 0.5; the false alarm at 0.4 would not be worth it
    assert chosen(Rule("false-alarms", 500)).threshold == pytest.approx(0.45)
    assert chosen(Rule("false-alarms", 749)).threshold == pytest.approx(0.45)
    assert chosen(Rule("false-alarms", 750)).threshold == pytest.approx(0.25)


def test_lowest_threshold_keeps_weakest_hit():
    choice = chosen(Rule("recall", 1.0), counts([(0.9, 1), (0.12345, 1)], 2))
    assert choice.threshold == pytest.approx(0.1234)
    assert figures_at(counts([(0.9, 1), (0.12345, 1)], 2), choice.threshold, IMAGES).recall == 1.0


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=15),
    st.integers(0, 5),
    st.one_of(st.floats(0.05, 1).map(lambda v: Rule("recall", v)), st.floats(0, 2000).map(lambda v: Rule("false-alarms", v))),
)
def test_choose_finds_best_of_all_scores(drawn, more, rule):
    rows = sorted(((s / 13, h) for s, h in drawn), reverse=True)
    one = counts(rows, sum(h for _, h in rows) + more)
    tried = [figures_at(one, s, IMAGES) for s, _ in rows]
    if rule.kind == "recall":
        good = [(f.precision, f.recall) for f in tried if f.hits and f.recall >= rule.limit - 1e-12]
    else:
        good = [(f.recall, -f.false_alarms) for f in tried if f.hits and f.false_alarms_per_1000 <= rule.limit + 1e-9]
    choice = chosen(rule, one)
    assert (choice.threshold is None) == (not good)
    if good:
        f = figures_at(one, choice.threshold, IMAGES)
        assert ((f.precision, f.recall) if rule.kind == "recall" else (f.recall, -f.false_alarms)) == max(good)


def test_intervals_equal_resampling_by_hand():
    one = counts(ROWS * 20, 140, 100)
    samples = resample(100, 400, seed=1)
    assert (samples.sum(axis=1) == 100).all() and samples.shape == (400, 100)
    figures = figures_at(one, 0.45, 100, samples)
    # each image has its own kind of rows, so that the share varies; against resampling image by image
    rng, by_hand = np.random.default_rng(5), []
    for _ in range(400):
        drawn = rng.integers(0, 100, 100)
        hits = sum(((one.images == p) & one.hit & (one.scores >= 0.45)).sum() for p in drawn)
        by_hand.append(hits / sum((one.wanted == p).sum() for p in drawn))
    assert figures.recall_interval == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=0.03)
    assert figures.recall_interval[0] < figures.recall < figures.recall_interval[1]
    again = figures_at(one, 0.45, 100, resample(100, 400, seed=1))
    assert again == figures
    # no detections in any sample: precision has no interval
    assert figures_at(one, 0.99, 100, samples).precision_interval is None


def test_intervals_of_figures_without_a_mistake_are_exact_ones():
    one = counts([(0.9, True)] * 5, 5, 100)  # each in an image of its own
    figures = figures_at(one, 0.5, 100, resample(100))
    assert figures.recall == figures.precision == 1.0
    assert figures.recall_interval == figures.precision_interval == pytest.approx((0.025 ** (1 / 5), 1.0))  # not (1, 1)
    assert figures.false_alarms_per_1000_interval == pytest.approx((0.0, 1000 * (1 - 0.025 ** (1 / 100))))
    missed = figures_at(counts([(0.3, True)] * 5, 5, 100), 0.5, 100, resample(100))
    assert missed.recall_interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 5)))


def test_counts_of_leaves_out_difficult_objects():
    box, other = (0, 0, 10, 10), (50, 50, 60, 60)
    detections = detection_table([0, 0, 0, 1], [box, other, (80, 80, 90, 90), box], [1, 1, 1, 0], [0.9, 0.8, 0.7, 0.6])
    targets = targets_from(np.array([0, 0]), np.array([box, other], dtype=float), np.array([1, 1]), np.array([False, True]))
    one = counts_of(detections, targets, match(detections, targets), 1)
    assert one.scores.tolist() == [0.9, 0.7] and one.hit.tolist() == [True, False] and one.wanted.tolist() == [0]


def test_parse_rules_fills_default_and_class_rules():
    assert parse_rules([], NAMES) == dict.fromkeys(NAMES, Rule("recall", 0.9))
    assert parse_rules(["recall>=0.8", "none: false-alarms <= 20"], NAMES) == {
        "helmet": Rule("recall", 0.8),
        "none": Rule("false-alarms", 20.0),
    }
    assert str(Rule("recall", 0.9)) == "recall>=0.9" and str(Rule("false-alarms", 20)) == "false-alarms<=20"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["recall>0.9"], "expected recall>=0.9 or false-alarms<=20"),
        (["precision>=0.9"], "expected recall>=0.9"),
        (["recall>=9e"], "expected recall>=0.9"),
        (["recall>=1.5"], "expected a recall above 0 and up to 1, got 'recall>=1.5'"),
        (["recall>=0"], "expected a recall above 0"),
        (["false-alarms<=-1"], "expected 0 or more"),
        (["head:recall>=0.9"], "expected one of the classes helmet, none, got 'head'"),
        (["none:recall>=0.9", "none:recall>=0.8"], "expected one rule for none"),
    ],
)
def test_parse_rules_rejects_malformed_rules(texts, message):
    with pytest.raises(UserError, match=r"^rule: ") as error:
        parse_rules(texts, NAMES)
    assert message in str(error.value)


def operating_point(**changes):
    value = {"rule": "recall>=0.9", "threshold": 0.4}
    return {"model": "a.ckpt", "checkpoint_blake2b": "aa", "classes": {"helmet": value, "none": {**value, **changes}}}


def test_read_thresholds_checks_input_size(tmp_path):
    path = tmp_path / "point.json"
    values = {"classes": {name: {"threshold": 0.4} for name in NAMES}}
    path.write_text(json.dumps(values | {"input_size": [416, 416]}))
    assert read_thresholds(path, NAMES, input_size=(416, 416)) == dict.fromkeys(NAMES, 0.4)
    with pytest.raises(UserError, match="expected thresholds chosen at the input size 640 x 640, got those of 416 x 416"):
        read_thresholds(path, NAMES, input_size=(640, 640))
    path.write_text(json.dumps(values))  # as written before 0.2
    assert read_thresholds(path, NAMES, input_size=(640, 640)) == dict.fromkeys(NAMES, 0.4)
    with pytest.raises(UserError, match="got those of 416 x 416"):
        read_thresholds(path, NAMES, input_size=(640, 640), unrecorded_size=(416, 416))


def test_read_thresholds_checks_model_and_tiles(tmp_path):
    path = tmp_path / "operating_point.json"
    path.write_text(json.dumps(operating_point(threshold=0.25)))
    assert read_thresholds(path, NAMES) == {"helmet": 0.4, "none": 0.25}
    assert read_thresholds(path, NAMES, model_hash="aa") == {"helmet": 0.4, "none": 0.25}
    with pytest.raises(UserError, match=r"chosen for another model \(a.ckpt\)"):
        read_thresholds(path, NAMES, model_hash="bb")
    with pytest.raises(UserError, match="expected thresholds chosen with --tiles 2, got --tiles 1"):
        read_thresholds(path, NAMES, model_hash="aa", tiles=2)
    path.write_text(json.dumps({"tiles": 2, **operating_point()}))
    assert read_thresholds(path, NAMES, model_hash="aa", tiles=2) == {"helmet": 0.4, "none": 0.4}
    with pytest.raises(UserError, match="expected thresholds chosen with --tiles 1, got --tiles 2"):
        read_thresholds(path, NAMES, model_hash="aa")
    path.write_text(json.dumps(operating_point(threshold=0.25)))
    with pytest.raises(UserError, match="expected thresholds of head, got those of helmet, none"):
        read_thresholds(path, ("head",))
    for change, message in (
        (None, "none: no threshold meets recall>=0.9"),
        (1.5, "expected a threshold from 0 to 1, got 1.5"),
        ("high", "expected a threshold from 0 to 1, got 'high'"),
    ):
        path.write_text(json.dumps(operating_point(threshold=change)))
        with pytest.raises(UserError, match=message):
            read_thresholds(path, NAMES)
    for text in ("{", "[]", '{"classes": {"none": 0.3}}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"expected an operating_point.json"):
            read_thresholds(path, NAMES)
    with pytest.raises(UserError, match="cannot be read"):
        read_thresholds(tmp_path / "none.json", NAMES)


def test_worst_recall_rule_demands_recall_in_every_domain_with_objects():
    # domain 0 (images 0 and 1) is easy, domain 1 is hard, domain 2 has no object
    rows = [(0.9, 1, 0), (0.85, 1, 1), (0.8, 0, 2), (0.7, 1, 2), (0.6, 0, 4), (0.5, 1, 3), (0.4, 0, 4)]
    one = ClassCounts(
        images=np.array([r[2] for r in rows]),
        scores=np.array([r[0] for r in rows]),
        hit=np.array([r[1] for r in rows], dtype=bool),
        wanted=np.array([0, 1, 2, 3]),
    )
    domain_of, samples = np.array([0, 0, 1, 1, 2]), resample(5, 50)
    # recall 1/2 over all images is met by the easy domain alone
    assert choose(Rule("recall", 0.5), one, samples, domain_of).threshold == pytest.approx(0.825)
    assert choose(Rule("worst-recall", 0.5), one, samples, domain_of).threshold == pytest.approx(0.65)
    assert choose(Rule("worst-recall", 0.6), one, samples, domain_of).threshold == pytest.approx(0.45)
    never = choose(Rule("worst-recall", 0.9), replace(one, wanted=np.array([0, 1, 2, 2, 3])), samples, domain_of)
    assert never.threshold is None and never.nearest == pytest.approx(2 / 3)


def test_parse_rules_reads_confidence_and_domains():
    assert parse_rules(["none:recall>=0.9@95%", "worst-recall >= 0.8"], NAMES) == {
        "helmet": Rule("worst-recall", 0.8),
        "none": Rule("recall", 0.9, 0.95),
    }
    assert str(Rule("worst-recall", 0.9, 0.95)) == "worst-recall>=0.9@95%"
    for text in ("recall>=0.9@40%", "recall>=0.9@100%", "recall>=1@95%", "false-alarms<=20@95%"):
        with pytest.raises(UserError, match="expected a recall below 1 with a confidence from 50 % to below 100 %"):
            parse_rules([text], NAMES)
