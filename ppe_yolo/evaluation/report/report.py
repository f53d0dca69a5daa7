"""`ppe-yolo report`: how good is the detector, and which alarm threshold? Measure, draw, render, write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ppe_yolo.core.contract import DEFAULT_SCORE_THRESHOLD
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, write_json, write_text
from ppe_yolo.data.held_out import VAL
from ppe_yolo.evaluation.data_sets import DataSpec
from ppe_yolo.evaluation.decisions.rules import parse_rules
from ppe_yolo.evaluation.files.operating_point import read_thresholds, write_operating_point
from ppe_yolo.evaluation.report.charts import draw_charts
from ppe_yolo.evaluation.report.figures import SplitFigures, measure, operating_point_to_plain, to_plain
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
    class_map: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
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
        class_map: Name or file, for one data set.
        on_error: As in the evaluation.
        rules: How to choose thresholds, see `parse_rules`; on validation images only.
        operating_point: Thresholds that were chosen before.
        run_dir: A run folder, for its training curves.

    Raises:
        UserError: The files do not belong together, or thresholds would be chosen on images that are not for that.
    """
    material = read_material(detections, data, split=split, class_map=class_map, on_error=on_error)
    thresholds, origin = None, ""
    if operating_point is not None:
        info = material.truth.info
        thresholds = read_thresholds(
            operating_point,
            material.class_names,
            model_hash=info.checkpoint_blake2b,
            tiles=info.tiles,
            input_size=info.input_size,
        )
        origin = f"chosen before, from {operating_point.name}"
    return write_report(material, out, rules=rules, thresholds=thresholds, origin=origin, run_dir=run_dir)


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
    names, split = material.class_names, material.truth.info.split
    if rules and split != VAL:
        raise UserError(
            f"thresholds are chosen on validation images alone, got --split {split}",
            setting="rule",
            hint="report on --split val, then pass its operating_point.json with --operating-point",
        )
    if rules and thresholds is not None:
        raise UserError("choose thresholds by a rule or pass them with --operating-point, not both", setting="rule")
    chosen_by = parse_rules(rules, names) if split == VAL and thresholds is None else {}
    if chosen_by:
        origin = "chosen on these validation images"
    elif thresholds is None:
        origin = f"{DEFAULT_SCORE_THRESHOLD:g}, as in the original system: none was chosen on validation images yet"
    training = read_training_curves(run_dir) if run_dir is not None else {}

    figures = measure(material, chosen_by, thresholds or dict.fromkeys(names, DEFAULT_SCORE_THRESHOLD), origin)
    plain = to_plain(material, figures)
    charts = draw_charts(material, figures, training)
    page = render(
        material,
        figures,
        plain,
        charts=charts,
        false_alarms=draw_false_alarms(material, figures.false_alarms),
        misses=draw_misses(material, figures.misses, figures.outcome.taker),
        corruptions=read_corruptions(material),
        has_training=bool(training),
    )

    for chart in charts:
        with atomic_path(out / f"{chart.name}.png") as temporary:
            temporary.write_bytes(chart.png)
    write_text(out / "results.txt", results_text(material, figures))
    write_text(out / "suspects.csv", suspects_csv(material, figures.suspects))
    write_json(out / "report.json", plain)
    if chosen_by:
        write_operating_point(out, operating_point_to_plain(material, figures))
    write_text(out / "report.html", page)  # last: if it exists, the other files do
    return Report(material=material, figures=figures, plain=plain)
