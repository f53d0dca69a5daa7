"""metrics.json: the figures of a model on a split."""

import math
from pathlib import Path
from typing import TypedDict, cast

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.evaluation.files.folder import METRICS_FILE, read_json
from ppe_yolo.evaluation.metrics.domain_figures import PlainDomainFigures


def number_or_none(value: float) -> float | None:
    """Returns a figure in JSON's types; None if it is undefined (NaN), for example without objects."""
    return None if math.isnan(value) else float(value)


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
