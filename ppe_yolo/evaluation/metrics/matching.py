"""Matches detections to objects. Flat tables of a whole split; numpy alone, no loop over images.

Both protocols visit the detections of an image and class in falling order of score. Only pairs that overlap enough can match,
and they are few: they are listed once, and the rounds of the greedy matching run over all images together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.boxes import intersection_and_areas
from ppe_yolo.data.annotation import AnnotatedImage

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class TargetTable:
    """The annotated objects of a split, image by image.

    Attributes:
        images: Index of each object's image, from 0 [N].
        boxes_xyxy: Pixels of the image [N, 4].
        labels: [N].
        difficult: [N].
    """

    images: Ints
    boxes_xyxy: Floats
    labels: Ints
    difficult: Flags

    def __len__(self) -> int:
        return len(self.images)

    def select(self, chosen: Flags | Ints) -> "TargetTable":
        """The objects at these indices [K], or where this mask [N] is true."""
        return TargetTable(
            images=self.images[chosen],
            boxes_xyxy=self.boxes_xyxy[chosen],
            labels=self.labels[chosen],
            difficult=self.difficult[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class DetectionTable:
    """The detections of a split in falling order of score; where scores are equal, image by image in the given order.

    Attributes:
        images: Index of each detection's image, from 0 [N].
        boxes_xyxy: Pixels of the image [N, 4].
        labels: [N].
        scores: [N].
    """

    images: Ints
    boxes_xyxy: Floats
    labels: Ints
    scores: Floats

    def __len__(self) -> int:
        return len(self.images)

    def select(self, chosen: Flags | Ints) -> "DetectionTable":
        """The detections at these indices [K], or where this mask [N] is true; indices must keep the order of the table."""
        return DetectionTable(
            images=self.images[chosen],
            boxes_xyxy=self.boxes_xyxy[chosen],
            labels=self.labels[chosen],
            scores=self.scores[chosen],
        )


@dataclass(frozen=True)
class Pairs:
    """Overlapping pairs, sorted by detection and then by object: indices [P], [P] and their IoU [P]."""

    detections: Ints
    targets: Ints
    iou: Floats


def target_table(annotated: Sequence[AnnotatedImage], class_names: Sequence[str]) -> TargetTable:
    """Annotated images as a table."""
    label_of = {name: label for label, name in enumerate(class_names)}
    rows = [(i, label_of[o.class_name], o.difficult, o.box_xyxy) for i, a in enumerate(annotated) for o in a.objects]
    return TargetTable(
        images=np.array([r[0] for r in rows], dtype=np.int64),
        boxes_xyxy=np.array([r[3] for r in rows], dtype=np.float64).reshape(-1, 4),
        labels=np.array([r[1] for r in rows], dtype=np.int64),
        difficult=np.array([r[2] for r in rows], dtype=bool),
    )


def detection_table(images: Any, boxes_xyxy: Any, labels: Any, scores: Any) -> DetectionTable:
    """Detections in any order as a table; those of one image and score keep their order."""
    images, scores = np.asarray(images, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    order = np.lexsort((images, -scores))
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    labels = np.asarray(labels, dtype=np.int64)
    return DetectionTable(images=images[order], boxes_xyxy=boxes[order], labels=labels[order], scores=scores[order])


def from_coco_results(rows: Iterable[Mapping[str, Any]]) -> DetectionTable:
    """COCO results as `evaluate` writes them: image_id counts from 1, and category k + 1 is label k."""
    rows = list(rows)
    return detection_table(
        [r["image_id"] - 1 for r in rows],
        xywh_to_xyxy([r["bbox"] for r in rows]),
        [r["category_id"] - 1 for r in rows],
        [r["score"] for r in rows],
    )


def xywh_to_xyxy(boxes_xywh: Sequence[Sequence[float]]) -> Floats:
    """Converts COCO's upper left corner and size, N times four numbers, to corners [N, 4]."""
    boxes = np.array(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)


