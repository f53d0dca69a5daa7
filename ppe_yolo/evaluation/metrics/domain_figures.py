"""How a detector does on one domain, by the size of the heads in the network's input.

Matching is at IoU 0.3 and at the alarm thresholds: a head counts as detected even if its box is inaccurate, since an alarm
points at a person and not at an outline. Average precision keeps COCO's IoU thresholds. A size is the square root of a box's
area, in pixels of the letterboxed input, so that images of different sizes are comparable.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypedDict, cast

import numpy as np

from ppe_yolo.evaluation.metrics.bootstrap import resample, share_interval
from ppe_yolo.evaluation.metrics.coco_ap import coco_average_precision
from ppe_yolo.evaluation.metrics.matching import DetectionTable, Flags, Ints, Outcome, TargetTable, areas, match
from ppe_yolo.evaluation.metrics.mistakes import above_threshold

MATCH_IOU = 0.3
# side in pixels of the input: from the first number to below the second
SIZES = {"all": (0.0, np.inf), "<10": (0.0, 10.0), "10-16": (10.0, 16.0), "16-96": (16.0, 96.0), ">=96": (96.0, np.inf)}
PER = 1000  # images, for which false alarms are counted


@dataclass(frozen=True, kw_only=True)
class ClassAtSize:
    """One class and size; None where undefined.

    Attributes:
        objects: Objects that are not difficult.
        detected: Those with an alarm of their class.
        recall: Share of them.
        recall_interval: Its 95 % interval over resampled images; for all sizes together alone.
        confused: Objects whose best alarm is of another class.
        confused_share: Share of them.
        false_alarms: Alarms without an object of the class.
        false_alarms_per_1000: Per 1,000 images.
    """

    objects: int
    detected: int
    recall: float | None
    recall_interval: tuple[float, float] | None
    confused: int
    confused_share: float | None
    false_alarms: int
    false_alarms_per_1000: float


@dataclass(frozen=True, kw_only=True)
class SizeFigures:
    """One size; None where undefined.

    Attributes:
        map_50: mAP at IoU 0.5 (COCO).
        map: mAP at IoU 0.50 to 0.95 (COCO).
        per_class: Class name -> figures.
        empty_images_with_alarm: Images without any object that have an alarm of this size.
        empty_images_with_alarm_share: Share of the images without any object.
    """

    map_50: float | None
    map: float | None
    per_class: dict[str, ClassAtSize]
    empty_images_with_alarm: int
    empty_images_with_alarm_share: float | None


@dataclass(frozen=True, kw_only=True)
class DomainFigures:
    """One domain.

    Attributes:
        name: The data set.
        images: Number of images.
        empty_images: Images without any object.
        thresholds: Class name -> alarm threshold.
        match_iou: IoU of recall, confusion and false alarms.
        input_size: (height, width) of the input, pixels.
        by_size: Name of the size (see `SIZES`) -> figures.
    """

    name: str
    images: int
    empty_images: int
    thresholds: dict[str, float]
    match_iou: float
    input_size: tuple[int, int]
    by_size: dict[str, SizeFigures]

    def to_plain(self) -> "PlainDomainFigures":
        """The types that JSON has."""
        return cast(PlainDomainFigures, json.loads(json.dumps(asdict(self))))


class PlainDomainFigures(TypedDict):
    """`DomainFigures` in the types that JSON has; `by_size` has those of `SizeFigures`."""

    name: str
    images: int
    empty_images: int
    thresholds: dict[str, float]
    match_iou: float
    input_size: list[int]
    by_size: dict[str, dict[str, Any]]


def domain_figures(
    name: str,
    detections: DetectionTable,
    targets: TargetTable,
    image_sizes: Ints,
    *,
    input_size: tuple[int, int],
    class_names: Sequence[str],
    thresholds: Mapping[str, float],
) -> DomainFigures:
    """Measures one domain.

    Args:
        name: The data set.
        detections: Of its images alone, which count from 0.
        targets: The same.
        image_sizes: (height, width) of each image [images, 2].
        input_size: (height, width) of the network's input.
        class_names: Names of the labels.
        thresholds: Class name -> score from which a detection is an alarm.
    """
    images = len(image_sizes)
    scale = (np.array(input_size) / image_sizes).min(axis=1)
    sides = np.sqrt(areas(targets.boxes_xyxy)) * scale[targets.images]
    alarms = detections.select(above_threshold(detections, class_names, thresholds))
    alarm_sides = np.sqrt(areas(alarms.boxes_xyxy)) * scale[alarms.images]
    own = match(alarms, targets, iou_threshold=MATCH_IOU)
    anyone = match(alarms, targets, iou_threshold=MATCH_IOU, any_class=True)
    empty = np.bincount(targets.images, minlength=images) == 0
    # boxes in pixels of the input, so that a range of sides is a range of areas; IoUs do not change
    scaled_detections = replace(detections, boxes_xyxy=detections.boxes_xyxy * scale[detections.images][:, None])
    scaled_targets = replace(targets, boxes_xyxy=targets.boxes_xyxy * scale[targets.images][:, None])
    by_size = {}
    for size, (low, high) in SIZES.items():
        area_range = (low**2, float(np.nextafter(high**2, 0)))
        coco = coco_average_precision(scaled_detections, scaled_targets, len(class_names), area_range=area_range)
        alarm_fits = (alarm_sides >= low) & (alarm_sides < high)
        on_empty = len(np.unique(alarms.images[alarm_fits & empty[alarms.images]]))
        fits = (sides >= low) & (sides < high)
        by_size[size] = SizeFigures(
            map_50=coco.mean(0),
            map=coco.mean(),
            per_class={
                class_name: _class_at_size(label, alarms, targets, own, anyone, fits, alarm_fits, images, size == "all")
                for label, class_name in enumerate(class_names)
            },
            empty_images_with_alarm=on_empty,
            empty_images_with_alarm_share=on_empty / int(empty.sum()) if empty.any() else None,
        )
    return DomainFigures(
        name=name,
        images=images,
        empty_images=int(empty.sum()),
        thresholds=dict(thresholds),
        match_iou=MATCH_IOU,
        input_size=input_size,
        by_size=by_size,
    )


def _class_at_size(
    label: int,
    alarms: DetectionTable,
    targets: TargetTable,
    own: Outcome,
    anyone: Outcome,
    fits: Flags,
    alarm_fits: Flags,
    images: int,
    with_interval: bool,
) -> ClassAtSize:
    wanted = (targets.labels == label) & ~targets.difficult & fits
    objects, detected = int(wanted.sum()), wanted & (own.taker >= 0)
    best = np.append(alarms.labels, label)[anyone.taker]  # of an object without an alarm: its own class
    confused = int((wanted & (best != label)).sum())
    false = int((own.false & (alarms.labels == label) & alarm_fits).sum())
    band = None
    if with_interval and objects:
        hits, trials = (np.bincount(targets.images[mask], minlength=images) for mask in (detected, wanted))
        band = share_interval(hits, trials, resample(images))
    return ClassAtSize(
        objects=objects,
        detected=int(detected.sum()),
        recall=int(detected.sum()) / objects if objects else None,
        recall_interval=band,
        confused=confused,
        confused_share=confused / objects if objects else None,
        false_alarms=false,
        false_alarms_per_1000=PER * false / images,
    )
