"""What a detector gets wrong, object by object: false alarms, misses, confusions, scores that promise too much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppe_yolo.evaluation.metrics.matching import (
    DetectionTable,
    Flags,
    Floats,
    Ints,
    Outcome,
    TargetTable,
    areas,
    match_at_half,
    overlapping_pairs,
)

NEAR = 0.1  # overlap from which a false alarm is taken for a bad box of an object
BINS = 10


@dataclass(frozen=True)
class FalseAlarm:
    """A detection that finds no object: its number, and what it is, in words."""

    detection: int
    kind: str
    is_suspect: bool  # it may be the annotation that is wrong


def strong_enough(detections: DetectionTable, class_names: Sequence[str], thresholds: Mapping[str, float]) -> Flags:
    """Which detections reach the threshold of their class."""
    limits = np.array([thresholds[name] for name in class_names])
    return np.asarray(detections.scores >= limits[detections.labels])


def false_alarms(
    detections: DetectionTable, targets: TargetTable, outcome: Outcome, strong: Flags, class_names: Sequence[str]
) -> list[FalseAlarm]:
    """The false alarms among strong detections, the most certain first."""
    pairs = overlapping_pairs(detections, targets, NEAR, any_class=True)
    order = np.lexsort((-pairs.iou, pairs.detections))
    owners, starts = np.unique(pairs.detections[order], return_index=True)
    of = dict(zip(owners.tolist(), np.split(order, starts[1:]), strict=True)) if len(owners) else {}
    result = []
    for d in np.nonzero(outcome.false & strong)[0].tolist():
        near = [(int(pairs.targets[p]), float(pairs.iou[p])) for p in of.get(d, ())]
        result.append(_explain(d, near, detections, targets, outcome, class_names))
    return result


def _explain(
    d: int,
    near: list[tuple[int, float]],
    detections: DetectionTable,
    targets: TargetTable,
    outcome: Outcome,
    class_names: Sequence[str],
) -> FalseAlarm:
    label = detections.labels[d]
    same = [(t, iou) for t, iou in near if targets.labels[t] == label]
    other = [(t, iou) for t, iou in near if targets.labels[t] != label and iou >= 0.5]
    if same and same[0][1] >= 0.5:
        return FalseAlarm(d, "found a second time", False)
    if other:
        t = other[0][0]
        # numbers are in falling order of score: a finder of a smaller number is surer of what the annotation says
        agrees = 0 <= outcome.finder[t] < d
        return FalseAlarm(d, f"annotated as {class_names[targets.labels[t]]}", not agrees and not targets.difficult[t])
    if same:
        return FalseAlarm(d, f"box too far off (IoU {same[0][1]:.2f})", False)
    return FalseAlarm(d, "nothing annotated here", not near)


def misses(targets: TargetTable, outcome: Outcome, strong: Flags) -> Ints:
    """Objects that no strong detection finds, the largest first."""
    found = np.append(strong, False)[outcome.finder]
    missed = np.nonzero(~found & ~targets.difficult)[0]
    return missed[np.argsort(-areas(targets.boxes_xyxy)[missed], kind="stable")]


def confusion_matrix(detections: DetectionTable, targets: TargetTable, strong: Flags, num_classes: int) -> Ints:
    """Annotated class by found class [C + 1, C + 1]; the last row is background that was found, the last column was missed.

    A detection, strongest first, takes the free object that it overlaps most, whatever its class, at IoU 0.5.
    """
    chosen = detections.select(strong)
    outcome = match_at_half(chosen, targets, any_class=True)
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    np.add.at(matrix, (targets.labels[outcome.target[outcome.hit]], chosen.labels[outcome.hit]), 1)
    missed = targets.labels[(outcome.finder < 0) & ~targets.difficult]
    matrix[num_classes] += np.bincount(chosen.labels[outcome.false], minlength=num_classes + 1)
    matrix[:, num_classes] += np.bincount(missed, minlength=num_classes + 1)
    return matrix


@dataclass(frozen=True)
class Calibration:
    """Whether a score is the chance to be right.

    Attributes:
        promised: Mean score of the detections in each tenth of the scores [10]; NaN where there is none.
        kept: Part of them that are right [10].
        counts: How many [10].
        error: Expected calibration error (Naeini et al. 2015): mean distance of the two, weighted by counts; None without any.
    """

    promised: Floats
    kept: Floats
    counts: Ints
    error: float | None


def calibration(scores: Floats, hit: Flags) -> Calibration:
    """Scores [D] and whether each detection is right [D]."""
    place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        promised = np.bincount(place, scores, BINS) / counts
        kept = np.bincount(place, hit.astype(np.float64), BINS) / counts
    gap = np.nansum(np.abs(promised - kept) * counts)
    return Calibration(promised, kept, counts, float(gap / counts.sum()) if len(scores) else None)
