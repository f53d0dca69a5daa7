"""`ppe-yolo evaluate --robustness`: the same photos, spoiled as hard sites spoil them, against the clean ones. No torch."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ppe_yolo.core.drawing import GROUND_TRUTH, draw_boxes, save_image
from ppe_yolo.core.files import atomic_path, write_json
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.images import read_image
from ppe_yolo.evaluation.decisions.operating_point import counts_of, figures_at
from ppe_yolo.evaluation.metrics.coco_ap import coco_average_precision
from ppe_yolo.evaluation.metrics.matching import DetectionTable, Ints, detection_table, match_at_half, target_table
from ppe_yolo.evaluation.metrics.mistakes import strong_enough
from ppe_yolo.evaluation.report.material import ROBUSTNESS_FILE

FAILS = 0.1  # from so much less mAP@0.5 than on clean photos, a condition is called one in which the detector fails
PICTURE_SIDE = 640  # pixels


class Found(Protocol):
    """What a detector found in one photo: boxes_xyxy [N, 4] in its pixels, scores [N], labels [N]."""

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def scores(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def labels(self) -> NDArray[np.int64]: ...  # noqa: D102


Detect = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Found]]


def measure_robustness(
    detect: Detect,
    annotated: Sequence[AnnotatedImage],
    clean: Sequence[Found],
    class_names: Sequence[str],
    thresholds: Mapping[str, float],
    out: Path,
    *,
    batch_size: int = 8,
    console: Console | None = None,
) -> dict[str, Any]:
    """Detects under each condition of `data.corruptions`, and leaves robustness.json and a picture of each.

    Args:
        detect: See `Detector.detect`.
        annotated: The photos.
        clean: What was found in them as they are.
        class_names: Names of the labels.
        thresholds: Class name -> score from which a detection is an alarm.
        out: Folder for the files.
        batch_size: Photos at once.
        console: Shows progress; none when None.

    Returns:
        What robustness.json holds: the figures on clean photos, and those of each condition, worst first.
    """
    from ppe_yolo.data.corruptions import CORRUPTIONS  # albumentations: none but those who ask for this wait for it or need it

    found: list[list[Found]] = [[] for _ in CORRUPTIONS]
    shifts: list[list[tuple[int, int]]] = [[] for _ in CORRUPTIONS]
    starts = range(0, len(annotated), batch_size)
    for start in track(starts, "spoiling photos", console=console, disable=console is None, transient=True):
        batch = annotated[start : start + batch_size]
        photos = [read_image(a.image) for a in batch]
        for k, condition in enumerate(CORRUPTIONS):
            spoiled = [condition.apply(p, _seed(a)) for p, a in zip(photos, batch, strict=True)]
            found[k] += detect([photo for photo, _ in spoiled])
            shifts[k] += [shift for _, shift in spoiled]

    figures, hits = _measure(annotated, clean, class_names, thresholds)
    rows = []
    for condition, its, moved in zip(CORRUPTIONS, found, shifts, strict=True):
        there = [move(a, shift) for a, shift in zip(annotated, moved, strict=True)]
        own, own_hits = _measure(there, its, class_names, thresholds)
        worst = int((hits - own_hits).argmax())  # the photo in which most objects are lost
        picture = f"robustness_{condition.name.replace(' ', '_')}.jpg"
        photo, _ = condition.apply(read_image(annotated[worst].image), _seed(annotated[worst]))
        _draw(out / picture, photo, there[worst], its[worst], class_names, thresholds)
        rows.append(
            {
                "name": condition.name,
                "severity": condition.severity,
                **own,
                "change_map_50": _difference(own["map_50"], figures["map_50"]),
                "picture": picture,
                "picture_of": annotated[worst].image_id,
            }
        )
    rows.sort(key=lambda row: row["change_map_50"] if row["change_map_50"] is not None else 0.0)
    result = {"thresholds": dict(thresholds), "clean": figures, "conditions": rows}
    write_json(out / ROBUSTNESS_FILE, result)
    return result


def move(image: AnnotatedImage, shift: tuple[int, int]) -> AnnotatedImage:
    """An annotated photo whose objects lie further right and down, pixels."""
    right, down = shift
    by = np.array([right, down, right, down])
    boxes = [tuple((np.array(o.box_xyxy) + by).tolist()) for o in image.objects]
    return replace(image, objects=tuple(replace(o, box_xyxy=b) for o, b in zip(image.objects, boxes, strict=True)))


def robustness_text(robustness: Mapping[str, Any]) -> list[str]:
    """Lines of results.txt."""
    lines = ["", "# Under hard conditions: mAP@0.5 (COCO) and recall at the alarm thresholds; worst first"]
    for row in [*robustness["conditions"], {"name": "clean", "change_map_50": None, **robustness["clean"]}]:
        change = "" if row["change_map_50"] is None else f" ({100 * row['change_map_50']:+.2f} points)"
        recalls = ", ".join(f"recall of {n} {_percent(v['recall'])}" for n, v in row["per_class"].items())
        lines.append(f"{row['name']}: mAP@0.5 = {_percent(row['map_50'])}{change}; {recalls}")
    return lines


def _seed(image: AnnotatedImage) -> int:
    """The same photo is spoiled in the same way, whichever others are measured."""
    return zlib.crc32(image.image_id.encode())


def _measure(
    annotated: Sequence[AnnotatedImage], found: Sequence[Found], class_names: Sequence[str], thresholds: Mapping[str, float]
) -> tuple[dict[str, Any], Ints]:
    """The figures of one condition, and how many objects were found at the thresholds in each photo."""
    detections, targets = _table(found), target_table(annotated, class_names)
    coco = coco_average_precision(detections, targets, len(class_names))
    outcome = match_at_half(detections, targets)
    per_class = {}
    for label, name in enumerate(class_names):
        at = figures_at(counts_of(detections, targets, outcome, label), thresholds[name], len(annotated))
        per_class[name] = {
            "ap_50": None if np.isnan(coco.per_class[0, label]) else float(coco.per_class[0, label]),
            "recall": at.recall,
            "false_alarms_per_1000": at.false_alarms_per_1000,
        }
    strong = strong_enough(detections, class_names, thresholds)
    hits = np.bincount(detections.photos[outcome.hit & strong], minlength=len(annotated))
    return {"map_50": coco.mean(0), "map": coco.mean(), "per_class": per_class}, hits


def _table(found: Sequence[Found]) -> DetectionTable:
    return detection_table(
        np.repeat(np.arange(len(found)), [len(f.scores) for f in found]),
        np.concatenate([f.boxes_xyxy for f in found]),
        np.concatenate([f.labels for f in found]),
        np.concatenate([f.scores for f in found]),
    )


def _draw(
    path: Path,
    photo: NDArray[np.uint8],
    image: AnnotatedImage,
    found: Found,
    class_names: Sequence[str],
    thresholds: Mapping[str, float],
) -> None:
    """A photo of at most PICTURE_SIDE pixels: annotated objects white, alarms in their class's colour."""
    scale = min(1.0, PICTURE_SIDE / max(photo.shape[:2]))
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    boxes = np.array([o.box_xyxy for o in image.objects], dtype=np.float32).reshape(-1, 4)
    picture = draw_boxes(small, boxes * scale, np.zeros(len(boxes), dtype=np.int64), class_names, colour=GROUND_TRUTH)
    lowest = np.array([thresholds[name] for name in class_names])
    strong = found.scores >= lowest[found.labels]
    picture = draw_boxes(picture, found.boxes_xyxy[strong] * scale, found.labels[strong], class_names, found.scores[strong])
    with atomic_path(path) as temporary:
        save_image(temporary, picture)


def _difference(value: float | None, clean: float | None) -> float | None:
    return None if value is None or clean is None else value - clean


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.2f}%"
