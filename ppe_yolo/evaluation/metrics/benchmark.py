"""`ppe-yolo benchmark metrics`: our average precision against torchmetrics with faster-coco-eval, on the same boxes."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ppe_yolo.evaluation.metrics.coco_ap import AREA_RANGES, coco_average_precision
from ppe_yolo.evaluation.metrics.matching import DetectionTable, TargetTable, detection_table
from ppe_yolo.evaluation.metrics.mean_ap import build_metric, summarise
from ppe_yolo.evaluation.metrics.voc_ap import mean_average_precision, voc_average_precision

CLASS_NAMES = ("helmet", "none")
PHOTO = 640.0  # pixels


def draw_tables(photos: int, objects: int, detections: int, seed: int = 0) -> tuple[DetectionTable, TargetTable]:
    """Random boxes: most detections lie near an object, exact ones with higher scores; the same number in each photo."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, PHOTO, (photos, objects, 2))
    marked = np.concatenate((corners, corners + rng.uniform(10, 80, (photos, objects, 2))), axis=-1)
    labels = rng.integers(0, len(CLASS_NAMES), (photos, objects))
    of = rng.integers(0, objects, (photos, detections))
    rows = np.arange(photos)[:, None]
    off = rng.exponential(6.0, (photos, detections, 1))
    found = marked[rows, of] + off * rng.normal(0, 1, (photos, detections, 4))
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 1)
    wrong = rng.random((photos, detections)) < 0.1
    scores = np.clip(np.exp(-off[..., 0] / 10) * rng.uniform(0.3, 1.0, (photos, detections)), 0.01, 1.0)
    number = np.arange(photos)
    targets = TargetTable(
        np.repeat(number, objects), marked.reshape(-1, 4), labels.ravel(), np.zeros(photos * objects, dtype=bool)
    )
    found_labels = np.where(wrong, 1 - labels[rows, of], labels[rows, of])
    return detection_table(np.repeat(number, detections), found.reshape(-1, 4), found_labels.ravel(), scores.ravel()), targets


def benchmark_metrics(photos: int, objects: int, detections: int, rounds: int, console: Console) -> dict[str, float]:
    """Times all cases in turn in every round and prints a table.

    Returns:
        Median seconds of each case.
    """
    table, targets = draw_tables(photos, objects, detections)
    predictions, annotations = _for_torchmetrics(table, targets, photos)

    def reference() -> float | None:
        metric = build_metric(detections)
        metric.update(predictions, annotations)
        value: float | None = summarise(metric.compute(), CLASS_NAMES)["map"]
        return value

    classes = len(CLASS_NAMES)

    def four_sizes() -> float | None:
        return [coco_average_precision(table, targets, classes, area=a).mean() for a in AREA_RANGES][0]  # noqa: RUF015 - all

    cases: dict[str, Callable[[], Any]] = {
        "ours, AP at IoU 0.5": lambda: coco_average_precision(table, targets, classes, iou_thresholds=np.array([0.5])).mean(),
        "ours, VOC": lambda: mean_average_precision(voc_average_precision(table, targets, classes)),
        "ours, ten overlaps": lambda: coco_average_precision(table, targets, classes).mean(),
        "ours, ten overlaps and four sizes": four_sizes,
        "torchmetrics, faster-coco-eval": reference,
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    values: dict[str, Any] = {}
    for i in range(rounds + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            values[name] = run()
            if i:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t) for name, t in times.items()}
    shown = Table(
        "", "median", "fastest", "mean AP", title=f"{photos:,} photos, {objects} objects and {detections} detections each"
    )
    for name, seconds in times.items():
        shown.add_row(name, f"{1e3 * medians[name]:.0f} ms", f"{1e3 * min(seconds):.0f} ms", f"{values[name]:.6f}")
    console.print(shown)
    console.print(
        f"numpy {np.__version__}, torch {torch.__version__}, {rounds} rounds; torchmetrics does ten overlaps and four sizes"
    )
    return medians


def _for_torchmetrics(table: DetectionTable, targets: TargetTable, photos: int) -> tuple[list[Any], list[Any]]:
    predictions, annotations = [], []
    for photo in range(photos):
        own, marked = table.photos == photo, targets.photos == photo
        predictions.append(
            {
                "boxes": torch.from_numpy(table.boxes_xyxy[own]),
                "scores": torch.from_numpy(table.scores[own]),
                "labels": torch.from_numpy(table.labels[own]),
            }
        )
        annotations.append(
            {"boxes": torch.from_numpy(targets.boxes_xyxy[marked]), "labels": torch.from_numpy(targets.labels[marked])}
        )
    return predictions, annotations
