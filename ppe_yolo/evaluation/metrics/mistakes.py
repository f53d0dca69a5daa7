"""What a detector gets wrong, object by object: false alarms, misses, confusions, and scores that promise too much."""

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
    match,
    overlapping_pairs,
)

NEAR_IOU = 0.1  # from this IoU on, a false alarm is an inaccurate box of an object
BINS = 10


@dataclass(frozen=True)
class FalseAlarm:
    """A detection without an object.

    Attributes:
        detection: Its index.
        kind: What it is, in words.
        is_suspect: Whether the annotation may be wrong instead.
    """

    detection: int
    kind: str
    is_suspect: bool


def above_threshold(detections: DetectionTable, class_names: Sequence[str], thresholds: Mapping[str, float]) -> Flags:
    """Which detections [D] reach the threshold of their class.

    Scores are those of detections.json, rounded float64; `predict.above_thresholds` compares a detector's own float32 scores.
    """
    limits = np.array([thresholds[name] for name in class_names])
    return np.asarray(detections.scores >= limits[detections.labels])


def false_alarms(
    detections: DetectionTable, targets: TargetTable, outcome: Outcome, alarms: Flags, class_names: Sequence[str]
) -> list[FalseAlarm]:
    """The false alarms, highest score first.

    Args:
        detections: All detections.
        targets: The objects.
        outcome: Their matching.
        alarms: Which detections reach their threshold [D], see `above_threshold`.
        class_names: Names of the labels, as people read them.
    """
    pairs = overlapping_pairs(detections, targets, NEAR_IOU, any_class=True)
    order = np.lexsort((-pairs.iou, pairs.detections))
    owners, starts = np.unique(pairs.detections[order], return_index=True)
    of = dict(zip(owners.tolist(), np.split(order, starts[1:]), strict=True)) if len(owners) else {}
    result = []
    for d in np.nonzero(outcome.false & alarms)[0].tolist():
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
        return FalseAlarm(d, "second detection of one object", False)
    if other:
        t = other[0][0]
        # indices are in falling order of score: a taker with a smaller index agrees with the annotation at a higher score
        agrees = 0 <= outcome.taker[t] < d
        return FalseAlarm(d, f"annotated as {class_names[targets.labels[t]]}", not agrees and not targets.difficult[t])
    if same:
        return FalseAlarm(d, f"inaccurate box (IoU {same[0][1]:.2f})", False)
    return FalseAlarm(d, "nothing annotated here", not near)


def misses(targets: TargetTable, outcome: Outcome, alarms: Flags) -> Ints:
    """Indices of the objects that no alarm detects, largest first; `alarms` says which detections reach their threshold [D]."""
    detected = np.append(alarms, False)[outcome.taker]
    missed = np.nonzero(~detected & ~targets.difficult)[0]
    return missed[np.argsort(-areas(targets.boxes_xyxy)[missed], kind="stable")]


def confusion_matrix(detections: DetectionTable, targets: TargetTable, alarms: Flags, num_classes: int) -> Ints:
    """Annotated class against detected class [C + 1, C + 1]; the last row is background, the last column is missed.

    Each alarm, highest score first, takes the free object with the highest IoU (at least 0.5), whatever its class.
    """
    chosen = detections.select(alarms)
    outcome = match(chosen, targets, any_class=True)
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    np.add.at(matrix, (targets.labels[outcome.target[outcome.hit]], chosen.labels[outcome.hit]), 1)
    missed = targets.labels[(outcome.taker < 0) & ~targets.difficult]
    matrix[num_classes] += np.bincount(chosen.labels[outcome.false], minlength=num_classes + 1)
    matrix[:, num_classes] += np.bincount(missed, minlength=num_classes + 1)
    return matrix


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether a score equals the probability of being right.

    Attributes:
        mean_score: Mean score of the detections in each tenth of the score range [10]; NaN without detections.
        precision: Share of them that are right [10].
        counts: Their number [10].
        error: Expected calibration error (Naeini et al. 2015): mean distance between the two, weighted by counts; None without
            detections.
    """

    mean_score: Floats
    precision: Floats
    counts: Ints
    error: float | None


def calibration(scores: Floats, hit: Flags) -> Calibration:
    """Calibration from the scores [D] and from whether each detection is right [D]."""
    tenth = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(tenth, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean_score = np.bincount(tenth, scores, BINS) / counts
        precision = np.bincount(tenth, hit.astype(np.float64), BINS) / counts
    gap = np.nansum(np.abs(mean_score - precision) * counts)
    error = float(gap / counts.sum()) if len(scores) else None
    return Calibration(mean_score=mean_score, precision=precision, counts=counts, error=error)