def areas(boxes_xyxy: Floats) -> Floats:
    """[N, 4] -> square pixels [N]."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def overlapping_pairs(
    detections: DetectionTable,
    targets: TargetTable,
    min_iou: float,
    *,
    border: float = 0.0,
    crowds: bool = False,
    any_class: bool = False,
) -> Pairs:
    """Pairs of one image (and one class, unless `any_class`) whose IoU is at least `min_iou`.

    Args:
        detections: The detections.
        targets: The objects.
        min_iou: Above 0.
        border: Added to each width and height: 1 for VOC, whose corners are the first and the last pixel of a box.
        crowds: Divide the overlap with a difficult object by the detection's own area, as COCO does for crowds.
        any_class: Also pair detections with objects of other classes.
    """
    classes = 1 + max(detections.labels.max(initial=0), targets.labels.max(initial=0))
    target_keys = targets.images if any_class else targets.images * classes + targets.labels
    keys = detections.images if any_class else detections.images * classes + detections.labels
    by_key = np.argsort(target_keys, kind="stable")
    first = np.searchsorted(target_keys[by_key], keys, "left")
    counts = np.searchsorted(target_keys[by_key], keys, "right") - first
    d = np.repeat(np.arange(len(keys)), counts)
    t = by_key[np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts - first, counts)]
    # column by column: ten times as fast as rows of four
    intersection, own, other = intersection_and_areas(
        np.stack([column[d] for column in detections.boxes_xyxy.T]),
        np.stack([column[t] for column in targets.boxes_xyxy.T]),
        border=border,
    )
    union = own + other - intersection
    if crowds:
        union = np.where(targets.difficult[t], own, union)
    iou = np.zeros(len(d))
    np.divide(intersection, union, out=iou, where=(intersection > 0) & (union > 0))
    near = iou >= min_iou
    return Pairs(d[near], t[near], iou[near])


def match_greedily(
    pairs: Pairs,
    competing: Ints,
    iou_thresholds: Floats,
    *,
    ignored: Flags,
    shared: Flags,
) -> Ints:
    """COCO's matching: each detection, highest score first, takes the free object with the highest IoU.

    A detection takes an ignored object only if no other is free. Of equal IoUs the last object wins, as in COCO's own code.

    Args:
        pairs: All pairs with at least the smallest threshold's IoU.
        competing: Group (image, or image and class) of each detection [D]; detections are in falling order of score.
        iou_thresholds: [T].
        ignored: Objects that do not count [N].
        shared: Objects that any number of detections may take (crowds) [N].

    Returns:
        The object of each detection, or -1: [T, D].
    """
    thresholds = np.minimum(iou_thresholds, 1 - 1e-10)[:, None]
    matched = np.full((len(iou_thresholds), len(competing)), -1, dtype=np.int64)
    taken = np.zeros((len(iou_thresholds), len(ignored)), dtype=bool)
    paired, where = np.unique(pairs.detections, return_inverse=True)
    rank = rank_in_group(competing[paired])[where]
    by_rank = np.argsort(rank, kind="stable")
    rows = np.arange(len(iou_thresholds))[:, None]
    for chosen in np.split(by_rank, np.nonzero(np.diff(rank[by_rank]))[0] + 1) if len(by_rank) else ():
        d, t, iou = pairs.detections[chosen], pairs.targets[chosen], pairs.iou[chosen]
        starts = np.nonzero(np.diff(d, prepend=-1))[0]
        lengths = np.diff(starts, append=len(d))
        free = (iou >= thresholds) & (~taken[:, t] | shared[t])
        worth = np.where(free, iou + 2.0 * ~ignored[t], -1.0)  # an IoU is at most 1, so objects that count come first
        best = np.repeat(np.maximum.reduceat(worth, starts, axis=1), lengths, axis=1)
        last = np.maximum.reduceat(np.where((worth == best) & free, np.arange(len(d)), -1), starts, axis=1)
        taker, which = d[starts][None], np.where(last >= 0, t[last], -1)
        matched[rows, taker] = which
        row, column = np.nonzero(last >= 0)
        taken[row, which[row, column]] = True
    return matched


def rank_in_group(groups: Ints) -> Ints:
    """Number of earlier members of the same group: [N] -> [N]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.nonzero(np.diff(ordered, prepend=ordered[0] - 1))[0] if len(ordered) else np.zeros(0, dtype=np.int64)
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return ranks


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of detections and objects at one IoU threshold, as COCO matches them.

    Attributes:
        target: The object that each detection takes, or -1 [D].
        hit: Detections that take an object that counts [D].
        false: Detections that take nothing; a detection of a difficult object is neither hit nor false [D].
        taker: The detection that takes each object, or -1; for a difficult object the last one [N].
    """

    target: Ints
    hit: Flags
    false: Flags
    taker: Ints


def match(detections: DetectionTable, targets: TargetTable, *, iou_threshold: float = 0.5, any_class: bool = False) -> Outcome:
    """Matches detections to objects at one IoU threshold.

    Detections above a score threshold match as if the weaker ones did not exist, so one matching serves all score thresholds.

    Args:
        detections: The detections.
        targets: The objects.
        iou_threshold: Smallest IoU of a match.
        any_class: Whether a detection may take an object of another class.
    """
    pairs = overlapping_pairs(detections, targets, iou_threshold, crowds=True, any_class=any_class)
    competing = (
        detections.images if any_class else detections.images * (detections.labels.max(initial=0) + 1) + detections.labels
    )
    target = match_greedily(pairs, competing, np.array([iou_threshold]), ignored=targets.difficult, shared=targets.difficult)[0]
    on_difficult = np.append(targets.difficult, False)[target]
    taker = np.full(len(targets), -1, dtype=np.int64)
    taker[target[target >= 0]] = np.nonzero(target >= 0)[0]
    return Outcome(target=target, hit=(target >= 0) & ~on_difficult, false=target < 0, taker=taker)
