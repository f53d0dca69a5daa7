"""`ppe-yolo report`: is the detector good enough, and which alarm threshold? From files on disk to one self-contained page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ppe_yolo.evaluation.domains import DataSpec
from ppe_yolo.evaluation.files import read_thresholds
from ppe_yolo.evaluation.report.material import read_material
from ppe_yolo.evaluation.report.write import Report, write_report


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
        thresholds = read_thresholds(operating_point, material.class_names, info.checkpoint_blake2b, info.tiles)
        origin = f"chosen before, from {operating_point.name}"
    return write_report(material, out, rules=rules, thresholds=thresholds, origin=origin, run_dir=run_dir)
