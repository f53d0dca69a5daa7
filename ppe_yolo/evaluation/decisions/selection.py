"""Which of two detectors ships: the decision from two evaluations on the same photos. Pure; numpy alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppe_yolo.evaluation.decisions.operating_point import Figures, counts_of, figures_at
from ppe_yolo.evaluation.metrics.bootstrap import RESAMPLES, SEED, draw_again, resampled_map
from ppe_yolo.evaluation.metrics.coco_ap import coco_average_precision, judge
from ppe_yolo.evaluation.metrics.matching import DetectionTable, TargetTable, match_at_half

AT_HALF = np.array([0.5])
SURE = 0.95  # part of the samples in which a challenger must have the higher mAP@0.5
SLOWER = 1.2  # times the champion's latency, where no budget is given
LOUDER = 1.2  # times the champion's false alarms, where no budget is given; or one alarm more, which may be luck
_ROUNDING = 1e-9  # a gain of exactly the margin is enough


@dataclass(frozen=True)
class Photos:
    """The photos that both detectors were measured on.

    Attributes:
        count: How many.
        targets: Their objects.
        class_names: Names of the labels.
    """

    count: int
    targets: TargetTable
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Contender:
    """A detector and what it found in those photos.

    Attributes:
        detections: What it found.
        thresholds: Class name -> score from which a detection is an alarm.
    """

    detections: DetectionTable
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class Latency:
    """Medians of one frame, timed here by turns.

    Attributes:
        challenger_ms: Of the challenger.
        champion_ms: Of the champion; None where there is none.
        ratio: Challenger's through champion's, median over the rounds; None where there is no champion.
    """

    challenger_ms: float
    champion_ms: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Demands:
    """What a challenger must meet.

    Attributes:
        critical_class: Whose recall must not fall.
        min_recall: Least recall of that class at the alarm threshold, champion or not.
        margin: Points of mAP@0.5 that a challenger must gain.
        max_latency_ms: Budget of a frame. None: a challenger may take `SLOWER` times what the champion takes, and without a
            champion latency does not decide.
        max_false_alarms: Budget of false alarms of the critical class on 1,000 photos. None: a challenger may give `LOUDER`
            times what the champion gives, or one more, and without a champion false alarms do not decide.
    """

    critical_class: str = "none"
    min_recall: float = 0.5
    margin: float = 0.5
    max_latency_ms: float | None = None
    max_false_alarms: float | None = None


@dataclass(frozen=True)
class Condition:
    """One line of the decision, in words, and whether it holds."""

    name: str
    champion: str
    challenger: str
    demand: str
    holds: bool


@dataclass(frozen=True)
class Decision:
    """Conditions and the numbers behind them; the challenger is promoted when all conditions hold."""

    conditions: tuple[Condition, ...]
    numbers: dict[str, Any]

    @property
    def promoted(self) -> bool:
        """Whether the challenger takes the champion's place."""
        return all(c.holds for c in self.conditions)

    @property
    def reasons(self) -> list[str]:
        """Names of the conditions that do not hold."""
        return [c.name for c in self.conditions if not c.holds]


