"""The page: report.html from figures, charts and crops. It needs no other file."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from ppe_yolo.evaluation.metrics.domain_figures import MATCH_IOU, SIZES
from ppe_yolo.evaluation.metrics.mistakes import FalseAlarm
from ppe_yolo.evaluation.percent import percent
from ppe_yolo.evaluation.report.charts import Chart
from ppe_yolo.evaluation.report.figures import SUSPECT_SCORE, SplitFigures
from ppe_yolo.evaluation.report.gallery import Crop
from ppe_yolo.evaluation.report.material import Material
from ppe_yolo.evaluation.report.texts import too_few
from ppe_yolo.evaluation.robustness import FAILURE
from ppe_yolo.html import page_environment

SUSPECTS_SHOWN = 20


def render(
    material: Material,
    figures: SplitFigures,
    plain: dict[str, Any],
    *,
    charts: Sequence[Chart],
    false_alarms: Sequence[Crop],
    misses: Sequence[Crop],
    corruptions: Sequence[Crop],
    has_training: bool,
) -> str:
    """The page as HTML.

    Args:
        material: The split.
        figures: Its figures.
        plain: The content of report.json.
        charts: The charts.
        false_alarms: Crops of false alarms.
        misses: Crops of missed objects.
        corruptions: One image of each corruption.
        has_training: Whether there are charts of the training.
    """
    environment = page_environment("ppe_yolo.evaluation.report")
    environment.filters["percent"] = percent
    environment.filters["short"] = lambda pair: "" if pair is None else f"{100 * pair[0]:.1f}-{100 * pair[1]:.1f}"
    environment.filters["band"] = lambda pair: (
        "" if pair is None else Markup("95 % interval {:.1f} to {:.1f} %<br>").format(100 * pair[0], 100 * pair[1])
    )
    anchors = {crop.anchor for crop in false_alarms}
    return environment.get_template("report.html.j2").render(
        material=material,
        display=dict(zip(material.class_names, material.display_names, strict=True)),
        figures=figures,
        plain=plain,
        charts={c.name: c for c in charts},
        training=has_training,
        false_alarms=false_alarms,
        misses=misses,
        corruptions=corruptions,
        failure=FAILURE,
        sizes=list(SIZES),
        match_iou=MATCH_IOU,
        suspects=[_suspect_row(material, s, anchors) for s in figures.suspects[:SUSPECTS_SHOWN]],
        suspect_score=SUSPECT_SCORE,
        too_few=lambda name: too_few(figures, material, name),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _suspect_row(material: Material, suspect: FalseAlarm, anchors: set[str]) -> dict[str, Any]:
    table, d = material.detections, suspect.detection
    return {
        "image": material.annotated[table.images[d]].image_id,
        "box": ", ".join(f"{v:.0f}" for v in table.boxes_xyxy[d]),
        "detected": material.display_names[table.labels[d]],
        "score": float(table.scores[d]),
        "kind": suspect.kind,
        "anchor": f"alarm-{d}" if f"alarm-{d}" in anchors else None,
    }
