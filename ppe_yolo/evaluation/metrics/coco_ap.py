"""Average precision as COCO defines it: 101 recalls, ten overlaps, four ranges of object size; numpy alone.

The same figures as pycocotools', from flat tables. A `difficult` object counts as a crowd: not finding it is no miss, and
finding it (overlap measured against the detection's own area) is no false alarm.
"""

from dataclasses import dataclass

import numpy as np

from ppe_yolo.evaluation.metrics.matching import (
    IOU_THRESHOLDS,
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

RECALLS = np.linspace(0.0, 1.0, 101)
# square pixels of the photo
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True)
class CocoFigures:
    """Average precision of each class at each overlap; NaN where the split has no object of the class (and size).

    Attributes:
        precision: Precision at each of 101 recalls [T, 101, C].
        recall: Highest recall reached [T, C].
        objects: Objects that are asked for [C].
    """

    precision: Floats
    recall: Floats
    objects: Ints

    @property
    def per_class(self) -> Floats:
        """[T, C]."""
        return np.asarray(self.precision.mean(axis=1))

    def mean(self, threshold: int | None = None) -> float | None:
        """Mean over classes that have objects, at one of the overlaps or over all; None where no class has any."""
        values = self.per_class if threshold is None else self.per_class[threshold]
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if defined.size else None


@dataclass(frozen=True)
class Judged:
    """Detections of one class in falling order of score, and what each is at each overlap.

    Attributes:
        photos: [D].
        scores: [D].
        hit: Finds an object that is asked for [T, D].
        false: Finds nothing [T, D]; neither: it does not count.
        wanted: Photo of each object that is asked for [N].
    """

    photos: Ints
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
    area: str = "all",
    max_detections: int | None = None,
) -> list[Judged]:
    """Matches as COCO does.

    Args:
        detections: The detections.
        targets: The objects.
        num_classes: How many classes there are.
        iou_thresholds: [T].
        area: One of AREA_RANGES; objects of other sizes, and unmatched detections of other sizes, do not count.
        max_detections: The strongest of a photo and class that count; all when None.

    Returns:
        One a class.
    """
    competing = detections.photos * num_classes + detections.labels
    if max_detections is not None:
        chosen = rank_in_group(competing) < max_detections
        detections, competing = detections.select(chosen), competing[chosen]
    low, high = AREA_RANGES[area]
    sizes, own = areas(targets.boxes_xyxy), areas(detections.boxes_xyxy)
    ignored = targets.difficult | (sizes < low) | (sizes > high)
    pairs = overlapping_pairs(detections, targets, float(iou_thresholds.min()) - 1e-10, crowds=True)
    target = match_greedily(pairs, competing, iou_thresholds, ignored=ignored, shared=targets.difficult)
    hit = (target >= 0) & ~np.append(ignored, False)[target]
    false = (target < 0) & ((own >= low) & (own <= high))
    result = []
    for label in range(num_classes):
        of_class = detections.labels == label
        wanted = targets.photos[(targets.labels == label) & ~ignored]
        result.append(
            Judged(detections.photos[of_class], detections.scores[of_class], hit[:, of_class], false[:, of_class], wanted)
        )
    return result


def coco_average_precision(
    detections: DetectionTable,
    targets: TargetTable,
    num_classes: int,
    *,
    iou_thresholds: Floats = IOU_THRESHOLDS,
    area: str = "all",
    max_detections: int | None = None,
) -> CocoFigures:
    """See `judge`."""
    judged = judge(detections, targets, num_classes, iou_thresholds=iou_thresholds, area=area, max_detections=max_detections)
    precision = np.full((len(iou_thresholds), len(RECALLS), num_classes), np.nan)
    recall = np.full((len(iou_thresholds), num_classes), np.nan)
    for label, one in enumerate(judged):
        if len(one.wanted):
            for t, (hit, false) in enumerate(zip(one.hit, one.false, strict=True)):
                precision[t, :, label] = precision_at_recalls(hit, false, len(one.wanted))
                recall[t, label] = hit.sum() / len(one.wanted)
    return CocoFigures(precision, recall, np.array([len(one.wanted) for one in judged]))


def precision_at_recalls(hit: Flags | Ints, false: Flags | Ints, objects: float) -> Floats:
    """Precision at 101 recalls, made to fall: hits and false alarms [D] in falling order of score, counted once or more."""
    places = np.nonzero(hit)[0]  # between two hits precision only falls: they alone matter
    hits = np.cumsum(hit[places], dtype=np.float64)
    precision = hits / (hits + np.cumsum(false, dtype=np.float64)[places])
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return np.asarray(envelope[np.searchsorted(hits / objects, RECALLS, "left")])
