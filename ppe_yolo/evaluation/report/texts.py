"""The report's texts: results.txt, suspects.csv, and the lines that the command line prints."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ppe_yolo.data.images import shown
from ppe_yolo.evaluation.files.robustness import Robustness, RobustnessFigures
from ppe_yolo.evaluation.metrics.mistakes import FalseAlarm
from ppe_yolo.evaluation.metrics.voc_ap import mean_average_precision
from ppe_yolo.evaluation.percent import percent
from ppe_yolo.evaluation.report.figures import SplitFigures
from ppe_yolo.evaluation.report.material import Material

WIDE = 0.15  # a threshold chosen on a 95 % interval of recall that is wider than this comes with a warning


def summary_lines(material: Material, figures: SplitFigures, out: Path) -> list[str]:
    """The main figures, for the command line."""
    lines = [
        f"mAP@0.5 {percent(figures.coco.mean(0))} (COCO), {percent(mean_average_precision(figures.voc))} (VOC, scores from "
        f"0.3), mAP@0.5:0.95 {percent(figures.coco.mean())} (COCO)"
    ]
    point = figures.operating_point
    for name, shown_name, at in zip(material.class_names, material.display_names, point.figures, strict=True):
        choice = point.choices.get(name)
        if choice is not None and choice.threshold is None:
            lines.append(f"{shown_name}: NO threshold meets {point.rules[name]}{too_few(figures, material, name)}")
            continue
        lines.append(
            f"{shown_name}: threshold {point.thresholds[name]:.3f}: recall {percent(at.recall)}, precision "
            f"{percent(at.precision)}, {at.false_alarms_per_1000:.0f} false alarms per 1,000 images"
        )
        band = at.recall_interval
        if choice is not None and band is not None and band[1] - band[0] > WIDE:
            lines.append(
                f"{shown_name}: chosen on {at.objects} objects: recall is known only as {100 * band[0]:.0f} to "
                f"{100 * band[1]:.0f} % (95 % interval): choose again on more validation images"
            )
    return [*lines, f"thresholds: {point.origin}", f"report: {out / 'report.html'}"]


def too_few(figures: SplitFigures, material: Material, name: str) -> str:
    """Why no threshold meets the rule of a class, and what to do."""
    rule, choice = figures.operating_point.rules[name], figures.operating_point.choices[name]
    if not len(figures.operating_point.counts[material.class_names.index(name)].wanted):
        return ": these images show none: choose on images that do"
    if rule.confidence is None or choice.needed_images is None:
        best = "" if choice.nearest is None or rule.kind == "false-alarms" else f" (highest recall: {percent(choice.nearest)})"
        return f"{best}: give another --rule"
    return (
        f": {len(material.truth):,} images are too few for {100 * rule.confidence:g} % confidence, about "
        f"{choice.needed_images:,} images like these are needed"
    )


def suspects_csv(material: Material, suspects: Sequence[FalseAlarm]) -> str:
    """All suspects as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "annotation", "x1", "y1", "x2", "y2", "detected", "score", "annotation_says"])
    table = material.detections
    for suspect in suspects:
        d = suspect.detection
        image = material.annotated[table.images[d]]
        box = [f"{v:.1f}" for v in table.boxes_xyxy[d]]
        detected = material.class_names[table.labels[d]]
        writer.writerow([shown(image.image), image.source, *box, detected, f"{table.scores[d]:.4f}", suspect.kind])
    return text.getvalue()


def results_text(material: Material, figures: SplitFigures) -> str:
    """The figures by the VOC protocol in plain text, in the format of the original system."""
    lines = ["# AP and precision/recall per class (VOC: IoU 0.5, all points, scores from 0.3, difficult ignored)"]
    for name, curve in zip(material.class_names, figures.voc, strict=True):
        ap = "no object" if curve.average_precision is None else f"{100 * curve.average_precision:.2f}%"
        lines += [f"{ap} = {name} AP"]
        for word, values in (("Precision", curve.precision), ("Recall", curve.recall)):
            lines.append(f" {word}: [{', '.join(f'{v:.2f}' for v in values)}]")
    mean, coco_50, coco = mean_average_precision(figures.voc), figures.coco.mean(0), figures.coco.mean()
    lines += ["", "# mAP of all classes", f"mAP = {_two_decimals(mean)}"]
    lines += ["", "# For comparison: the COCO protocol (101 recalls, all scores)"]
    lines += [f"mAP@0.5 = {_two_decimals(coco_50)}", f"mAP@0.5:0.95 = {_two_decimals(coco)}"]
    lines += ["", "# Number of ground-truth objects per class"]
    lines += [f"{n}: {c.objects}" for n, c in zip(material.class_names, figures.voc, strict=True)]
    lines += ["", "# Number of predicted objects per class"]
    for n, c in zip(material.class_names, figures.voc, strict=True):
        lines.append(f"{n}: {c.hits + c.false_alarms} (tp:{c.hits}, fp:{c.false_alarms})")
    if material.robustness:
        lines += _robustness_lines(material.robustness)
    return "\n".join(lines) + "\n"


def _robustness_lines(robustness: Robustness) -> list[str]:
    """The last part of results.txt."""
    lines = ["", "# Under corruptions: mAP@0.5 (COCO) and recall at the alarm thresholds; worst first"]
    lines += [_robustness_line(row["name"], row, row["change_map_50"]) for row in robustness["conditions"]]
    return [*lines, _robustness_line("clean", robustness["clean"])]


def _robustness_line(name: str, figures: RobustnessFigures, change: float | None = None) -> str:
    points = "" if change is None else f" ({100 * change:+.2f} points)"
    recalls = ", ".join(f"recall of {n} {_two_decimals(v['recall'])}" for n, v in figures["per_class"].items())
    return f"{name}: mAP@0.5 = {_two_decimals(figures['map_50'])}{points}; {recalls}"


def _two_decimals(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.2f}%"
