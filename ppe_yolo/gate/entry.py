"""A candidate for promotion: a model file and its evaluation, read and checked."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppe_yolo.core.errors import UserError
from ppe_yolo.evaluation.decisions.selection import Contender, Photos
from ppe_yolo.evaluation.metrics.matching import TargetTable, from_coco_results
from ppe_yolo.evaluation.report.material import GROUND_TRUTH_FILE, check_rows, read_json
from ppe_yolo.export.benchmark import available_threads
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector

EVALUATION_FILES = ("metrics.json", "detections.json", GROUND_TRUTH_FILE)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model file and its evaluation on test images.

    Attributes:
        detector: The model.
        photos: The images and their objects.
        contender: Its detections and alarm thresholds.
        data_blake2b: Hash of the images' names, sizes and objects, see `read_truth`.
        model_blake2b: Hash of the file.
        checkpoint_blake2b: Hash of the checkpoint that it was exported from, if known.
    """

    detector: OnnxDetector
    photos: Photos
    contender: Contender
    data_blake2b: str
    model_blake2b: str
    checkpoint_blake2b: str | None


def read_entry(model: Path, evaluation: Path, critical_class: str) -> Entry:
    """Reads and checks a model file and the files of its `ppe-yolo evaluate`.

    Raises:
        UserError: Files that cannot be read, do not belong together, or are not enough for a decision.
    """
    detector = load_onnx_detector(model, device="cpu", threads=available_threads())
    names = detector.contract.class_names
    if critical_class not in names:
        raise UserError(setting="critical_class", expected=f"one of {', '.join(names)}", got=repr(critical_class))
    if critical_class not in detector.contract.alarm_thresholds:
        raise UserError(
            file=model,
            expected=f"an alarm threshold of {critical_class} (the class) in its contract",
            got="none",
            hint="export with --alarm-thresholds",
        )
    read_json(evaluation / "metrics.json")  # evaluate writes it last: without it, the evaluation is incomplete
    path = evaluation / GROUND_TRUTH_FILE
    photos, place, digest, info = read_truth(path)
    model_hash = hashlib.blake2b(model.read_bytes(), digest_size=16).hexdigest()
    if info.get("model_blake2b") != model_hash:
        raise UserError(
            f"holds an evaluation of another file ({info.get('model')}) than {model}",
            file=path,
            hint=f"run `ppe-yolo evaluate {model}`",
        )
    if info.get("split") != "test":
        raise UserError(file=path, expected="the split test", got=str(info.get("split")), hint="evaluate with --split test")
    if info.get("tiles", 1) != 1:
        raise UserError(file=path, expected="whole images, as on the edge device", got=f"--tiles {info['tiles']}")
    if photos.class_names != names:
        raise UserError(file=path, expected=f"the model's classes {', '.join(names)}", got=", ".join(photos.class_names))
    targets = photos.targets
    if not ((targets.labels == names.index(critical_class)) & ~targets.difficult).any():
        raise UserError(
            file=path, expected=f"images with objects of {critical_class}", got="none", hint="recall cannot be measured"
        )
    rows = read_json(evaluation / "detections.json")
    check_rows(rows, evaluation / "detections.json", photos.count, names)
    moved = [{**r, "image_id": place[r["image_id"] - 1] + 1} for r in rows]
    contender = Contender(from_coco_results(moved), detector.contract.alarm_thresholds)
    return Entry(
        detector=detector,
        photos=photos,
        contender=contender,
        data_blake2b=digest,
        model_blake2b=model_hash,
        checkpoint_blake2b=info.get("checkpoint_blake2b"),
    )


def read_truth(path: Path) -> tuple[Photos, list[int], str, dict[str, Any]]:
    """Reads a ground_truth.json.

    The data hash covers the classes, and the name, size and objects of each image. The order of images and objects, the
    location of the files and the pixels do not change it.

    Returns:
        The images in the order of their names; the index of each image_id, from 1, in that order; the data hash; and what the
        file says about the model.
    """
    truth = read_json(path)
    try:
        info, images, names = truth["info"], truth["images"], [c["name"] for c in truth["categories"]]
        ids = [i["id"] for i in images]
        objects: dict[int, list[tuple[int, int, list[float]]]] = {i: [] for i in ids}
        for a in truth["annotations"]:
            objects[a["image_id"]].append((a["category_id"], a["iscrowd"], [float(v) for v in a["bbox"]]))
        listed = [(i["name"], i["width"], i["height"], sorted(objects[i["id"]])) for i in images]
        order = sorted(range(len(listed)), key=lambda i: listed[i])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"is not a file written by `ppe-yolo evaluate` ({error!r})", file=path, hint="evaluate again"
        ) from error
    if not ids or ids != list(range(1, len(ids) + 1)):
        raise UserError(file=path, expected="image ids from 1 in order", got=str(ids[:5]), hint="evaluate again")
    rows = [(photo, *item) for photo, i in enumerate(order) for item in listed[i][3]]
    boxes = np.array([r[3] for r in rows], dtype=np.float64).reshape(-1, 4)
    targets = TargetTable(
        np.array([r[0] for r in rows], dtype=np.int64),
        np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1),
        np.array([r[1] for r in rows], dtype=np.int64) - 1,
        np.array([r[2] for r in rows], dtype=bool),
    )
    content = json.dumps([names, [listed[i] for i in order]], ensure_ascii=False)
    digest = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    return Photos(len(images), targets, tuple(names)), np.argsort(order).tolist(), digest, info
