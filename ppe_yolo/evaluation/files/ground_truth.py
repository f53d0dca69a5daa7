"""ground_truth.json: the images and their objects, in COCO's annotation format."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.evaluation.files.folder import GROUND_TRUTH_FILE, read_json
from ppe_yolo.evaluation.ground_truth import EvaluationInfo, GroundTruth, ImageRecord
from ppe_yolo.evaluation.metrics.matching import TargetTable, xywh_to_xyxy


def write_ground_truth(folder: Path, truth: GroundTruth) -> None:
    """Writes ground_truth.json in COCO's annotation format: ids count from 1, and category k + 1 is label k.

    The format is extended by each image's `name` and `domain` and by the key `ppe_yolo`; other readers of COCO ignore them.
    """
    about, targets = truth.info, truth.targets
    widths, heights = (targets.boxes_xyxy[:, 2:] - targets.boxes_xyxy[:, :2]).T.tolist()
    rows = zip(
        targets.images.tolist(), targets.labels.tolist(), targets.difficult.tolist(), targets.boxes_xyxy.tolist(), strict=True
    )
    extra: dict[str, Any] = {
        "display_names": dict(about.display_names),
        "alarm_thresholds": dict(about.alarm_thresholds),
    }
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
        info = _read_info(truth["info"], truth.get("ppe_yolo", {}))
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
        index_of = {image_id: k for k, image_id in enumerate(ids)}
        objects: list[list[tuple[int, int, list[float]]]] = [[] for _ in ids]
        for a in truth["annotations"]:
            objects[index_of[a["image_id"]]].append((a["category_id"], a["iscrowd"], [float(v) for v in a["bbox"]]))
        if any(len(box) != 4 for own in objects for *_, box in own):
            raise ValueError("four numbers in each bbox")
        listed = sorted((i.name, i.width, i.height, sorted(o)) for i, o in zip(images, objects, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            file=path, expected="a file written by `ppe-yolo evaluate`", got=f"one without {error}", hint=hint
        ) from error
    if not ids or ids != list(range(1, len(ids) + 1)):
        raise UserError(file=path, expected="image ids from 1 in order", got=str(ids[:5]), hint=hint)
    rows = [(image, *item) for image, own in enumerate(objects) for item in own]
    targets = TargetTable(
        images=np.array([r[0] for r in rows], dtype=np.int64),
        boxes_xyxy=xywh_to_xyxy([r[3] for r in rows]),
        labels=np.array([r[1] for r in rows], dtype=np.int64) - 1,
        difficult=np.array([r[2] for r in rows], dtype=bool),
    )
    content = json.dumps([class_names, listed], ensure_ascii=False)
    digest = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    return GroundTruth(images=images, targets=targets, class_names=class_names, info=info, data_blake2b=digest)


def _read_info(info: Mapping[str, Any], extra: Mapping[str, Any]) -> EvaluationInfo:
    return EvaluationInfo(
        model=str(info.get("model", "")),
        split=info["split"],
        tiles=info.get("tiles", 1),
        checkpoint_blake2b=info.get("checkpoint_blake2b"),
        model_blake2b=info.get("model_blake2b"),
        input_size=tuple(extra["input_size"]) if "input_size" in extra else None,
        display_names=dict(extra.get("display_names", {})),
        alarm_thresholds={name: float(value) for name, value in extra.get("alarm_thresholds", {}).items()},
    )
