"""The names of the files in the folder of an evaluation, and how one is read."""

import json
from pathlib import Path
from typing import Any

from ppe_yolo.core.errors import UserError

METRICS_FILE = "metrics.json"
DETECTIONS_FILE = "detections.json"
GROUND_TRUTH_FILE = "ground_truth.json"
OPERATING_POINT_FILE = "operating_point.json"
ROBUSTNESS_FILE = "robustness.json"  # only after `evaluate --robustness`
EVALUATION_FILES = (METRICS_FILE, DETECTIONS_FILE, GROUND_TRUTH_FILE)


def read_json(path: Path) -> Any:
    """Reads a file written by `ppe-yolo evaluate`.

    Raises:
        UserError: The file is missing, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", file=path, expected="JSON written by `ppe-yolo evaluate`") from error
