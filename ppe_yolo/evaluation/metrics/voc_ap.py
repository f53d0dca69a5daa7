"""Average precision as the Pascal VOC development kit defines it since 2010, by which the original's 76.40 % was measured.

A detection belongs to the object of its class with the highest IoU, free or taken. Boxes include their last pixel, so widths
are x2 - x1 + 1. A detection is a hit at IoU 0.5 or more if no detection with a higher score hit the same object. Detections of
difficult objects do not count. Average precision is the area under the interpolated precision, at every recall reached
(Everingham et al. 2015, section 4.2).
"""

from dataclasses import dataclass

import numpy as np

from ppe_yolo.evaluation.metrics.matching import DetectionTable, Flags, Floats, Ints, TargetTable, overlapping_pairs

LOWEST_SCORE = 0.3  # the original system dropped weaker detections
IOU_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class VocCurve:
    """One class by the VOC protocol.

    Attributes:
        average_precision: None if the split has no object of the class.
        precision: After each detection that counts, in falling order of score [D].
        recall: The same [D].
        hits: Detections of an object.
        false_alarms: Detections of nothing, or of an object that was already hit.
        objects: Objects that are not difficult.
    """

    average_precision: float | None
    precision: Floats
    recall: Floats
    hits: int
    false_alarms: int
    objects: int


def voc_judge(detections: DetectionTable, targets: TargetTable) -> tuple[DetectionTable, Flags, Flags]:
    """The detections from `LOWEST_SCORE` on, with a flag for each hit and each false alarm [D]."""
    detections = detections.select(detections.scores >= LOWEST_SCORE)
    pairs = overlapping_pairs(detections, targets, IOU_THRESHOLD, border=1.0)
    # by detection, then by falling IoU; of equal IoUs the first object
    order = np.lexsort((pairs.targets, -pairs.iou, pairs.detections))
    owner, first = np.unique(pairs.detections[order], return_index=True)
    target = np.full(len(detections), -1, dtype=np.int64)
    target[owner] = pairs.targets[order][first]
    difficult = np.append(targets.difficult, False)[target]
    hit = np.zeros(len(detections), dtype=bool)
    matched = np.nonzero((target >= 0) & ~difficult)[0]
    hit[matched[np.unique(target[matched], return_index=True)[1]]] = True
    return detections, hit, ~hit & ~difficult


def voc_average_precision(detections: DetectionTable, targets: TargetTable, num_classes: int) -> list[VocCurve]:
    """One curve per class."""
    detections, hit, false = voc_judge(detections, targets)
    curves = []
    for label in range(num_classes):
        counts = (detections.labels == label) & (hit | false)
        hits = np.cumsum(hit[counts])
        objects = int(((targets.labels == label) & ~targets.difficult).sum())
        precision, recall = hits / np.arange(1, len(hits) + 1), hits / max(objects, 1)
        average = area_under(hit[counts], false[counts], objects) if objects else None
        curves.append(
            VocCurve(
                average_precision=average,
                precision=precision,
                recall=recall,
                hits=int(hit[counts].sum()),
                false_alarms=int(false[counts].sum()),
                objects=objects,
            )
        )
    return curves


def area_under(hit: Flags | Ints, false: Flags | Ints, objects: float) -> float:
    """All-point average precision, from hits and false alarms [D] in falling order of score."""
    cuts = np.nonzero(hit)[0]
    gained = hit[cuts].astype(np.float64)
    hits = np.cumsum(gained)
    precision = hits / (hits + np.cumsum(false, dtype=np.float64)[cuts])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((gained * envelope).sum() / objects)


def mean_average_precision(curves: list[VocCurve]) -> float | None:
    """Mean over the classes that have objects."""
    values = [c.average_precision for c in curves if c.average_precision is not None]
    return float(np.mean(values)) if values else None
