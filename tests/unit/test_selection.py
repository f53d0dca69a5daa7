"""The gate's decision, condition by condition, on photos whose figures are counted by hand."""

import numpy as np
import pytest

from ppe_yolo.evaluation.decisions.selection import Contender, Demands, Latency, Photos, decide
from ppe_yolo.evaluation.metrics.matching import TargetTable, detection_table

COUNT = 20
# each photo has one helmet (label 0) and one bare head (label 1), side by side
BOXES = {0: (0.0, 0.0, 10.0, 10.0), 1: (50.0, 0.0, 60.0, 10.0)}
PHOTOS = Photos(
    COUNT,
    TargetTable(
        np.repeat(np.arange(COUNT), 2),
        np.array([BOXES[0], BOXES[1]] * COUNT),
        np.tile([0, 1], COUNT),
        np.zeros(2 * COUNT, dtype=bool),
    ),
    ("helmet", "none"),
)
DEMANDS = Demands(min_recall=0.5, margin=0.5, max_latency_ms=100.0)
EQUAL = Latency(10.0, 10.0, 1.0)


def contender(helmets, heads, threshold=0.5, weak_heads=0, cries=0):
    """Finds that many of each with score 0.9, the first photos first, and more heads with score 0.2.

    The false alarms, one a photo, have a score of 0.6, so that each comes after all hits of its class.
    """
    rows = [(i, BOXES[0], 0, 0.9) for i in range(helmets)] + [(i, BOXES[1], 1, 0.9) for i in range(heads)]
    rows += [(heads + i, BOXES[1], 1, 0.2) for i in range(weak_heads)]
    rows += [(i, (20.0, 20.0, 30.0, 30.0), 1, 0.6) for i in range(cries)]
    table = detection_table(*(list(c) for c in zip(*rows, strict=True)))
    return Contender(table, {"helmet": 0.5, "none": threshold})


CHAMPION = contender(10, 12)
BETTER = contender(18, 12)


def average(helmets, heads):
    """COCO's mean AP of two classes without a false alarm: the part of the 101 recalls that is reached."""
    return (sum(r <= 5 * helmets for r in range(101)) + sum(r <= 5 * heads for r in range(101))) / 202


def test_better_in_everything_is_promoted():
    decision = decide(PHOTOS, BETTER, CHAMPION, EQUAL, DEMANDS)
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
        # 9 of 20 heads; the champion finds no more
        (contender(18, 9), contender(10, 9), EQUAL, DEMANDS, "recall of none, at least"),
        (contender(20, 11), CHAMPION, EQUAL, DEMANDS, "recall of none, not worse"),
        # all the same detections, but the alarm is set higher than the weak ones
        (contender(18, 10, 0.5, 2), contender(10, 10, 0.1, 2), EQUAL, DEMANDS, "recall of none, not worse"),
        # 40 of 202 are 19.8 points
        (BETTER, CHAMPION, EQUAL, Demands(margin=19.9, max_latency_ms=100.0), "mAP@0.5"),
        # one helmet more is 2.5 points, but it is in one photo, which a third of the samples leave out
        (contender(11, 12), CHAMPION, EQUAL, DEMANDS, "not by luck"),
        # more bare heads found, but at the price of crying wolf: 1.2 x 5 are 6, of none one more is luck
        (contender(18, 14, cries=7), contender(10, 12, cries=5), EQUAL, DEMANDS, "false alarms of none"),
        (contender(18, 14, cries=2), CHAMPION, EQUAL, DEMANDS, "false alarms of none"),
        # 3 in 20 photos are 150 in 1,000
        (
            contender(18, 14, cries=3),
            contender(10, 12, cries=5),
            EQUAL,
            Demands(max_latency_ms=100.0, max_false_alarms=149),
            "false alarms of none",
        ),
        (BETTER, CHAMPION, Latency(100.1, 100.1, 1.0), DEMANDS, "latency"),
        (BETTER, CHAMPION, Latency(12.1, 10.0, 1.21), Demands(), "latency"),
    ],
)
def test_each_condition_rejects_alone(challenger, champion, latency, demands, reason):
    decision = decide(PHOTOS, challenger, champion, latency, demands)
    assert not decision.promoted and decision.reasons == [reason]


def test_what_lies_on_the_line_is_good_enough():
    exactly = Demands(min_recall=12 / 20, margin=100 * 40 / 202, max_latency_ms=10.0)
    assert decide(PHOTOS, BETTER, CHAMPION, EQUAL, exactly).promoted
    assert decide(PHOTOS, BETTER, CHAMPION, Latency(12.0, 10.0, 1.2), Demands()).promoted
    assert decide(PHOTOS, contender(18, 12, cries=6), contender(10, 12, cries=5), EQUAL, DEMANDS).promoted
    assert decide(PHOTOS, contender(18, 12, cries=1), CHAMPION, EQUAL, DEMANDS).promoted
    budget = Demands(max_latency_ms=100.0, max_false_alarms=150)
    assert decide(PHOTOS, contender(18, 12, cries=3), CHAMPION, EQUAL, budget).promoted


def test_the_same_model_again_is_not_promoted():
    decision = decide(PHOTOS, CHAMPION, CHAMPION, EQUAL, DEMANDS)
    assert decision.reasons == ["mAP@0.5", "not by luck"]
    # nor where no margin is asked for: it is better in none of the samples
    assert decide(PHOTOS, CHAMPION, CHAMPION, EQUAL, Demands(margin=0.0)).reasons == ["not by luck"]


def test_the_share_of_samples_is_that_of_the_photo_that_makes_the_difference():
    # the 11th helmet decides; a photo is in a sample with 1 - (19/20)**20 = 0.6415, within 4 deviations of 1,000 draws
    decision = decide(PHOTOS, contender(11, 12), CHAMPION, EQUAL, DEMANDS)
    assert decision.numbers["better_in_samples"] == pytest.approx(1 - (19 / 20) ** 20, abs=4 * (0.2300 / 1000) ** 0.5)
    again = decide(PHOTOS, contender(11, 12), CHAMPION, EQUAL, DEMANDS)
    assert again.numbers == decision.numbers  # seeded


def test_the_first_one_meets_the_absolute_conditions_alone():
    first = decide(PHOTOS, contender(1, 10), None, Latency(50.0), DEMANDS)
    assert first.promoted and [c.name for c in first.conditions] == ["recall of none, at least", "latency"]
    assert first.numbers["champion"] is None
    assert decide(PHOTOS, contender(1, 9), None, Latency(50.0), DEMANDS).reasons == ["recall of none, at least"]
    assert decide(PHOTOS, contender(1, 10), None, Latency(101.0), DEMANDS).reasons == ["latency"]
    loud = contender(1, 10, cries=4)  # 200 on 1,000 photos
    assert decide(PHOTOS, loud, None, Latency(50.0), DEMANDS).promoted
    assert decide(PHOTOS, loud, None, Latency(50.0), Demands(max_false_alarms=199)).reasons == ["false alarms of none"]
    # without a budget and a champion there is nothing that latency could be held against
    assert [c.name for c in decide(PHOTOS, contender(1, 10), None, Latency(1e6), Demands()).conditions] == [
        "recall of none, at least"
    ]
