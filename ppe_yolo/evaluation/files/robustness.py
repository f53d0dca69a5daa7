"""robustness.json: figures under corruptions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.evaluation.files.folder import ROBUSTNESS_FILE, read_json


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
