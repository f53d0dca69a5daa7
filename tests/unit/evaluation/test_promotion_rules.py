"""The gate's decision, condition by condition, on images whose figures are counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from ppe_yolo.evaluation.decisions.promotion_rules import Contender, Demands, Latency, decide
from ppe_yolo.evaluation.ground_truth import GroundTruth, ImageRecord
from ppe_yolo.evaluation.metrics.matching import TargetTable, detection_table

COUNT = 20
# each image has one helmet (label 0) and one bare head (label 1), side by side
BOXES = {0: (0.0, 0.0, 10.0, 10.0), 1: (50.0, 0.0, 60.0, 10.0)}


def records(domains):
    return tuple(ImageRecord(name=f"p{i:02d}", file_name="", height=100, width=100, domain=d) for i, d in enumerate(domains))


TRUTH = GroundTruth(
    images=records([""] * COUNT),
    targets=TargetTable(
        images=np.repeat(np.arange(COUNT), 2),
        boxes_xyxy=np.array([BOXES[0], BOXES[1]] * COUNT),
        labels=np.tile([0, 1], COUNT),
        difficult=np.zeros(2 * COUNT, dtype=bool),
    ),
    class_names=("helmet", "none"),
)
DEMANDS = Demands(min_recall=0.5, margin=0.5, max_latency_ms=100.0)
EQUAL = Latency(10.0, 10.0, 1.0)


def contender(helmets, heads, threshold=0.5, weak_heads=0, false_alarms=0):
    """Detects that many of each with score 0.9, in the first images, and more heads with score 0.2.

    The false alarms, one per image, have a score of 0.6, so that each comes after all hits of its class.
    """
    rows = [(i, BOXES[0], 0, 0.9) for i in range(helmets)] + [(i, BOXES[1], 1, 0.9) for i in range(heads)]
    rows += [(heads + i, BOXES[1], 1, 0.2) for i in range(weak_heads)]
    rows += [(i, (20.0, 20.0, 30.0, 30.0), 1, 0.6) for i in range(false_alarms)]
    table = detection_table(*(list(c) for c in zip(*rows, strict=True)))
    return Contender(table, {"helmet": 0.5, "none": threshold})


CHAMPION = contender(10, 12)
BETTER = contender(18, 12)


def average(helmets, heads):
    """COCO's mean AP of two classes without a false alarm: the part of the 101 recalls that is reached."""
    return (sum(r <= 5 * helmets for r in range(101)) + sum(r <= 5 * heads for r in range(101))) / 202


def test_decide_promotes_challenger_that_is_better_in_everything():
    decision = decide(TRUTH, BETTER, CHAMPION, EQUAL, DEMANDS)
    assert decision.promoted and decision.reasons == []
    numbers = decision.numbers
    assert numbers["challenger"]["map_50"] == pytest.approx(average(18, 12))
    assert numbers["champion"]["map_50"] == pytest.approx(average(10, 12))
    assert numbers["map_50_gain_points"] == pytest.approx(100 * 40 / 202)
    assert numbers["challenger"]["recall"] == numbers["champion"]["recall"] == 12 / 20  # equal is not worse
    assert numbers["better_in_samples"] > 0.99


@pytest.mark.parametrize(
    ("challenger", "champion", "latency", "demands", "reason"),
    [
        # 9 of 20 heads; the champion detects no more
        (contender(18, 9), contender(10, 9), EQUAL, DEMANDS, "recall of none, at least"),
        (contender(20, 11), CHAMPION, EQUAL, DEMANDS, "recall of none, not worse"),
        # all the same detections, but the alarm is set higher than the weak ones
        (contender(18, 10, 0.5, 2), contender(10, 10, 0.1, 2), EQUAL, DEMANDS, "recall of none, not worse"),
        # 40 of 202 are 19.8 points
        (BETTER, CHAMPION, EQUAL, Demands(margin=19.9, max_latency_ms=100.0), "mAP@0.5"),
        # one helmet more is 2.5 points, but it is in one image, which a third of the samples leave out
        (contender(11, 12), CHAMPION, EQUAL, DEMANDS, "not by luck"),
        # more bare heads, but more false alarms: 1.2 x 5 is 6, and one more than none may be chance
        (contender(18, 14, false_alarms=7), contender(10, 12, false_alarms=5), EQUAL, DEMANDS, "false alarms of none"),
        (contender(18, 14, false_alarms=2), CHAMPION, EQUAL, DEMANDS, "false alarms of none"),
        # 3 in 20 images are 150 per 1,000
        (
            contender(18, 14, false_alarms=3),
            contender(10, 12, false_alarms=5),
            EQUAL,
            Demands(max_latency_ms=100.0, max_false_alarms=149),
            "false alarms of none",
        ),
        (BETTER, CHAMPION, Latency(100.1, 100.1, 1.0), DEMANDS, "latency"),
        (BETTER, CHAMPION, Latency(12.1, 10.0, 1.21), Demands(), "latency"),
    ],
)
def test_decide_rejects_on_each_condition_alone(challenger, champion, latency, demands, reason):
    decision = decide(TRUTH, challenger, champion, latency, demands)
    assert not decision.promoted and decision.reasons == [reason]


