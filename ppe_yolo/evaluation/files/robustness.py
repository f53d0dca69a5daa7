"""robustness.json: figures under corruptions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.evaluation.files.folder import ROBUSTNESS_FILE, read_json


class ClassRobustness(TypedDict):
    """Figures of one class; None where undefined."""

    ap_50: float | None
    recall: float | None
    false_alarms_per_1000: float


class RobustnessFigures(TypedDict):
    """Figures on the images, clean or corrupted; None without objects."""

    map_50: float | None
    map: float | None
    per_class: dict[str, ClassRobustness]


class CorruptionFigures(RobustnessFigures):
    """Figures under one corruption, with the change against the clean images, and the image that loses most hits."""

    name: str
    severity: str
    change_map_50: float | None
    picture: str
    picture_of: str


class Robustness(TypedDict):
    """Figures at the thresholds: on clean images, and under each corruption, worst first."""

    thresholds: dict[str, float]
    clean: RobustnessFigures
    conditions: list[CorruptionFigures]


def write_robustness(folder: Path, values: Robustness) -> None:
    """Writes robustness.json."""
    write_json(folder / ROBUSTNESS_FILE, values)


def read_robustness(folder: Path) -> Robustness | None:
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
    return cast(Robustness, values)
