"""Whether a detector replaces the current one: the decision from two evaluations on the same images. Pure; numpy alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppe_yolo.evaluation.decisions.threshold import Figures, counts_of, figures_at
from ppe_yolo.evaluation.ground_truth import GroundTruth
from ppe_yolo.evaluation.metrics.bootstrap import RESAMPLES, SEED, resample, resampled_map
from ppe_yolo.evaluation.metrics.coco_ap import AT_HALF, coco_average_precision, judge
from ppe_yolo.evaluation.metrics.matching import DetectionTable, TargetTable, match
from ppe_yolo.evaluation.metrics.mistakes import above_threshold
from ppe_yolo.evaluation.percent import percent

CERTAINTY = 0.95  # share of the samples in which a challenger must have the higher mAP@0.5
MAX_SLOWDOWN = 1.2  # times the champion's latency, without a budget
MAX_FALSE_ALARM_RATIO = 1.2  # times the champion's false alarms, without a budget; one alarm more may be chance, and is allowed
_ROUNDING = 1e-9  # a gain of exactly the margin is enough
_ALARMS = "images with an alarm"


@dataclass(frozen=True)
class Contender:
    """A detector and its detections in the images.

    Attributes:
        detections: Its detections.
        thresholds: Class name -> score from which a detection is an alarm.
    """

    detections: DetectionTable
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class Latency:
    """Median time of one frame, measured on this machine with both models in turn.

    Attributes:
        challenger_ms: The challenger's.
        champion_ms: The champion's; None without one.
        ratio: Challenger's divided by champion's, median over the rounds; None without a champion.
    """

    challenger_ms: float
    champion_ms: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a challenger must meet.

    Attributes:
        critical_class: The class whose recall must not fall.
        min_recall: Lowest recall of that class at the alarm threshold, with or without a champion.
        margin: Points of mAP@0.5 that a challenger must gain.
        max_latency_ms: Budget of a frame. None: `MAX_SLOWDOWN` times the champion's; without a champion, latency is not judged.
        max_false_alarms: Budget of false alarms of the critical class per 1,000 images. None: `MAX_FALSE_ALARM_RATIO` times the
            champion's, or one more; without a champion, false alarms are not judged.
        max_domain_loss: Points that a challenger may lose in any single domain, in mAP@0.5 and in recall of the critical class;
            where a domain has no object at all, points by which the share of images with an alarm may rise. 0: no domain may
            get worse. None: domains are not judged one by one.
    """

    critical_class: str = "none"
    min_recall: float = 0.5
    margin: float = 0.5
    max_latency_ms: float | None = None
    max_false_alarms: float | None = None
    max_domain_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One line of the decision, in words, and whether it holds."""

    name: str
    champion: str = ""
    challenger: str
    demand: str
    holds: bool


@dataclass(frozen=True)
class Decision:
    """The conditions and the numbers behind them; the challenger is promoted if all conditions hold."""

    conditions: tuple[Condition, ...]
    numbers: dict[str, Any]

    @property
    def promoted(self) -> bool:
        """Whether the challenger replaces the champion."""
        return all(c.holds for c in self.conditions)

    @property
    def reasons(self) -> list[str]:
        """Names of the conditions that do not hold."""
        return [c.name for c in self.conditions if not c.holds]


def decide(
    truth: GroundTruth, challenger: Contender, champion: Contender | None, latency: Latency, demands: Demands
) -> Decision:
    """Decides whether a challenger becomes the champion.

    Without a champion, only the absolute conditions count: recall of the critical class, and false alarms and latency if they
    have a budget. With a champion, the challenger must also meet these:

    - Recall of the critical class, each at its own alarm threshold, is not lower, and not bought with false alarms.
    - mAP@0.5 (COCO) is higher by the margin, and higher in at least 95 % of 1,000 samples of the images, drawn with
      replacement, the same samples for both (a paired bootstrap, one-sided).
    - If asked for, no domain gets worse.

    Args:
        truth: The images, with at least one object of the critical class that is not difficult.
        challenger: The detector that may become the champion.
        champion: The current one, or None.
        latency: Their times.
        demands: The conditions.
    """
    label = truth.class_names.index(demands.critical_class)
    new_at, new_map = _at_threshold(truth, challenger, label), _map_50(truth, challenger)
    numbers: dict[str, Any] = {
        "challenger": {"map_50": new_map, **_plain(new_at), "latency_ms": latency.challenger_ms},
        "champion": None,
    }
    conditions = [_recall_condition(new_at, demands)]
    if champion is None:
        conditions += _false_alarm_conditions(new_at, None, demands)
    else:
        old_at, old_map = _at_threshold(truth, champion, label), _map_50(truth, champion)
        better = _share_better(truth, challenger, champion)
        numbers["champion"] = {"map_50": old_map, **_plain(old_at), "latency_ms": latency.champion_ms}
        numbers |= {
            "map_50_gain_points": 100 * (new_map - old_map),
            "better_in_samples": better,
            "samples": RESAMPLES,
            "seed": SEED,
            "latency_ratio": latency.ratio,
        }
        conditions += [
            _recall_not_worse(new_at, old_at, demands),
            *_false_alarm_conditions(new_at, old_at, demands),
            *_map_conditions(new_map, old_map, better, demands),
            *_domain_conditions(truth, challenger, champion, demands),
        ]
    return Decision((*conditions, *_latency_conditions(latency, demands)), numbers)


def _recall_condition(new: Figures, demands: Demands) -> Condition:
    return Condition(
        name=f"recall of {demands.critical_class}, at least",
        challenger=percent(new.recall or 0.0, 2),
        demand=f">= {percent(demands.min_recall, 2)}",
        holds=(new.recall or 0.0) >= demands.min_recall,
    )


def _recall_not_worse(new: Figures, old: Figures, demands: Demands) -> Condition:
    return Condition(
        name=f"recall of {demands.critical_class}, not worse",
        champion=percent(old.recall or 0.0, 2),
        challenger=percent(new.recall or 0.0, 2),
        demand=">= the champion's",
        holds=(new.recall or 0.0) >= (old.recall or 0.0),
    )


def _map_conditions(new: float, old: float, better: float, demands: Demands) -> list[Condition]:
    """Better by the margin, and in almost all samples; `better` is the share of samples."""
    gain = 100 * (new - old)
    return [
        Condition(
            name="mAP@0.5",
            champion=percent(old, 2),
            challenger=percent(new, 2),
            demand=f"{demands.margin:+g} points, got {gain:+.2f}",
            holds=gain >= demands.margin - _ROUNDING,
        ),
        Condition(
            name="not by luck",
            challenger=f"better in {percent(better, 2)}",
            demand=f">= {100 * CERTAINTY:g} % of {RESAMPLES:,} samples of the images",
            holds=better >= CERTAINTY,
        ),
    ]


def _at_threshold(truth: GroundTruth, contender: Contender, label: int) -> Figures:
    outcome = match(contender.detections, truth.targets)
    counts = counts_of(contender.detections, truth.targets, outcome, label)
    return figures_at(counts, contender.thresholds[truth.class_names[label]], len(truth))


def _map_50(truth: GroundTruth, contender: Contender) -> float:
    classes = len(truth.class_names)
    return coco_average_precision(contender.detections, truth.targets, classes, iou_thresholds=AT_HALF).mean() or 0.0


def _share_better(truth: GroundTruth, challenger: Contender, champion: Contender) -> float:
    """Share of the samples in which the challenger's mAP@0.5 is higher; a sample without objects counts against it."""
    samples = resample(len(truth))
    new, old = (
        resampled_map(judge(c.detections, truth.targets, len(truth.class_names), iou_thresholds=AT_HALF), samples, "coco")
        for c in (challenger, champion)
    )
    # equal figures may differ in their last digit
    return float((new - old > _ROUNDING).mean())