def test_decide_accepts_values_on_the_limit():
    exactly = Demands(min_recall=12 / 20, margin=100 * 40 / 202, max_latency_ms=10.0)
    assert decide(TRUTH, BETTER, CHAMPION, EQUAL, exactly).promoted
    assert decide(TRUTH, BETTER, CHAMPION, Latency(12.0, 10.0, 1.2), Demands()).promoted
    assert decide(TRUTH, contender(18, 12, false_alarms=6), contender(10, 12, false_alarms=5), EQUAL, DEMANDS).promoted
    assert decide(TRUTH, contender(18, 12, false_alarms=1), CHAMPION, EQUAL, DEMANDS).promoted
    budget = Demands(max_latency_ms=100.0, max_false_alarms=150)
    assert decide(TRUTH, contender(18, 12, false_alarms=3), CHAMPION, EQUAL, budget).promoted


def test_decide_rejects_same_model():
    decision = decide(TRUTH, CHAMPION, CHAMPION, EQUAL, DEMANDS)
    assert decision.reasons == ["mAP@0.5", "not by luck"]
    # nor where no margin is asked for: it is better in none of the samples
    assert decide(TRUTH, CHAMPION, CHAMPION, EQUAL, Demands(margin=0.0)).reasons == ["not by luck"]


def test_share_of_samples_equals_share_with_deciding_image():
    # the 11th helmet decides; an image is in a sample with 1 - (19/20)**20 = 0.6415, within 4 deviations of 1,000 draws
    decision = decide(TRUTH, contender(11, 12), CHAMPION, EQUAL, DEMANDS)
    assert decision.numbers["better_in_samples"] == pytest.approx(1 - (19 / 20) ** 20, abs=4 * (0.2300 / 1000) ** 0.5)
    again = decide(TRUTH, contender(11, 12), CHAMPION, EQUAL, DEMANDS)
    assert again.numbers == decision.numbers  # seeded


def test_first_challenger_meets_absolute_conditions_alone():
    first = decide(TRUTH, contender(1, 10), None, Latency(50.0), DEMANDS)
    assert first.promoted and [c.name for c in first.conditions] == ["recall of none, at least", "latency"]
    assert first.numbers["champion"] is None
    assert decide(TRUTH, contender(1, 9), None, Latency(50.0), DEMANDS).reasons == ["recall of none, at least"]
    assert decide(TRUTH, contender(1, 10), None, Latency(101.0), DEMANDS).reasons == ["latency"]
    noisy = contender(1, 10, false_alarms=4)  # 200 per 1,000 images
    assert decide(TRUTH, noisy, None, Latency(50.0), DEMANDS).promoted
    assert decide(TRUTH, noisy, None, Latency(50.0), Demands(max_false_alarms=199)).reasons == ["false alarms of none"]
    # without a budget and a champion, latency is not judged
    assert [c.name for c in decide(TRUTH, contender(1, 10), None, Latency(1e6), Demands()).conditions] == [
        "recall of none, at least"
    ]


TWO_SITES = replace(TRUTH, images=records(["gate"] * 10 + ["crane"] * 10))
# 10 helmets instead of 2, but none at the crane; equal recall of heads over all images
WORSE_AT_CRANE = Contender(
    detection_table(
        [*range(10), *range(12)],
        [BOXES[0]] * 10 + [BOXES[1]] * 12,
        [0] * 10 + [1] * 12,
        [0.9] * 22,
    ),
    {"helmet": 0.5, "none": 0.5},
)
BEST_AT_CRANE = Contender(
    detection_table(
        [*range(10, 12), *range(8), *range(10, 14)],
        [BOXES[0]] * 2 + [BOXES[1]] * 12,
        [0] * 2 + [1] * 12,
        [0.9] * 14,
    ),
    {"helmet": 0.5, "none": 0.5},
)


def test_decide_rejects_challenger_that_is_worse_in_one_domain():
    demands = Demands(margin=0.5, max_latency_ms=100.0)
    assert decide(TWO_SITES, WORSE_AT_CRANE, BEST_AT_CRANE, EQUAL, demands).promoted
    decision = decide(TWO_SITES, WORSE_AT_CRANE, BEST_AT_CRANE, EQUAL, replace(demands, max_domain_loss=0.0))
    # recall of heads at the crane falls from 4 to 2 of 10, the mean AP with it
    assert decision.reasons == ["crane: mAP@0.5", "crane: recall of none"]
    [recall] = [c for c in decision.conditions if c.name == "crane: recall of none"]
    assert (recall.champion, recall.challenger) == ("40.00 %", "20.00 %")
    assert recall.demand == "at most 0 points worse, got 20.00"
    tolerant = decide(TWO_SITES, WORSE_AT_CRANE, BEST_AT_CRANE, EQUAL, replace(demands, max_domain_loss=45.0))
    assert tolerant.promoted


def test_decide_judges_alarms_in_domain_without_objects():
    first = TRUTH.targets.images < 10
    truth = replace(TWO_SITES, targets=TRUTH.targets.select(first))

    def with_alarms(helmets, empty):
        one = contender(helmets, 8)
        alarms = [(i, (20.0, 20.0, 30.0, 30.0), 0, 0.6) for i in range(10, 10 + empty)]
        d = one.detections
        rows = [*zip(d.images.tolist(), d.boxes_xyxy.tolist(), d.labels.tolist(), d.scores.tolist(), strict=True), *alarms]
        return Contender(detection_table(*(list(c) for c in zip(*rows, strict=True))), one.thresholds)

    demands = Demands(max_latency_ms=100.0, max_domain_loss=10.0)
    assert decide(truth, with_alarms(9, 2), with_alarms(4, 1), EQUAL, demands).promoted
    decision = decide(truth, with_alarms(9, 3), with_alarms(4, 1), EQUAL, demands)
    assert decision.reasons == ["crane: images with an alarm"]
