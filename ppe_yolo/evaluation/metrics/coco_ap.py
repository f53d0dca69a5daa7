"""Average precision as COCO defines it: 101 recalls, ten IoU thresholds, four ranges of object size; numpy alone.

`evaluate`, `report` and `promote` use this engine. Tests hold it equal to pycocotools and to torchmetrics, which training uses.
A `difficult` object counts as a crowd: missing it is no miss, and detecting it (overlap divided by the detection's own area)
is no false alarm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppe_yolo.evaluation.metrics.matching import (
    DetectionTable,
    Flags,
    Floats,
    Ints,
    TargetTable,
    areas,
    match_greedily,
    overlapping_pairs,
    rank_in_group,
)

# COCO's parameters, for all engines
RECALLS = np.linspace(0.0, 1.0, 101)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AT_HALF = IOU_THRESHOLDS[:1]  # IoU 0.5
AT_THREE_QUARTERS = 5  # index of IoU 0.75
# square pixels of the image
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and score at each of 101 recalls at IoU 0.5; both are 0 beyond the highest recall reached."""

    precision: Floats
    scores: Floats


@dataclass(frozen=True)
class CocoFigures:
    """Average precision of each class at each IoU threshold; NaN where the split has no object of the class (and size).

    Attributes:
        precision: Precision at each of 101 recalls [T, 101, C].
        recall: Highest recall reached [T, C].
        objects: Objects that count [C].
    """

    precision: Floats
    recall: Floats
    objects: Ints

    @property
    def per_class(self) -> Floats:
        """[T, C]."""
        return np.asarray(self.precision.mean(axis=1))

    def mean(self, threshold: int | None = None) -> float | None:
        """Mean over the classes that have objects, at one IoU threshold (its index) or over all; None without objects."""
        values = self.per_class if threshold is None else self.per_class[threshold]
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if defined.size else None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Detections of one class in falling order of score, judged at each IoU threshold.

    Attributes:
        images: Image of each detection [D].
        scores: [D].
        hit: Whether a detection is matched to an object that counts [T, D].
        false: Takes nothing [T, D]; a detection that is neither does not count.
        wanted: Image of each object that counts [N].
    """

    images: Ints
    scores: Floats
    hit: Flags
    false: Flags
    wanted: Ints


def judge(
    detections: DetectionTable,
    targets: TargetTable,
    num_classes: int,
    *,
    iou_thresholds: Floats = IOU_THRESHOLDS,
    area_range: tuple[float, float] = AREA_RANGES["all"],
    max_detections: int | None = None,
) -> list[Judged]:
    """Matches as COCO does.

    Args:
        detections: The detections.
        targets: The objects.
        num_classes: Number of classes.
        iou_thresholds: [T].
        area_range: (low, high), square pixels. Objects of other sizes, and unmatched detections of other sizes, do not count.
        max_detections: Only this many detections of an image and class count, highest scores first; all if None.

    Returns:
        One entry per class.
    """
    competing = detections.images * num_classes + detections.labels
    if max_detections is not None:
        chosen = rank_in_group(competing) < max_detections
        detections, competing = detections.select(chosen), competing[chosen]
    low, high = area_range
    sizes, own = areas(targets.boxes_xyxy), areas(detections.boxes_xyxy)
    ignored = targets.difficult | (sizes < low) | (sizes > high)
    pairs = overlapping_pairs(detections, targets, float(iou_thresholds.min()) - 1e-10, crowds=True)
    target = match_greedily(pairs, competing, iou_thresholds, ignored=ignored, shared=targets.difficult)
    hit = (target >= 0) & ~np.append(ignored, False)[target]
    false = (target < 0) & ((own >= low) & (own <= high))
    return judged_by_class(detections, hit, false, targets.select(~ignored), num_classes)


def judged_by_class(
    detections: DetectionTable, hit: Flags, false: Flags, wanted: TargetTable, num_classes: int
) -> list[Judged]:
    """Divides judged detections by class.

    Args:
        detections: The detections.
        hit: Whether a detection is matched to an object that counts [T, D].
        false: Whether it is matched to no object [T, D].
        wanted: The objects that count.
        num_classes: Number of classes.
    """
    result = []
    for label in range(num_classes):
        of_class = detections.labels == label
        result.append(
            Judged(
                images=detections.images[of_class],
                scores=detections.scores[of_class],
                hit=hit[:, of_class],
                false=false[:, of_class],
                wanted=wanted.images[wanted.labels == label],
            )
        )
    return result


def coco_average_precision(
    detections: DetectionTable,
    targets: TargetTable,
    num_classes: int,
    *,
    iou_thresholds: Floats = IOU_THRESHOLDS,
    area_range: tuple[float, float] = AREA_RANGES["all"],
    max_detections: int | None = None,
) -> CocoFigures:
    """Average precision of a split; see `judge` for the arguments."""
    return coco_figures(
        judge(
            detections,
            targets,
            num_classes,
            iou_thresholds=iou_thresholds,
            area_range=area_range,
            max_detections=max_detections,
        )
    )


def coco_figures(judged: Sequence[Judged]) -> CocoFigures:
    """Average precision from judged detections, one entry per class."""
    thresholds = len(judged[0].hit)
    precision = np.full((thresholds, len(RECALLS), len(judged)), np.nan)
    recall = np.full((thresholds, len(judged)), np.nan)
    for label, one in enumerate(judged):
        if len(one.wanted):
            for t, (hit, false) in enumerate(zip(one.hit, one.false, strict=True)):
                precision[t, :, label] = precision_at_recalls(hit, false, len(one.wanted))
                recall[t, label] = hit.sum() / len(one.wanted)
    return CocoFigures(precision, recall, np.array([len(one.wanted) for one in judged]))


def precision_at_recalls(hit: Flags | Ints, false: Flags | Ints, objects: float) -> Floats:
    """Interpolated precision at 101 recalls, from hits and false alarms [D] in falling order of score."""
    cuts = np.nonzero(hit)[0]  # between two hits precision only falls, so only hits matter
    hits = np.cumsum(hit[cuts], dtype=np.float64)
    precision = hits / (hits + np.cumsum(false, dtype=np.float64)[cuts])
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return np.asarray(envelope[np.searchsorted(hits / objects, RECALLS, "left")])


def precision_recall_curve(judged: Judged) -> PrecisionRecallCurve | None:
    """The curve of one class at IoU 0.5; None if the split has no object of the class."""
    if not len(judged.wanted):
        return None
    hit = judged.hit[0]
    hits = np.cumsum(hit[hit], dtype=np.float64)
    scores = np.append(judged.scores[hit], 0.0)[np.searchsorted(hits / len(judged.wanted), RECALLS, "left")]
    return PrecisionRecallCurve(precision_at_recalls(hit, judged.false[0], len(judged.wanted)), np.asarray(scores))
