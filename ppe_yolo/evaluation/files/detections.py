"""detections.json: the detections, in COCO's results format."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.evaluation.files.folder import DETECTIONS_FILE, read_json
from ppe_yolo.evaluation.metrics.matching import DetectionTable, from_coco_results


def to_coco_results(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Detections in COCO's results format: image_id counts from 1, and category k + 1 is label k."""
    return [
        {
            "image_id": image_id,
            "category_id": int(label) + 1,
            # coarser rounding would occasionally move an IoU across a threshold, and change a figure
            "bbox": [round(float(v), 5) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(score), 7),
        }
        for image_id, one in enumerate(detections, start=1)
        for (x1, y1, x2, y2), score, label in zip(one.boxes_xyxy, one.scores, one.labels, strict=True)
    ]


def write_detections(folder: Path, detections: Sequence[Detections]) -> None:
    """Writes detections.json."""
    write_json(folder / DETECTIONS_FILE, to_coco_results(detections))


def read_detections(path: Path, images: int, class_names: Sequence[str]) -> DetectionTable:
    """Reads and checks a detections.json.

    Args:
        path: The file.
        images: Number of evaluated images.
        class_names: The classes.

    Raises:
        UserError: The file cannot be read, or a row would lead to wrong figures.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(file=path, expected="a list of COCO results", got=type(rows).__name__)
    for number, row in enumerate(rows, start=1):
        _check_row(row, f"result {number}", path, images, class_names)
    return from_coco_results(rows)


def check_box_and_score(row: Any, item: str, path: Path) -> None:
    """Checks `bbox` and `score` of a row of COCO results.

    Raises:
        UserError: They are missing, or have impossible values.
    """
    try:
        numbers = [*row["bbox"], row["score"]]
        good = len(numbers) == 5 and all(math.isfinite(v) for v in numbers) and min(numbers[2:4]) >= 0
        good = good and 0 <= row["score"] <= 1
    except (KeyError, TypeError):
        good = False
    if not good:
        raise UserError(
            file=path,
            item=item,
            expected="image_id, category_id, bbox [x, y, width, height] and a score from 0 to 1",
            got=json.dumps(row)[:120],
        )


def check_category(category: Any, item: str, path: Path, class_names: Sequence[str]) -> None:
    """Checks that `category_id` is k + 1 for one of the classes k.

    Raises:
        UserError: It is not.
    """
    if isinstance(category, bool) or not isinstance(category, int) or not 1 <= category <= len(class_names):
        raise UserError(
            file=path,
            item=item,
            expected=f"a category_id from 1 to {len(class_names)} ({', '.join(class_names)})",
            got=repr(category),
        )


def _check_row(row: Any, item: str, path: Path, images: int, class_names: Sequence[str]) -> None:
    check_box_and_score(row, item, path)
    image = row.get("image_id")
    if isinstance(image, bool) or not isinstance(image, int) or not 1 <= image <= images:
        raise UserError(
            file=path,
            item=item,
            expected=f"an image_id from 1 to {images}",
            got=repr(image),
            hint="the detections may belong to other images",
        )
    check_category(row.get("category_id"), item, path, class_names)
