"""All numbers of a report, from flat tables; numpy alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ppe_yolo.evaluation.decisions.operating_point import Choice, ClassCounts, Figures, Rule, choose, counts_of, figures_at
from ppe_yolo.evaluation.metrics.bootstrap import LEVEL, RESAMPLES, SEED, draw_again, interval, resampled_map
from ppe_yolo.evaluation.metrics.coco_ap import AREA_RANGES, CocoFigures, Judged, coco_average_precision, judge
from ppe_yolo.evaluation.metrics.matching import Ints, Outcome, TargetTable, match_at_half, target_table
from ppe_yolo.evaluation.metrics.mistakes import Calibration, calibration, confusion_matrix, strong_enough
from ppe_yolo.evaluation.metrics.voc_ap import LOWEST_SCORE, VocCurve, mean_average_precision, voc_average_precision, voc_judge
from ppe_yolo.evaluation.report.material import Material

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class OperatingPoint:
    """The thresholds that a report speaks of.

    Attributes:
        thresholds: Class name -> score.
        origin: Where they come from, in words.
        rules: Class name -> rule; empty where they were not chosen here.
        choices: Class name -> choice; empty where they were not chosen here.
    """

    thresholds: dict[str, float]
    origin: str
    rules: Mapping[str, Rule]
    choices: Mapping[str, Choice]


@dataclass(frozen=True)
class SplitFigures:
    """What was measured; lists have one entry a class."""

    targets: TargetTable
    outcome: Outcome
    coco: CocoFigures
    by_size: dict[str, CocoFigures]
    voc: list[VocCurve]
    map_50_interval: Interval
    map_interval: Interval
    voc_map_interval: Interval
    counts: list[ClassCounts]
    operating_point: OperatingPoint
    at_threshold: list[Figures]
    confusion: Ints
    calibrations: list[Calibration]


def measure(material: Material, rules: Mapping[str, Rule], thresholds: Mapping[str, float], origin: str) -> SplitFigures:
    """Measures a split.

    Args:
        material: The split.
        rules: Class name -> rule to choose its threshold by; empty: the given thresholds are used.
        thresholds: Class name -> score, where no rule chooses one or where none meets the rule.
        origin: Where the thresholds come from, in words.
    """
    names, detections, photos = material.class_names, material.detections, len(material.annotated)
    targets = target_table(material.annotated, names)
    samples = draw_again(photos)
    judged = judge(detections, targets, len(names))
    by_size = {size: coco_average_precision(detections, targets, len(names), area=size) for size in AREA_RANGES}
    outcome = match_at_half(detections, targets)
    counts = [counts_of(detections, targets, outcome, label) for label in range(len(names))]
    choices = {name: choose(rules[name], one, photos, samples) for name, one in zip(names, counts, strict=True) if rules}
    chosen = {name: c.threshold for name, c in choices.items() if c.threshold is not None}
    point = OperatingPoint({**thresholds, **chosen}, origin, rules, choices)
    strong = strong_enough(detections, names, point.thresholds)
    return SplitFigures(
        targets,
        outcome,
        by_size["all"],
        by_size,
        voc_average_precision(detections, targets, len(names)),
        interval(resampled_map([_at_half(one) for one in judged], samples, "coco")),
        interval(resampled_map(judged, samples, "coco")),
        interval(resampled_map(_voc_judged(material, targets), samples, "voc")),
        counts,
        point,
        [figures_at(one, point.thresholds[name], photos, samples) for name, one in zip(names, counts, strict=True)],
        confusion_matrix(detections, targets, strong, len(names)),
        [calibration(one.scores, one.hit) for one in counts],
    )


def _at_half(one: Judged) -> Judged:
    return Judged(one.photos, one.scores, one.hit[:1], one.false[:1], one.wanted)


def _voc_judged(material: Material, targets: TargetTable) -> list[Judged]:
    detections, hit, false = voc_judge(material.detections, targets)
    result = []
    for label in range(len(material.class_names)):
        own = detections.labels == label
        wanted = targets.photos[(targets.labels == label) & ~targets.difficult]
        result.append(Judged(detections.photos[own], detections.scores[own], hit[None, own], false[None, own], wanted))
    return result


def to_plain(material: Material, figures: SplitFigures) -> dict[str, Any]:
    """What report.json holds."""
    per_class: dict[str, Any] = {}
    for label, name in enumerate(material.class_names):
        voc, targets = figures.voc[label], figures.targets
        per_class[name] = {
            "objects": voc.objects,
            "difficult": int(((targets.labels == label) & targets.difficult).sum()),
            "detections": int((material.detections.labels == label).sum()),
            "coco_ap_50": _or_none(figures.coco.per_class[0, label]),
            "coco_ap": _or_none(figures.coco.per_class[:, label].mean()),
            "coco_ap_by_size": {
                size: _or_none(one.per_class[:, label].mean()) for size, one in figures.by_size.items() if size != "all"
            },
            "voc_ap": voc.average_precision,
            "voc_hits": voc.hits,
            "voc_false_alarms": voc.false_alarms,
            "threshold": figures.operating_point.thresholds[name],
            "at_threshold": asdict(figures.at_threshold[label]),
            "calibration_error": figures.calibrations[label].error,
        }
    return {
        "model": material.model,
        "checkpoint_blake2b": material.checkpoint_blake2b,
        "data": material.data,
        "split": material.split,
        "tiles": material.tiles,
        "images": len(material.annotated),
        "coco": {
            "map_50": figures.coco.mean(0),
            "map_50_interval": figures.map_50_interval,
            "map": figures.coco.mean(),
            "map_interval": figures.map_interval,
            "map_75": figures.coco.mean(5),
            "map_by_size": {size: one.mean() for size, one in figures.by_size.items() if size != "all"},
        },
        "voc": {
            "map": mean_average_precision(figures.voc),
            "map_interval": figures.voc_map_interval,
            "lowest_score": LOWEST_SCORE,
        },
        "thresholds_from": figures.operating_point.origin,
        "per_class": per_class,
        "confusion": {"classes": [*material.class_names, "background"], "annotated_by_found": figures.confusion.tolist()},
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "level": LEVEL},
    }


def operating_point_to_plain(material: Material, figures: SplitFigures) -> dict[str, Any]:
    """What operating_point.json holds."""
    classes: dict[str, Any] = {}
    for label, name in enumerate(material.class_names):
        choice, at = figures.operating_point.choices[name], figures.at_threshold[label]
        values: dict[str, Any] = {
            "rule": str(figures.operating_point.rules[name]),
            "threshold": choice.threshold,
            "threshold_interval": choice.threshold_interval,
            "rule_met_in_samples": choice.met_in_samples,
            "nearest_to_rule": choice.nearest,
        }
        if choice.threshold is not None:
            values |= asdict(at)
        classes[name] = values
    return {
        "model": material.model,
        "checkpoint_blake2b": material.checkpoint_blake2b,
        "data": material.data,
        "split": material.split,
        "tiles": material.tiles,
        "images": len(material.annotated),
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "level": LEVEL},
        "classes": classes,
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
