"""What a report is made from: detections.json, the ground_truth.json beside it, and the annotated photos. No torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.validation import VAL, training_split
from ppe_yolo.evaluation.metrics.matching import DetectionTable, from_coco_results

GROUND_TRUTH_FILE = "ground_truth.json"
ROBUSTNESS_FILE = "robustness.json"  # there only where `evaluate --robustness` left it


@dataclass(frozen=True)
class Material:
    """A measured split.

    Attributes:
        annotated: Its photos.
        detections: What was found in them.
        class_names: Names of the labels.
        split: Its name.
        data: The data set.
        model: The model's name; empty when it is not known.
        checkpoint_blake2b: Hash of the run's checkpoint that it is or was made from, or None.
        tiles: How it looked at the photos, see `TiledDetector`; 1: at whole ones alone.
        robustness: What robustness.json holds, or None where it was not asked for.
        folder: Where its pictures are.
    """

    annotated: list[AnnotatedImage]
    detections: DetectionTable
    class_names: tuple[str, ...]
    split: str
    data: str
    model: str
    checkpoint_blake2b: str | None
    tiles: int = 1
    robustness: Mapping[str, Any] | None = None
    folder: Path = Path()


def read_material(
    detections: Path, data: str, *, split: str, class_map: str | None = None, on_error: Literal["stop", "skip"] = "stop"
) -> Material:
    """Reads the files of `ppe-yolo evaluate` and the data that they belong to.

    The annotation is the data's own, as it is now. Without a ground_truth.json beside the detections, image_id counts the
    photos of the split in the order of the data.

    Raises:
        UserError: A file that cannot be read, or that belongs to other photos, classes or another split.
    """
    rows = read_json(detections)
    truth_path = detections.with_name(GROUND_TRUTH_FILE)
    truth = read_json(truth_path) if truth_path.exists() else None
    # the division into training and validation depends on images that look alike in any split
    splits = None if split == VAL else [split]
    dataset = AnnotatedDataset.open(data, class_map, splits=splits, on_error=on_error, progress=False)
    class_names = dataset.class_map.class_names
    info: Mapping[str, Any] = {}
    if truth is None:
        if split == VAL and VAL not in dataset.splits:
            raise UserError(
                f"{truth_path}: expected it beside {detections.name}, since it tells which photos were held out for "
                f"validation ({data} has no split {VAL}), got no such file"
            )
        annotated = dataset.split(split)
    else:
        info, annotated = _listed_photos(truth, truth_path, dataset, split, class_names)
    check_rows(rows, detections, len(annotated), class_names)
    return Material(
        annotated,
        from_coco_results(rows),
        class_names,
        split,
        data,
        str(info.get("model", "")),
        info.get("checkpoint_blake2b"),
        info.get("tiles", 1),
        _read_robustness(detections.with_name(ROBUSTNESS_FILE)),
        detections.parent,
    )


def _read_robustness(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    values = read_json(path)
    if not isinstance(values, Mapping) or set(values) != {"thresholds", "clean", "conditions"}:
        raise UserError(f"{path}: expected one that `ppe-yolo evaluate --robustness` wrote, got JSON of another kind")
    return values


def read_json(path: Path) -> Any:
    """Reads one of the files of `ppe-yolo evaluate`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected JSON written by `ppe-yolo evaluate`, cannot be read ({error})") from error


def _listed_photos(
    truth: Any, path: Path, dataset: AnnotatedDataset, split: str, class_names: tuple[str, ...]
) -> tuple[Mapping[str, Any], list[AnnotatedImage]]:
    """The photos in the order of their ids; their annotation comes from the data."""
    try:
        info, names = truth["info"], [entry["name"] for entry in truth["images"]]
        ids = [entry["id"] for entry in truth["images"]]
        classes, was = tuple(c["name"] for c in truth["categories"]), info["split"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected one that `ppe-yolo evaluate` wrote, got one without {error}: evaluate again"
        ) from error
    if ids != list(range(1, len(ids) + 1)):
        raise UserError(f"{path}: expected ids of photos from 1 in order, got {ids[:5]}: evaluate again")
    if was != split:
        raise UserError(f"{path}: holds the split {was}, asked for {split}: give --split {was}, or evaluate that split")
    if classes != class_names:
        raise UserError(
            f"{path}: holds the classes {', '.join(classes)}, the class map makes {', '.join(class_names)}: choose the class "
            "map with --class-map"
        )
    held_out = split == VAL and VAL not in dataset.splits
    photos = {a.image_id: a for a in dataset.split(training_split(dataset) if held_out else split)}
    missing = [n for n in names if n not in photos]
    more = [] if held_out else sorted(set(photos) - set(names))
    if missing or more:
        what = f"{missing[0]!r} is not in the split" if missing else f"{more[0]!r} was not measured"
        raise UserError(
            f"{path}: holds other photos than {dataset.root} ({what}): evaluate again, or give the data it was made on"
        )
    return info, [photos[n] for n in names]


def check_rows(rows: Any, path: Path, photos: int, class_names: tuple[str, ...]) -> None:
    """Refuses what would end in a wrong figure."""
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of COCO results, got {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        try:
            numbers = [*row["bbox"], row["score"]]
            good = len(numbers) == 5 and all(math.isfinite(v) for v in numbers) and min(numbers[2:4]) >= 0
            good = good and 0 <= row["score"] <= 1
            photo, category = row["image_id"], row["category_id"]
            good = good and isinstance(photo, int) and isinstance(category, int)
        except (KeyError, TypeError):
            good = False
        if not good:
            raise UserError(
                f"{path}: result {number}: expected image_id, category_id, bbox [x, y, width, height] and a score from 0 to 1, "
                f"got {json.dumps(row)[:120]}"
            )
        if not 1 <= photo <= photos:
            raise UserError(f"{path}: result {number}: expected an image_id from 1 to {photos}, got {photo}: other photos?")
        if not 1 <= category <= len(class_names):
            raise UserError(
                f"{path}: result {number}: expected a category_id from 1 to {len(class_names)} ({', '.join(class_names)}), "
                f"got {category}"
            )