def _domain_conditions(truth: GroundTruth, challenger: Contender, champion: Contender, demands: Demands) -> list[Condition]:
    """One or two per domain; none unless they are asked for."""
    if demands.max_domain_loss is None:
        return []
    label = truth.class_names.index(demands.critical_class)
    conditions = []
    for number, domain in enumerate(truth.domains):
        images = np.nonzero(truth.domain_of == number)[0]
        targets = truth.targets.select(np.isin(truth.targets.images, images))
        new, old = (_domain_figures(truth, c, targets, images, label, demands.critical_class) for c in (challenger, champion))
        for what, value in new.items():
            loss = 100 * (old[what] - value) * (-1 if what == _ALARMS else 1)
            conditions.append(
                Condition(
                    name=f"{domain or 'all images'}: {what}",
                    champion=percent(old[what], 2),
                    challenger=percent(value, 2),
                    demand=f"at most {demands.max_domain_loss:g} points worse, got {max(loss, 0.0):.2f}",
                    holds=loss <= demands.max_domain_loss + _ROUNDING,
                )
            )
    return conditions


def _domain_figures(
    truth: GroundTruth, contender: Contender, targets: TargetTable, images: Any, label: int, critical_class: str
) -> dict[str, float]:
    """The figures of one domain that must not get worse, 0 to 1."""
    detections = contender.detections.select(np.isin(contender.detections.images, images))
    if not len(targets):
        # a class without a threshold raises no alarm
        thresholds = {name: contender.thresholds.get(name, np.inf) for name in truth.class_names}
        alarms = above_threshold(detections, truth.class_names, thresholds)
        return {_ALARMS: len(np.unique(detections.images[alarms])) / len(images)}
    figures = {}
    average = coco_average_precision(detections, targets, len(truth.class_names), iou_thresholds=AT_HALF).mean()
    if average is not None:
        figures["mAP@0.5"] = average
    counts = counts_of(detections, targets, match(detections, targets), label)
    recall = figures_at(counts, contender.thresholds[critical_class], len(images)).recall
    if recall is not None:
        figures[f"recall of {critical_class}"] = recall
    return figures


