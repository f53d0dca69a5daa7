"""`ppe-yolo benchmark metrics`: the numpy engine against torchmetrics with faster-coco-eval, on the same boxes."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ppe_yolo.evaluation.metrics.coco_ap import AREA_RANGES, AT_HALF, coco_average_precision
from ppe_yolo.evaluation.metrics.matching import DetectionTable, TargetTable, detection_table
from ppe_yolo.evaluation.metrics.mean_ap import build_metric, summarise
from ppe_yolo.evaluation.metrics.voc_ap import mean_average_precision, voc_average_precision

CLASS_NAMES = ("helmet", "none")
SIDE = 640.0  # of an image, pixels


def draw_tables(images: int, objects: int, detections: int) -> tuple[DetectionTable, TargetTable]:
    """Random boxes, the same number in each image: most detections lie near an object, accurate ones with higher scores."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, SIDE, (images, objects, 2))
    annotated = np.concatenate((corners, corners + rng.uniform(10, 80, (images, objects, 2))), axis=-1)
    labels = rng.integers(0, len(CLASS_NAMES), (images, objects))
    of = rng.integers(0, objects, (images, detections))
    rows = np.arange(images)[:, None]
    off = rng.exponential(6.0, (images, detections, 1))
    boxes = annotated[rows, of] + off * rng.normal(0, 1, (images, detections, 4))
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 1)
    wrong = rng.random((images, detections)) < 0.1
    scores = np.clip(np.exp(-off[..., 0] / 10) * rng.uniform(0.3, 1.0, (images, detections)), 0.01, 1.0)
    number = np.arange(images)
    targets = TargetTable(
        images=np.repeat(number, objects),
        boxes_xyxy=annotated.reshape(-1, 4),
        labels=labels.ravel(),
        difficult=np.zeros(images * objects, dtype=bool),
    )
    detected_labels = np.where(wrong, 1 - labels[rows, of], labels[rows, of])
    return detection_table(
        np.repeat(number, detections), boxes.reshape(-1, 4), detected_labels.ravel(), scores.ravel()
    ), targets


@dataclass(frozen=True, kw_only=True)
class Case:
    """One engine's time and result.

    Attributes:
        name: The engine and what it computes.
        median_seconds: Over the rounds.
        fastest_seconds: Over the rounds.
        mean_ap: Its result.
    """

    name: str
    median_seconds: float
    fastest_seconds: float
    mean_ap: float


def benchmark_metrics(images: int, objects: int, detections: int, rounds: int) -> list[Case]:
    """Times all engines in turn in every round.

    Args:
        images: Number of images.
        objects: Objects per image.
        detections: Detections per image.
        rounds: Timings of each engine.
    """
    table, targets = draw_tables(images, objects, detections)
    predictions, annotations = _for_torchmetrics(table, targets, images)

    def reference() -> float | None:
        metric = build_metric(detections)
        metric.update(predictions, annotations)
        value: float | None = summarise(metric.compute(), CLASS_NAMES)["map"]
        return value

    classes = len(CLASS_NAMES)

    def four_sizes() -> float | None:
        means = [coco_average_precision(table, targets, classes, area_range=r).mean() for r in AREA_RANGES.values()]
        return means[0]

    engines: dict[str, Callable[[], float | None]] = {
        "ours, AP at IoU 0.5": lambda: coco_average_precision(table, targets, classes, iou_thresholds=AT_HALF).mean(),
        "ours, VOC": lambda: mean_average_precision(voc_average_precision(table, targets, classes)),
        "ours, ten IoU thresholds": lambda: coco_average_precision(table, targets, classes).mean(),
        "ours, ten IoU thresholds and four sizes": four_sizes,
        "torchmetrics, faster-coco-eval": reference,
    }
    times: dict[str, list[float]] = {name: [] for name in engines}
    values: dict[str, float] = {}
    for i in range(rounds + 1):
        for name, run in engines.items():
            start = time.perf_counter()
            values[name] = run() or 0.0
            if i:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return [
        Case(name=name, median_seconds=statistics.median(t), fastest_seconds=min(t), mean_ap=values[name])
        for name, t in times.items()
    ]


def _for_torchmetrics(table: DetectionTable, targets: TargetTable, images: int) -> tuple[list[Any], list[Any]]:
    predictions, annotations = [], []
    for image in range(images):
        own, annotated = table.images == image, targets.images == image
        predictions.append(
            {
                "boxes": torch.from_numpy(table.boxes_xyxy[own]),
                "scores": torch.from_numpy(table.scores[own]),
                "labels": torch.from_numpy(table.labels[own]),
            }
        )
        annotations.append(
            {"boxes": torch.from_numpy(targets.boxes_xyxy[annotated]), "labels": torch.from_numpy(targets.labels[annotated])}
        )
    return predictions, annotations
