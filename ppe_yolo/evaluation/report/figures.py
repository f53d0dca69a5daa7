"""All numbers of a report, from flat tables; numpy alone."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from ppe_yolo.evaluation.data_sets import figures_by_domain
from ppe_yolo.evaluation.decisions.operating_point import OperatingPoint
from ppe_yolo.evaluation.files.metrics import number_or_none
from ppe_yolo.evaluation.metrics.bootstrap import LEVEL, RESAMPLES, SEED, interval, resample, resampled_map
from ppe_yolo.evaluation.metrics.coco_ap import (
    AREA_RANGES,
    AT_THREE_QUARTERS,
    CocoFigures,
    Judged,
    coco_average_precision,
    judge,
    judged_by_class,
)
from ppe_yolo.evaluation.metrics.domain_figures import DomainFigures
from ppe_yolo.evaluation.metrics.matching import Ints, Outcome
from ppe_yolo.evaluation.metrics.mistakes import (
    Calibration,
    FalseAlarm,
    above_threshold,
    calibration,
    confusion_matrix,
    false_alarms,
    misses,
)
from ppe_yolo.evaluation.metrics.voc_ap import LOWEST_SCORE, VocCurve, mean_average_precision, voc_average_precision, voc_judge
from ppe_yolo.evaluation.report.material import Material

SUSPECT_SCORE = 0.6  # from this score on, a detection contradicts the annotation with confidence
Interval = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """The figures of a split; lists have one entry per class, `by_domain` one per data set.

    `false_alarms` are sorted by score, `suspects` are those that contradict the annotation, `misses` are indices of objects,
    largest first. `by_domain` is empty if the evaluation did not record the input size (before 0.2).
    """

    coco: CocoFigures
    by_size: dict[str, CocoFigures]
    voc: list[VocCurve]
    map_50_interval: Interval
    map_interval: Interval
    voc_map_interval: Interval
    operating_point: OperatingPoint
    confusion: Ints
    calibrations: list[Calibration]
    false_alarms: list[FalseAlarm]
    suspects: list[FalseAlarm]
    misses: Ints
    by_domain: list[DomainFigures]


def measure(material: Material, outcome: Outcome, point: OperatingPoint) -> SplitFigures:
    """Measures a split.

    Args:
        material: The split.
        outcome: Its detections, matched with its objects.
        point: Its thresholds.
    """
    truth, detections = material.truth, material.detections
    names, targets = truth.class_names, truth.targets
    samples = resample(len(truth))
    judged = judge(detections, targets, len(names))
    at_half = [replace(one, hit=one.hit[:1], false=one.false[:1]) for one in judged]
    by_size = {
        size: coco_average_precision(detections, targets, len(names), area_range=area) for size, area in AREA_RANGES.items()
    }
    alarms = above_threshold(detections, names, point.thresholds)
    wrong = false_alarms(detections, targets, outcome, alarms, material.display_names)
    input_size = truth.info.input_size
    by_domain = []
    if input_size is not None:
        by_domain = figures_by_domain(
            material.domains, detections, targets, input_size=input_size, class_names=names, thresholds=point.thresholds
        )
    return SplitFigures(
        coco=by_size["all"],
        by_size=by_size,
        voc=voc_average_precision(detections, targets, len(names)),
        map_50_interval=interval(resampled_map(at_half, samples, "coco")),
        map_interval=interval(resampled_map(judged, samples, "coco")),
        voc_map_interval=interval(resampled_map(_voc_judged(material), samples, "voc")),
        operating_point=point,
        confusion=confusion_matrix(detections, targets, alarms, len(names)),
        calibrations=[calibration(one.scores, one.hit) for one in point.counts],
        false_alarms=wrong,
        suspects=[a for a in wrong if a.is_suspect and detections.scores[a.detection] >= SUSPECT_SCORE],
        misses=misses(targets, outcome, alarms),
        by_domain=by_domain,
    )


def _voc_judged(material: Material) -> list[Judged]:
    targets = material.truth.targets
    detections, hit, false = voc_judge(material.detections, targets)
    return judged_by_class(detections, hit[None], false[None], targets.select(~targets.difficult), len(material.class_names))


def to_plain(material: Material, figures: SplitFigures) -> dict[str, Any]:
    """The content of report.json."""
    info = material.truth.info
    per_class: dict[str, Any] = {}
    for label, name in enumerate(material.class_names):
        voc, targets = figures.voc[label], material.truth.targets
        per_class[name] = {
            "objects": voc.objects,
            "difficult": int(((targets.labels == label) & targets.difficult).sum()),
            "detections": int((material.detections.labels == label).sum()),
            "coco_ap_50": number_or_none(figures.coco.per_class[0, label]),
            "coco_ap": number_or_none(figures.coco.per_class[:, label].mean()),
            "coco_ap_by_size": {
                size: number_or_none(one.per_class[:, label].mean()) for size, one in figures.by_size.items() if size != "all"
            },
            "voc_ap": voc.average_precision,
            "voc_hits": voc.hits,
            "voc_false_alarms": voc.false_alarms,
            "threshold": figures.operating_point.thresholds[name],
            "at_threshold": asdict(figures.operating_point.figures[label]),
            "calibration_error": figures.calibrations[label].error,
        }
    return {
        "model": info.model,
        "checkpoint_blake2b": info.checkpoint_blake2b,
        "data": material.data,
        "split": info.split,
        "tiles": info.tiles,
        "images": len(material.truth),
        "coco": {
            "map_50": figures.coco.mean(0),
            "map_50_interval": figures.map_50_interval,
            "map": figures.coco.mean(),
            "map_interval": figures.map_interval,
            "map_75": figures.coco.mean(AT_THREE_QUARTERS),
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
        "domains": [figures_of.to_plain() for figures_of in figures.by_domain],
    }
