"""`ppe-yolo evaluate`: a detector against the annotated photos of a split, and the files that record it."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from ppe_yolo.core.boxes import pairwise_iou
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import GROUND_TRUTH, draw_boxes, save_image
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, write_json
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.images import read_image, shown
from ppe_yolo.data.validation import VAL, VALIDATION_KEY, validation_images
from ppe_yolo.evaluation.metrics.matching import from_coco_results
from ppe_yolo.evaluation.metrics.mean_ap import (
    build_metric,
    precision_recall_curves,
    summarise,
    to_metric_predictions,
    to_metric_targets,
)
from ppe_yolo.evaluation.metrics.plots import draw_curves
from ppe_yolo.evaluation.report.material import GROUND_TRUTH_FILE, ROBUSTNESS_FILE, Material
from ppe_yolo.evaluation.report.report import write_report
from ppe_yolo.evaluation.robustness import measure_robustness
from ppe_yolo.inference.checkpoint import training_hash
from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.predict import thresholds_of
from ppe_yolo.inference.tiled import TiledDetector

PICTURE_SCORE = 0.3  # what the original helmet system showed


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metrics: What metrics.json holds.
        annotated: The photos of the split.
        detections: What was found in each of them.
    """

    metrics: dict[str, Any]
    annotated: list[AnnotatedImage]
    detections: list[Detections]


def evaluate(
    detector: Detector,
    model: str,
    data: str,
    out: Path,
    *,
    split: str = "test",
    class_map: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    batch_size: int = 8,
    pictures: int = 24,
    val_fraction: float | None = None,
    seed: int | None = None,
    with_report: bool = False,
    robustness: bool = False,
    console: Console | None = None,
) -> Evaluation:
    """Runs a detector over a split and leaves metrics.json, detections.json, ground_truth.json, a plot and pictures.

    Args:
        detector: The detector.
        model: Its name, for the record.
        data: See `open_source`.
        out: Folder for the files.
        split: Which photos; `val`: those that the model was validated on in its training.
        class_map: Name or file; its classes must be the detector's.
        on_error: What happens when the audit finds errors in the split.
        batch_size: Photos at once.
        pictures: How many photos to draw, those with most mistakes first.
        val_fraction: See `validation_images`.
        seed: See `validation_images`.
        with_report: Also what `ppe-yolo report` leaves, with the thresholds that the model carries, if it does.
        robustness: Also under hard conditions, see `measure_robustness`.
        console: Shows progress; none when None.

    Raises:
        UserError: The data has errors, or its classes are not the detector's, or its validation photos are not known.
    """
    if split != VAL and (val_fraction is not None or seed is not None):
        raise UserError(f"--val-fraction, --seed: they say which photos the split {VAL} is, got --split {split}")
    contract = detector.contract
    mapping = load_class_map(class_map).require_classes(contract.class_names, model)
    # the division into training and validation depends on images that look alike in any split
    splits = None if split == VAL else [split]
    dataset = AnnotatedDataset.open(data, mapping, splits=splits, on_error=on_error, progress=console is not None)
    skipped = dataset.left_out
    if split == VAL:
        annotated = validation_images(dataset, model, contract.provenance.get(VALIDATION_KEY), val_fraction, seed)
    else:
        annotated = dataset.split(split)
    detections: list[Detections] = []
    starts = range(0, len(annotated), batch_size)
    for start in track(starts, "evaluating", console=console, disable=console is None, transient=True):
        detections += detector.detect([read_image(a.image) for a in annotated[start : start + batch_size]])

    result = compute(annotated, detections, contract)
    counts = {"images": len(annotated), "skipped_images": skipped}
    tiles = detector.tiles if isinstance(detector, TiledDetector) else 1
    metrics = {"model": model, "data": data, "split": split, "tiles": tiles, **result["summary"], **counts}
    curves = draw_curves(precision_recall_curves(result["raw"], contract.class_names))
    with atomic_path(out / "precision_recall.png") as temporary:
        curves.savefig(temporary, dpi=110)
    checkpoint = training_hash(contract, Path(model))
    truth = to_coco_ground_truth(annotated, contract.class_names, dataset.sizes)
    # the file that was measured: a quantised model has the checkpoint of the one that it was made from
    hashes = {"checkpoint_blake2b": checkpoint, "model_blake2b": _hash_of_file(Path(model))}
    info = {"split": split, "tiles": tiles, "model": model, **hashes}
    results = to_coco_results(detections)
    write_json(out / GROUND_TRUTH_FILE, {"info": info, **truth})
    write_json(out / "detections.json", results)
    _draw_pictures(out / "pictures", annotated, detections, contract, pictures)
    (out / ROBUSTNESS_FILE).unlink(missing_ok=True)  # an earlier one would be taken for one of this evaluation
    hard = None
    if robustness:
        alarms = thresholds_of(contract, None)
        hard = measure_robustness(
            detector.detect, annotated, detections, contract.class_names, alarms, out, batch_size=batch_size, console=console
        )
    if with_report:
        table = from_coco_results(results)
        material = Material(annotated, table, contract.class_names, split, data, model, checkpoint, tiles, hard, out)
        thresholds = dict(contract.alarm_thresholds) if set(contract.alarm_thresholds) == set(contract.class_names) else None
        write_report(material, out, thresholds=thresholds, origin="those in the model file" if thresholds else "")
    write_json(out / "metrics.json", metrics)  # the last one: where it is, the others are
    return Evaluation(metrics, annotated, detections)