def _false_alarm_conditions(new: Figures, old: Figures | None, demands: Demands) -> list[Condition]:
    """One, or none without a budget and a champion."""
    name = f"false alarms of {demands.critical_class}"
    champion = "" if old is None else f"{old.false_alarms_per_1000:.1f} per 1,000"
    challenger = f"{new.false_alarms_per_1000:.1f} per 1,000"
    if demands.max_false_alarms is not None:
        demand, holds = f"<= {demands.max_false_alarms:g}", new.false_alarms_per_1000 <= demands.max_false_alarms
    elif old is None:
        return []
    else:
        demand = f"<= {MAX_FALSE_ALARM_RATIO:g} x the champion's, got {new.false_alarms} : {old.false_alarms}"
        allowed = max(MAX_FALSE_ALARM_RATIO * old.false_alarms + _ROUNDING, old.false_alarms + 1)
        holds = new.false_alarms <= allowed
    return [Condition(name=name, champion=champion, challenger=challenger, demand=demand, holds=holds)]


def _latency_conditions(latency: Latency, demands: Demands) -> list[Condition]:
    """One, or none without a budget and a champion."""
    champion = "" if latency.champion_ms is None else f"{latency.champion_ms:.2f} ms"
    challenger = f"{latency.challenger_ms:.2f} ms"
    if demands.max_latency_ms is not None:
        demand, holds = f"<= {demands.max_latency_ms:g} ms", latency.challenger_ms <= demands.max_latency_ms
    elif latency.ratio is None:
        return []
    else:
        demand, holds = f"<= {MAX_SLOWDOWN:g} x the champion's, got {latency.ratio:.2f}", latency.ratio <= MAX_SLOWDOWN
    return [Condition(name="latency", champion=champion, challenger=challenger, demand=demand, holds=holds)]


def _plain(at: Figures) -> dict[str, Any]:
    return {
        "recall": at.recall,
        "precision": at.precision,
        "false_alarms_per_1000": at.false_alarms_per_1000,
        "objects": at.objects,
    }
