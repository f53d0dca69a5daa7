"""operating_point.json: alarm thresholds chosen on validation images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, cast

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.evaluation.files.folder import OPERATING_POINT_FILE


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