def _hash_of_file(path: Path) -> str | None:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else None


def compute(annotated: Sequence[AnnotatedImage], detections: Sequence[Detections], contract: ModelContract) -> dict[str, Any]:
    """`summary` in plain types (see `summarise`, with counts) and the metric's `raw` result."""
    label_of = {name: label for label, name in enumerate(contract.class_names)}
    metric = build_metric(contract.max_detections)
    objects: Counter[str] = Counter()
    difficult: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for image, seen in zip(annotated, detections, strict=True):
        target = {
            "boxes_xyxy": torch.tensor([o.box_xyxy for o in image.objects], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([label_of[o.class_name] for o in image.objects], dtype=torch.int64),
            "difficult": torch.tensor([o.difficult for o in image.objects], dtype=torch.bool),
        }
        prediction = {k: torch.from_numpy(getattr(seen, k)) for k in ("boxes_xyxy", "scores", "labels")}
        metric.update(to_metric_predictions([prediction]), to_metric_targets([target]))
        objects.update(o.class_name for o in image.objects if not o.difficult)
        difficult.update(o.class_name for o in image.objects if o.difficult)
        found.update(contract.class_names[label] for label in seen.labels.tolist())
    raw = metric.compute()
    summary = summarise(raw, contract.class_names)
    for name, values in summary["per_class"].items():
        values.update(objects=objects[name], difficult=difficult[name], detections=found[name])
    return {"summary": summary, "raw": raw}


def to_coco_ground_truth(
    annotated: Sequence[AnnotatedImage], class_names: Sequence[str], sizes: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    """Photos and objects in COCO's annotation format; ids count from 1, category k + 1 is label k.

    A photo's `name` is an addition to the format: it is the same wherever the data lies.
    """
    category_of = {name: label + 1 for label, name in enumerate(class_names)}
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(annotated, start=1):
        for item in image.objects:
            x1, y1, x2, y2 = item.box_xyxy
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_of[item.class_name],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(item.difficult),
                }
            )
    return {
        "images": [
            {
                "id": i,
                "file_name": shown(a.image),
                "name": a.image_id,
                "height": sizes[a.image][0],
                "width": sizes[a.image][1],
            }
            for i, a in enumerate(annotated, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(class_names)],
    }


def to_coco_results(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Detections in COCO's results format, ids as in `to_coco_ground_truth`."""
    return [
        {
            "image_id": image_id,
            "category_id": int(label) + 1,
            # a hundredth of a pixel would move an overlap across a threshold now and then, and a figure with it
            "bbox": [round(float(v), 5) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(score), 7),
        }
        for image_id, found in enumerate(detections, start=1)
        for (x1, y1, x2, y2), score, label in zip(found.boxes_xyxy, found.scores, found.labels, strict=True)
    ]


def _draw_pictures(
    folder: Path, annotated: list[AnnotatedImage], detections: list[Detections], contract: ModelContract, most: int
) -> None:
    """Draws the photos with most mistakes: annotated objects white, detections in their class's colour."""
    label_of = {name: label for label, name in enumerate(contract.class_names)}
    marked = []
    for image in annotated:
        boxes = np.array([o.box_xyxy for o in image.objects], dtype=np.float32).reshape(-1, 4)
        marked.append((boxes, np.array([label_of[o.class_name] for o in image.objects], dtype=np.int64)))
    difficult = [np.array([o.difficult for o in image.objects], dtype=bool) for image in annotated]
    strong = [(d, d.scores >= PICTURE_SCORE) for d in detections]
    wrong = [
        _mistakes(*m, hard, d.boxes_xyxy[s], d.labels[s]) for m, hard, (d, s) in zip(marked, difficult, strong, strict=True)
    ]
    for earlier in folder.glob("[0-9][0-9][0-9]_*-mistakes_*.jpg"):
        earlier.unlink()  # it would be taken for one of this evaluation's
    for rank, i in enumerate(sorted(range(len(annotated)), key=lambda i: -wrong[i])[:most], start=1):
        picture = draw_boxes(read_image(annotated[i].image), *marked[i], contract.class_names, colour=GROUND_TRUTH)
        d, s = strong[i]
        picture = draw_boxes(picture, d.boxes_xyxy[s], d.labels[s], contract.class_names, d.scores[s])
        with atomic_path(folder / f"{rank:03d}_{wrong[i]}-mistakes_{Path(shown(annotated[i].image)).stem}.jpg") as temporary:
            save_image(temporary, picture)


def _mistakes(
    marked_xyxy: np.ndarray,
    marked_labels: np.ndarray,
    marked_difficult: np.ndarray,
    found_xyxy: np.ndarray,
    found_labels: np.ndarray,
) -> int:
    """Missed objects and false detections of one photo; a detection, strongest first, takes the best free object.

    A difficult object is no miss, and what finds it is no false detection.
    """
    iou = pairwise_iou(found_xyxy, marked_xyxy)
    iou = np.where(found_labels[:, None] == marked_labels[None], iou, 0.0)
    missed, false = ~marked_difficult, 0
    for row in range(len(iou)):
        if iou.shape[1] and iou[row].max() >= 0.5:
            missed[iou[row].argmax()] = False
            iou[:, iou[row].argmax()] = 0.0
        else:
            false += 1
    return int(missed.sum()) + false
