"""`ppe-yolo report`: how good is the detector, and which alarm threshold? Measure, draw, render, write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppe_yolo.core.files import write_bytes, write_json, write_text
from ppe_yolo.data.dataset import OnError
from ppe_yolo.data.held_out import VAL
from ppe_yolo.data.sources.files import require_outside
from ppe_yolo.evaluation.data_sets import DataSpec
from ppe_yolo.evaluation.decisions.operating_point import decide, operating_point_to_plain
from ppe_yolo.evaluation.files.operating_point import read_thresholds, write_operating_point
from ppe_yolo.evaluation.metrics.matching import match
from ppe_yolo.evaluation.report.charts import draw_charts
from ppe_yolo.evaluation.report.figures import SplitFigures, measure, to_plain
from ppe_yolo.evaluation.report.gallery import draw_false_alarms, draw_misses, read_corruptions
from ppe_yolo.evaluation.report.material import Material, read_material
from ppe_yolo.evaluation.report.page import render
from ppe_yolo.evaluation.report.texts import results_text, suspects_csv
from ppe_yolo.evaluation.report.training_log import read_training_curves


@dataclass(frozen=True, kw_only=True)
class Report:
    """A written report.

    Attributes:
        material: The split.
        figures: Its figures.
        plain: The content of report.json.
    """

    material: Material
    figures: SplitFigures
    plain: dict[str, Any]


def report(
    detections: Path,
    data: str | Sequence[DataSpec],
    out: Path,
    *,
    split: str = "test",
    on_error: OnError = "stop",
    rules: Sequence[str] = (),
    operating_point: Path | None = None,
    run_dir: Path | None = None,
) -> Report:
    """Makes the report from the files of `ppe-yolo evaluate`.

    Args:
        detections: detections.json, with ground_truth.json next to it.
        data: The data set that was evaluated, see `open_source`, or all of them with their class maps.
        out: Folder for the files.
        split: The images that were evaluated.
        on_error: As in the evaluation.
        rules: How to choose thresholds, see `parse_rules`; on validation images only.
        operating_point: Thresholds that were chosen before; by default, on other splits than `val`, those in the model file,
            or 0.3 if it has none.
        run_dir: A run folder, for its training curves.

    Raises:
        UserError: The files do not belong together, or thresholds would be chosen on images that are not for that.
    """
    material = read_material(detections, data, split=split, on_error=on_error)
    for domain in material.domains:
        require_outside(out, domain.root)
    info = material.truth.info
    thresholds, origin = None, ""
    if operating_point is None and split != VAL and not rules:
        thresholds, origin = info.alarm_thresholds or None, origin_in_model(info.tiles)
    elif operating_point is not None:
        thresholds = read_thresholds(
            operating_point,
            material.class_names,
            model_hash=info.checkpoint_blake2b,
            tiles=info.tiles,
            input_size=info.input_size,
        )
        origin = f"chosen before, from {operating_point.name}"
    return write_report(material, out, rules=rules, thresholds=thresholds, origin=origin, run_dir=run_dir)


def origin_in_model(tiles: int) -> str:
    """The origin of the thresholds in the model file, which are always chosen without tiles, for an evaluation with these."""
    return "those in the model file" if tiles == 1 else f"those in the model file, chosen without --tiles {tiles}"


def write_report(
    material: Material,
    out: Path,
    *,
    rules: Sequence[str] = (),
    thresholds: Mapping[str, float] | None = None,
    origin: str = "",
    run_dir: Path | None = None,
) -> Report:
    """Writes report.html, the PNGs, results.txt, suspects.csv, report.json and, for validation images, operating_point.json.

    Args:
        material: The split.
        out: Folder for the files.
        rules: How to choose thresholds; on validation images only.
        thresholds: Class name -> score, instead of choosing them.
        origin: Where these come from, in words.
        run_dir: A run folder, for its training curves.

    Raises:
        UserError: Thresholds would be chosen on images that are not for that, or a file cannot be read or written.
    """
    truth, detections = material.truth, material.detections
    outcome = match(detections, truth.targets)
    point = decide(truth, detections, outcome, rules=rules, given=thresholds, origin=origin)
    training = read_training_curves(run_dir) if run_dir is not None else {}
    figures = measure(material, outcome, point)
    plain = to_plain(material, figures)
    charts = draw_charts(material, figures, training)
    page = render(
        material,
        figures,
        plain,
        charts=charts,
        false_alarms=draw_false_alarms(material, figures.false_alarms),
        misses=draw_misses(material, figures.misses, outcome.taker),
        corruptions=read_corruptions(material),
        has_training=bool(training),
    )

    for chart in charts:
        write_bytes(out / f"{chart.name}.png", chart.png)
    write_text(out / "results.txt", results_text(material, figures))
    write_text(out / "suspects.csv", suspects_csv(material, figures.suspects))
    write_json(out / "report.json", plain)
    if point.choices:
        write_operating_point(out, operating_point_to_plain(truth, detections, material.data, point))
    write_text(out / "report.html", page)  # last: if it exists, the other files do
    return Report(material=material, figures=figures, plain=plain)