def decide(photos: Photos, challenger: Contender, champion: Contender | None, latency: Latency, demands: Demands) -> Decision:
    """The gate.

    Without a champion the absolute conditions alone decide: recall of the critical class, and false alarms and latency where
    there is a budget. With one, these as well, and: recall of the critical class, each at its own alarm threshold, not lower,
    and not bought with false alarms; mAP@0.5 (COCO) higher by the margin; and higher in at least 95 % of 1,000 samples of the
    photos, drawn again with replacement, the same samples for both (a paired bootstrap, one-sided).

    Args:
        photos: With at least one object of the critical class that is not difficult.
        challenger: Who wants to be champion.
        champion: Who is, or None.
        latency: What they take.
        demands: What is asked for.
    """
    label = photos.class_names.index(demands.critical_class)
    new_at, new_map = _at_threshold(photos, challenger, label), _map_50(photos, challenger)
    new_recall = _defined(new_at.recall)
    numbers: dict[str, Any] = {
        "challenger": {"map_50": new_map, **_plain(new_at), "latency_ms": latency.challenger_ms},
        "champion": None,
    }
    absolute = Condition(
        f"recall of {demands.critical_class}, at least",
        "",
        _percent(new_recall),
        f">= {_percent(demands.min_recall)}",
        new_recall >= demands.min_recall,
    )
    if champion is None:
        conditions = (absolute, *_false_alarm_conditions(new_at, None, demands), *_latency_conditions(latency, demands))
        return Decision(conditions, numbers)
    old_at, old_map = _at_threshold(photos, champion, label), _map_50(photos, champion)
    old_recall, gain = _defined(old_at.recall), 100 * (new_map - old_map)
    better = _part_better(photos, challenger, champion)
    numbers["champion"] = {"map_50": old_map, **_plain(old_at), "latency_ms": latency.champion_ms}
    numbers |= {
        "map_50_gain_points": gain,
        "better_in_samples": better,
        "samples": RESAMPLES,
        "seed": SEED,
        "latency_ratio": latency.ratio,
    }
    conditions = (
        absolute,
        Condition(
            f"recall of {demands.critical_class}, not worse",
            _percent(old_recall),
            _percent(new_recall),
            ">= the champion's",
            new_recall >= old_recall,
        ),
        *_false_alarm_conditions(new_at, old_at, demands),
        Condition(
            "mAP@0.5",
            _percent(old_map),
            _percent(new_map),
            f"{demands.margin:+g} points, got {gain:+.2f}",
            gain >= demands.margin - _ROUNDING,
        ),
        Condition(
            "not by luck",
            "",
            f"better in {_percent(better)}",
            f">= {100 * SURE:g} % of {RESAMPLES:,} samples of the photos",
            better >= SURE,
        ),
        *_latency_conditions(latency, demands),
    )
    return Decision(conditions, numbers)


def _at_threshold(photos: Photos, contender: Contender, label: int) -> Figures:
    outcome = match_at_half(contender.detections, photos.targets)
    counts = counts_of(contender.detections, photos.targets, outcome, label)
    return figures_at(counts, contender.thresholds[photos.class_names[label]], photos.count)


def _map_50(photos: Photos, contender: Contender) -> float:
    classes = len(photos.class_names)
    return _defined(coco_average_precision(contender.detections, photos.targets, classes, iou_thresholds=AT_HALF).mean())


def _part_better(photos: Photos, challenger: Contender, champion: Contender) -> float:
    """Part of the samples in which the challenger's mAP@0.5 is the higher one; a sample without objects speaks against it."""
    samples = draw_again(photos.count)
    new, old = (
        resampled_map(judge(c.detections, photos.targets, len(photos.class_names), iou_thresholds=AT_HALF), samples, "coco")
        for c in (challenger, champion)
    )
    # equal figures may differ in their last digit
    return float((new - old > _ROUNDING).mean())


def _false_alarm_conditions(new: Figures, old: Figures | None, demands: Demands) -> list[Condition]:
    """One, or none where there is nothing to compare with."""
    name = f"false alarms of {demands.critical_class}"
    champion = "" if old is None else f"{old.false_alarms_per_1000:.1f} on 1,000"
    challenger = f"{new.false_alarms_per_1000:.1f} on 1,000"
    if demands.max_false_alarms is not None:
        budget = demands.max_false_alarms
        return [Condition(name, champion, challenger, f"<= {budget:g}", new.false_alarms_per_1000 <= budget)]
    if old is None:
        return []
    demand = f"<= {LOUDER:g} x the champion's, got {new.false_alarms} : {old.false_alarms}"
    holds = new.false_alarms <= max(LOUDER * old.false_alarms + _ROUNDING, old.false_alarms + 1)
    return [Condition(name, champion, challenger, demand, holds)]


def _latency_conditions(latency: Latency, demands: Demands) -> list[Condition]:
    """One, or none where there is nothing to compare with."""
    champion = "" if latency.champion_ms is None else f"{latency.champion_ms:.2f} ms"
    challenger = f"{latency.challenger_ms:.2f} ms"
    if demands.max_latency_ms is not None:
        budget = demands.max_latency_ms
        return [Condition("latency", champion, challenger, f"<= {budget:g} ms", latency.challenger_ms <= budget)]
    if latency.ratio is None:
        return []
    demand = f"<= {SLOWER:g} x the champion's, got {latency.ratio:.2f}"
    return [Condition("latency", champion, challenger, demand, latency.ratio <= SLOWER)]


def _plain(at: Figures) -> dict[str, Any]:
    return {
        "recall": at.recall,
        "precision": at.precision,
        "false_alarms_per_1000": at.false_alarms_per_1000,
        "objects": at.objects,
    }


def _defined(value: float | None) -> float:
    assert value is not None, "there are objects"
    return value


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
