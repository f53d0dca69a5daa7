"""The files between commands: metrics, detections, ground truth, robustness and operating point, as JSON. No torch.

Each file has one reader and one writer here. `evaluate` writes the first four, `report` the last; `report`, `promote` and
`export` read them.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.evaluation.ground_truth import EvaluationInfo, GroundTruth, ImageRecord
from ppe_yolo.evaluation.metrics.domain_figures import PlainDomainFigures
from ppe_yolo.evaluation.metrics.matching import DetectionTable, TargetTable, from_coco_results

METRICS_FILE = "metrics.json"
DETECTIONS_FILE = "detections.json"
GROUND_TRUTH_FILE = "ground_truth.json"
OPERATING_POINT_FILE = "operating_point.json"
ROBUSTNESS_FILE = "robustness.json"  # only after `evaluate --robustness`
EVALUATION_FILES = (METRICS_FILE, DETECTIONS_FILE, GROUND_TRUTH_FILE)


def number_or_none(value: float) -> float | None:
    """Returns a figure in JSON's types; None if it is undefined (NaN), for example without objects."""
    return None if math.isnan(value) else float(value)


# --- metrics.json


class ClassMetrics(TypedDict):
    """Figures of one class; None without objects."""

    ap: float | None
    ap_50: float | None
    recall_50: float | None
    objects: int
    difficult: int
    detections: int


class DomainMetrics(PlainDomainFigures):
    """Figures of one data set."""

    data: str
    class_map: str
    skipped_images: int


class Metrics(TypedDict):
    """Figures of a model on a split, over all its data sets."""

    model: str
    data: str
    split: str
    tiles: int
    map: float | None
    map_50: float | None
    map_75: float | None
    per_class: dict[str, ClassMetrics]
    images: int
    skipped_images: int
    domains: list[DomainMetrics]


def write_metrics(folder: Path, metrics: Metrics) -> None:
    """Writes metrics.json."""
    write_json(folder / METRICS_FILE, metrics)


def read_metrics(folder: Path) -> Metrics:
    """Reads metrics.json. `evaluate` writes it last, so an evaluation without it is incomplete.

    Raises:
        UserError: The file cannot be read.
    """
    values = read_json(folder / METRICS_FILE)
    if not isinstance(values, dict):
        raise UserError(file=folder / METRICS_FILE, expected="a file written by `ppe-yolo evaluate`", got=type(values).__name__)
    return cast(Metrics, values)


# --- detections.json


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


# --- ground_truth.json


