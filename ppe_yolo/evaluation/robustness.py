"""`ppe-yolo evaluate --robustness`: the same images under corruptions, against the clean ones. No torch."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import draw_detections, draw_ground_truth, save_image
from ppe_yolo.core.files import atomic_path
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.images import read_image
from ppe_yolo.evaluation.decisions.threshold import counts_of, figures_at
from ppe_yolo.evaluation.files.detections import to_coco_results
from ppe_yolo.evaluation.files.metrics import number_or_none
from ppe_yolo.evaluation.files.robustness import (
    ClassRobustness,
    CorruptionFigures,
    Robustness,
    RobustnessFigures,
    write_robustness,
)
from ppe_yolo.evaluation.metrics.coco_ap import coco_average_precision
from ppe_yolo.evaluation.metrics.matching import Ints, from_coco_results, match, target_table
from ppe_yolo.evaluation.metrics.mistakes import above_threshold
from ppe_yolo.inference.predict import above_thresholds

FAILURE = 0.1  # a corruption that costs this much mAP@0.5 or more is reported as one in which the detector fails
DRAWN_SIDE = 640  # pixels

Detect = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Detections]]


def measure_robustness(
    detect: Detect,
    annotated: Sequence[AnnotatedImage],
    clean: Sequence[Detections],
    contract: ModelContract,
    thresholds: Mapping[str, float],
    out: Path,
    *,
    batch_size: int = 8,
    console: Console | None = None,
) -> Robustness:
    """Detects under each corruption of `data.corruptions`, and writes robustness.json and one drawn image of each.

    Args:
        detect: See `Detector.detect`.
        annotated: The images.
        clean: The detections in the clean images.
        contract: For the class names.
        thresholds: Class name -> score from which a detection is an alarm.
        out: Folder for the files.
        batch_size: Images per batch.
        console: Where to show progress; nowhere if None.

    Returns:
        The content of robustness.json.
    """
    # imported here: albumentations is slow to import, and nothing else in an evaluation needs it
    from ppe_yolo.data.corruptions import CORRUPTIONS

    detections: list[list[Detections]] = [[] for _ in CORRUPTIONS]
    shifts: list[list[tuple[int, int]]] = [[] for _ in CORRUPTIONS]
    starts = range(0, len(annotated), batch_size)
    for start in track(starts, "corrupting images", console=console, disable=console is None, transient=True):
        batch = annotated[start : start + batch_size]
        images = [read_image(a.image) for a in batch]
        for k, corruption in enumerate(CORRUPTIONS):
            corrupted = [corruption.apply(p, _seed(a)) for p, a in zip(images, batch, strict=True)]
            detections[k] += detect([image for image, _ in corrupted])
            shifts[k] += [shift for _, shift in corrupted]

    figures, hits = _measure(annotated, clean, contract.class_names, thresholds)
    rows: list[CorruptionFigures] = []
    for corruption, own_detections, moved in zip(CORRUPTIONS, detections, shifts, strict=True):
        shifted = [move(a, shift) for a, shift in zip(annotated, moved, strict=True)]
        own, own_hits = _measure(shifted, own_detections, contract.class_names, thresholds)
        worst = int((hits - own_hits).argmax())  # the image that loses most hits
        picture = f"robustness_{corruption.name.replace(' ', '_')}.jpg"
        image, _ = corruption.apply(read_image(annotated[worst].image), _seed(annotated[worst]))
        _draw(out / picture, image, shifted[worst], own_detections[worst], contract, thresholds)
        rows.append(
            {
                "name": corruption.name,
                "severity": corruption.severity,
                **own,
                "change_map_50": _difference(own["map_50"], figures["map_50"]),
                "picture": picture,
                "picture_of": annotated[worst].image_id,
            }
        )
    rows.sort(key=lambda row: row["change_map_50"] if row["change_map_50"] is not None else 0.0)
    result: Robustness = {"thresholds": dict(thresholds), "clean": figures, "conditions": rows}
    write_robustness(out, result)
    return result


def move(image: AnnotatedImage, shift: tuple[int, int]) -> AnnotatedImage:
    """An annotated image with its objects moved right and down, pixels."""
    right, down = shift
    by = np.array([right, down, right, down])
    boxes = [tuple((np.array(o.box_xyxy) + by).tolist()) for o in image.objects]
    return replace(image, objects=tuple(replace(o, box_xyxy=b) for o, b in zip(image.objects, boxes, strict=True)))


def _seed(image: AnnotatedImage) -> int:
    """The corruption of an image does not depend on the other images."""
    return zlib.crc32(image.image_id.encode())


def _measure(
    annotated: Sequence[AnnotatedImage],
    detections_per_image: Sequence[Detections],
    class_names: Sequence[str],
    thresholds: Mapping[str, float],
) -> tuple[RobustnessFigures, Ints]:
    """The figures of one corruption, and the number of hits at the thresholds in each image."""
    detections, targets = from_coco_results(to_coco_results(detections_per_image)), target_table(annotated, class_names)
    coco = coco_average_precision(detections, targets, len(class_names))
    outcome = match(detections, targets)
    per_class: dict[str, ClassRobustness] = {}
    for label, name in enumerate(class_names):
        at = figures_at(counts_of(detections, targets, outcome, label), thresholds[name], len(annotated))
        per_class[name] = {
            "ap_50": number_or_none(coco.per_class[0, label]),
            "recall": at.recall,
            "false_alarms_per_1000": at.false_alarms_per_1000,
        }
    alarms = above_threshold(detections, class_names, thresholds)
    hits = np.bincount(detections.images[outcome.hit & alarms], minlength=len(annotated))
    return {"map_50": coco.mean(0), "map": coco.mean(), "per_class": per_class}, hits


def _draw(
    path: Path,
    image: NDArray[np.uint8],
    annotation: AnnotatedImage,
    detections: Detections,
    contract: ModelContract,
    thresholds: Mapping[str, float],
) -> None:
    """An image of at most DRAWN_SIDE pixels: annotated objects white, alarms in their class's colour."""
    scale = min(1.0, DRAWN_SIDE / max(image.shape[:2]))
    canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    boxes = np.array([o.box_xyxy for o in annotation.objects], dtype=np.float32).reshape(-1, 4)
    canvas = draw_ground_truth(canvas, boxes * scale)
    scaled = replace(detections, boxes_xyxy=(detections.boxes_xyxy * scale).astype(np.float32))
    canvas = draw_detections(canvas, above_thresholds(scaled, contract, thresholds), contract)
    with atomic_path(path) as temporary:
        save_image(temporary, canvas)


def _difference(value: float | None, clean: float | None) -> float | None:
    return None if value is None or clean is None else value - clean