def write_ground_truth(folder: Path, truth: GroundTruth) -> None:
    """Writes ground_truth.json in COCO's annotation format: ids count from 1, and category k + 1 is label k.

    The format is extended by each image's `name` and `domain` and by the key `ppe_yolo`; other readers of COCO ignore them.
    """
    about, targets = truth.info, truth.targets
    widths, heights = (targets.boxes_xyxy[:, 2:] - targets.boxes_xyxy[:, :2]).T.tolist()
    rows = zip(
        targets.images.tolist(), targets.labels.tolist(), targets.difficult.tolist(), targets.boxes_xyxy.tolist(), strict=True
    )
    extra: dict[str, Any] = {"display_names": dict(about.display_names)}
    if about.input_size is not None:
        extra["input_size"] = list(about.input_size)
    values = {
        "info": {
            "split": about.split,
            "tiles": about.tiles,
            "model": about.model,
            "checkpoint_blake2b": about.checkpoint_blake2b,
            "model_blake2b": about.model_blake2b,
        },
        "ppe_yolo": extra,
        "images": [
            {"id": i, "file_name": one.file_name, "name": one.name, "height": one.height, "width": one.width}
            | ({"domain": one.domain} if one.domain else {})
            for i, one in enumerate(truth.images, start=1)
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": image + 1,
                "category_id": label + 1,
                "bbox": [box[0], box[1], widths[i], heights[i]],
                "area": widths[i] * heights[i],
                "iscrowd": int(difficult),
            }
            for i, (image, label, difficult, box) in enumerate(rows)
        ],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(truth.class_names)],
    }
    write_json(folder / GROUND_TRUTH_FILE, values)


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads and checks a ground_truth.json.

    Raises:
        UserError: The file cannot be read, or `evaluate` did not write it.
    """
    truth = read_json(path)
    hint = "evaluate again"
    try:
        info, extra = truth["info"], truth.get("ppe_yolo", {})
        class_names = tuple(c["name"] for c in truth["categories"])
        images = tuple(
            ImageRecord(
                name=i["name"],
                file_name=i.get("file_name", ""),
                height=i["height"],
                width=i["width"],
                domain=i.get("domain", ""),
            )
            for i in truth["images"]
        )
        ids = [i["id"] for i in truth["images"]]
        place = {image_id: k for k, image_id in enumerate(ids)}
        objects: list[list[tuple[int, int, list[float]]]] = [[] for _ in ids]
        for a in truth["annotations"]:
            objects[place[a["image_id"]]].append((a["category_id"], a["iscrowd"], [float(v) for v in a["bbox"]]))
        about = EvaluationInfo(
            model=str(info.get("model", "")),
            split=info["split"],
            tiles=info.get("tiles", 1),
            checkpoint_blake2b=info.get("checkpoint_blake2b"),
            model_blake2b=info.get("model_blake2b"),
            input_size=tuple(extra["input_size"]) if "input_size" in extra else None,
            display_names=dict(extra.get("display_names", {})),
        )
        listed = sorted((i.name, i.width, i.height, sorted(o)) for i, o in zip(images, objects, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            file=path, expected="a file written by `ppe-yolo evaluate`", got=f"one without {error}", hint=hint
        ) from error
    if not ids or ids != list(range(1, len(ids) + 1)):
        raise UserError(file=path, expected="image ids from 1 in order", got=str(ids[:5]), hint=hint)
    rows = [(image, *item) for image, own in enumerate(objects) for item in own]
    boxes = np.array([r[3] for r in rows], dtype=np.float64).reshape(-1, 4)
    targets = TargetTable(
        images=np.array([r[0] for r in rows], dtype=np.int64),
        boxes_xyxy=np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1),
        labels=np.array([r[1] for r in rows], dtype=np.int64) - 1,
        difficult=np.array([r[2] for r in rows], dtype=bool),
    )
    content = json.dumps([class_names, listed], ensure_ascii=False)
    digest = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    return GroundTruth(images=images, targets=targets, class_names=class_names, info=about, data_blake2b=digest)


# --- operating_point.json


class ClassPoint(TypedDict, total=False):
    """The alarm threshold of one class; figures at it are there only if a threshold meets the rule."""

    rule: str
    threshold: float | None
    threshold_interval: tuple[float, float] | None
    rule_met_in_samples: float | None
    nearest_to_rule: float | None
    needed_images: int | None
    precision: float | None
    recall: float | None


class OperatingPointFile(TypedDict, total=False):
    """Alarm thresholds chosen on validation images."""

    model: str
    checkpoint_blake2b: str | None
    data: str
    split: str
    tiles: int
    input_size: list[int] | None
    images: int
    bootstrap: dict[str, float]
    score_histogram: list[int]
    classes: dict[str, ClassPoint]


def write_operating_point(folder: Path, point: OperatingPointFile) -> None:
    """Writes operating_point.json."""
    write_json(folder / OPERATING_POINT_FILE, point)


def read_operating_point(path: Path) -> OperatingPointFile:
    """Reads an operating_point.json; a class may lack a threshold.

    Raises:
        UserError: The file cannot be read, or `report` did not write it.
    """
    expected = "an operating_point.json written by `ppe-yolo report`"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", file=path, expected=expected) from error
    classes = values.get("classes") if isinstance(values, dict) else None
    if not isinstance(classes, Mapping) or not all(isinstance(v, Mapping) and "threshold" in v for v in classes.values()):
        raise UserError(file=path, expected=expected, got="JSON of another kind")
    return cast(OperatingPointFile, values)


def read_thresholds(
    path: Path,
    class_names: Sequence[str],
    *,
    model_hash: str | None = None,
    tiles: int = 1,
    input_size: tuple[int, int] | None = None,
    unrecorded_size: tuple[int, int] | None = None,
) -> dict[str, float]:
    """The thresholds of an operating_point.json, checked against the model that will use them.

    Args:
        path: Written by `ppe-yolo report` on a validation split.
        class_names: The model's classes.
        model_hash: The model's `training_hash`; not compared if None.
        tiles: How the model will process images: at the same score, tiles yield more detections and more false alarms.
        input_size: (height, width) at which the thresholds will be used; not compared if None.
        unrecorded_size: The size at which they were chosen if the file does not record it (before 0.2); not compared if None.

    Raises:
        UserError: The file cannot be read, belongs to other classes, another model or another input size, or lacks the
            threshold of a class.
    """
    values = read_operating_point(path)
    classes = values["classes"]
    if set(classes) != set(class_names):
        raise UserError(file=path, expected=f"thresholds of {', '.join(class_names)}", got=f"those of {', '.join(classes)}")
    if model_hash is not None and values.get("checkpoint_blake2b") not in (None, model_hash):
        raise UserError(
            f"the thresholds were chosen for another model ({values.get('model')})",
            file=path,
            hint="evaluate this model on its validation images and report again",
        )
    if values.get("tiles", 1) != tiles:
        raise UserError(
            file=path,
            expected=f"thresholds chosen with --tiles {tiles}",
            got=f"--tiles {values.get('tiles', 1)}",
            hint=f"evaluate the validation images with --tiles {tiles} and report again",
        )
    chosen_at = values.get("input_size") or unrecorded_size
    if input_size is not None and chosen_at is not None and tuple(chosen_at) != tuple(input_size):
        raise UserError(
            file=path,
            expected=f"thresholds chosen at the input size {input_size[0]} x {input_size[1]}",
            got=f"those of {chosen_at[0]} x {chosen_at[1]}",
            hint="evaluate the validation images with a model of that input size, without thresholds, and report again",
        )
    thresholds: dict[str, float] = {}
    for name in class_names:
        threshold = classes[name]["threshold"]
        if threshold is None:
            raise UserError(
                f"no threshold meets {classes[name].get('rule')}", file=path, item=name, hint="report again with another --rule"
            )
        if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0.0 <= threshold <= 1.0:
            raise UserError(file=path, item=name, expected="a threshold from 0 to 1", got=repr(threshold))
        thresholds[name] = float(threshold)
    return thresholds


def with_operating_point(
    contract: ModelContract, path: Path, *, model_hash: str | None, trained_size: tuple[int, int]
) -> ModelContract:
    """The contract with the alarm thresholds and the score histogram of an operating_point.json.

    Args:
        contract: The contract of the model, with the input size at which it will be used.
        path: Written by `ppe-yolo report` on a validation split.
        model_hash: See `read_thresholds`.
        trained_size: The input size of the training.

    Raises:
        UserError: See `read_thresholds`.
    """
    thresholds = read_thresholds(
        path,
        contract.class_names,
        model_hash=model_hash,
        input_size=contract.input_size,
        unrecorded_size=trained_size,
    )
    return replace(contract, alarm_thresholds=thresholds, score_histogram=_read_score_histogram(path))


def _read_score_histogram(path: Path) -> tuple[int, ...]:
    """Empty in files written before 0.2."""
    counts = read_operating_point(path).get("score_histogram", [])
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise UserError(file=path, item="score_histogram", expected="counts", got=repr(counts)[:60], hint="report again")
    return tuple(counts)


# --- robustness.json


def write_robustness(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes robustness.json; see `measure_robustness`."""
    write_json(folder / ROBUSTNESS_FILE, values)


def read_robustness(folder: Path) -> Mapping[str, Any] | None:
    """Reads robustness.json; None without the file, which only `evaluate --robustness` writes.

    Raises:
        UserError: The file cannot be read.
    """
    path = folder / ROBUSTNESS_FILE
    if not path.exists():
        return None
    values = read_json(path)
    if not isinstance(values, Mapping) or set(values) != {"thresholds", "clean", "conditions"}:
        raise UserError(file=path, expected="a file written by `ppe-yolo evaluate --robustness`", got="JSON of another kind")
    return values


# --- all


def read_json(path: Path) -> Any:
    """Reads a file written by `ppe-yolo evaluate`.

    Raises:
        UserError: The file is missing, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", file=path, expected="JSON written by `ppe-yolo evaluate`") from error
