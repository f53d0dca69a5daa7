"""The charts of the report. Every line and bar differs from the others in form as well as in colour."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppe_yolo.core.drawing import colour_of
from ppe_yolo.evaluation.files.metrics import number_or_none
from ppe_yolo.evaluation.metrics.coco_ap import RECALLS
from ppe_yolo.evaluation.metrics.matching import Floats, Ints
from ppe_yolo.evaluation.metrics.mistakes import Calibration
from ppe_yolo.evaluation.metrics.voc_ap import VocCurve
from ppe_yolo.evaluation.percent import percent
from ppe_yolo.evaluation.report.figures import SplitFigures
from ppe_yolo.evaluation.report.material import Material
from ppe_yolo.html import data_uri

WIDTH = 5.0  # inches; at 72 pixels per inch it fits a phone, and 10-point letters are 10 pixels high
DPI = 130
BLUE, ORANGE, SKY, GREY = "#0072B2", "#E69F00", "#56B4E9", "#595959"  # Okabe & Ito 2008
_STYLES = ("-", "--", ":", "-.")
_HATCHES = ("", "//", "..", "xx")


@dataclass(frozen=True)
class Chart:
    """A chart of the page: the name of its file, the PNG, and its content in words."""

    name: str
    png: bytes
    alt: str

    @property
    def uri(self) -> str:
        """The PNG as a data URI."""
        return data_uri(self.png, "png")


def class_colours(class_names: Sequence[str]) -> list[tuple[float, ...]]:
    """The colours that classes have on images, for matplotlib."""
    return [tuple(v / 255 for v in colour_of(name, label)) for label, name in enumerate(class_names)]


def _axes(height: float = 3.4, **labels: Any) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set(**labels)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def _bars(
    names: Sequence[str], groups: Mapping[str, Sequence[float]], colours: Sequence[Any], form: str, **labels: Any
) -> Figure:
    """Bars next to each other for each name, from the top, with their values; NaN has no bar."""
    figure, axes = _axes(0.9 + 0.32 * len(names) * len(groups), **labels)
    axes.grid(axis="y", visible=False)
    size = 0.8 / len(groups)
    for i, (group, values) in enumerate(groups.items()):
        places = np.arange(len(names)) - 0.4 + (i + 0.5) * size
        numbers = np.asarray(values, dtype=np.float64)
        bars = axes.barh(places, np.nan_to_num(numbers), size * 0.9, label=group, color=colours[i], hatch=_HATCHES[i % 4])
        axes.bar_label(bars, ["no objects" if np.isnan(v) else format(v, form) for v in numbers], padding=3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    if len(groups) > 1:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_precision_recall(name: str, coco_precision: Floats | None, voc: VocCurve) -> Figure:
    """One class by both protocols."""
    figure, axes = _axes(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02), title=name)
    if coco_precision is not None:
        axes.plot(RECALLS, coco_precision, color=BLUE, label=f"COCO, AP {coco_precision.mean():.3f}")
    if voc.average_precision is not None:
        label = f"VOC, score from 0.3, AP {voc.average_precision:.3f}"
        axes.plot(voc.recall, voc.precision, "--", color=ORANGE, label=label)
    if axes.lines:
        axes.legend(loc="lower left")
    return figure


def draw_thresholds(name: str, thresholds: Floats, precision: Floats, recall: Floats, chosen: float, chosen_as: str) -> Figure:
    """Precision, recall and F1 of one class against the score threshold."""
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * precision * recall / (precision + recall)
    figure, axes = _axes(xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02), title=name)
    for (label, values), style, colour in zip(
        (("precision", precision), ("recall", recall), ("F1", f1)), _STYLES, (BLUE, ORANGE, GREY), strict=False
    ):
        axes.plot(thresholds, values, style, color=colour, label=label)
    axes.axvline(chosen, color="black", linewidth=1, label=f"{chosen_as} {chosen:.3f}")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, columnspacing=1.0, handlelength=1.6)
    return figure


def draw_confusion(matrix: Ints, class_names: Sequence[str]) -> Figure:
    """Counts, shaded by their share of the row."""
    size = len(matrix)
    figure = Figure(figsize=(WIDTH, 1.4 + 0.7 * size), layout="constrained")
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(size, size):
        text = "-" if row == column == size - 1 else f"{matrix[row, column]:,}\n{100 * share[row, column]:.0f} %"
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10 if size < 8 else 6)
    axes.set_xticks(range(size), [*class_names, "missed"], rotation=0 if size < 6 else 90)
    axes.set_yticks(range(size), [*class_names, "background"])
    axes.set(xlabel="detected as", ylabel="annotated as")
    return figure


def draw_calibration(names: Sequence[str], calibrations: Sequence[Calibration], colours: Sequence[Any]) -> Figure:
    """Share of detections that are right against their mean score, one line per class."""
    figure, axes = _axes(xlabel="mean score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    axes.plot((0, 1), (0, 1), color="black", linewidth=1, label="perfect")
    for label, (name, one, colour) in enumerate(zip(names, calibrations, colours, strict=True)):
        filled = one.counts > 0
        form = "os^Dv"[label % 5] + _STYLES[label % 4]
        error = "" if one.error is None else f", ECE {one.error:.3f}"
        axes.plot(one.mean_score[filled], one.precision[filled], form, color=colour, label=f"{name}{error}")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_training(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], ylabel: str) -> Figure:
    """Logged values against steps, one line per name."""
    figure, axes = _axes(xlabel="training step", ylabel=ylabel)
    colours = (BLUE, ORANGE, GREY, "#009E73", "#CC79A7", SKY)
    for i, (name, (steps, values)) in enumerate(curves.items()):
        axes.plot(steps, values, _STYLES[i % 4], color=colours[i % 6], marker="o" if len(steps) < 3 else None, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    return figure


def draw_charts(material: Material, figures: SplitFigures, training: Mapping[str, Any]) -> list[Chart]:
    """All charts of the page.

    Args:
        material: The split.
        figures: Its figures.
        training: Curves of the training, see `read_training_curves`; empty without a run folder.
    """
    drawn = [
        _objects(material, figures),
        _average_precision(material, figures),
        _detections(material, figures),
        _confusion(material, figures),
        _sizes(material, figures),
        _calibration(material, figures),
    ]
    for label in range(len(material.class_names)):
        drawn += [_precision_recall(material, figures, label), _thresholds(material, figures, label)]
    for part, curves in training.items():
        last = ", ".join(f"{n} {values[-1]:.3g}" for n, (_, values) in curves.items())
        drawn.append(_chart(f"training_{part}", draw_training(curves, part), f"Training, {part}: at the end {last}."))
    return drawn


def _objects(material: Material, figures: SplitFigures) -> Chart:
    names, targets = material.display_names, material.truth.targets
    objects = [c.objects for c in figures.voc]
    difficult = [int(((targets.labels == k) & targets.difficult).sum()) for k in range(len(names))]
    groups = {"annotated": objects, "marked difficult": difficult} if any(difficult) else {"annotated": objects}
    figure = _bars(names, groups, (BLUE, ORANGE), ",.0f", xlabel="objects")
    alt = f"Annotated objects: {_listed(names, objects)}; difficult: {_listed(names, difficult)}."
    return _chart("objects", figure, alt)


def _average_precision(material: Material, figures: SplitFigures) -> Chart:
    names, per_class = material.display_names, figures.coco.per_class
    voc = [c.average_precision for c in figures.voc]
    protocols = {
        "COCO, IoU 0.5": per_class[0],
        "VOC, IoU 0.5": [np.nan if v is None else v for v in voc],
        "COCO, IoU 0.5 to 0.95": per_class.mean(axis=0),
    }
    figure = _bars(names, protocols, (BLUE, ORANGE, SKY), ".3f", xlabel="average precision", xlim=(0, 1.15))
    coco_50 = [number_or_none(v) for v in per_class[0]]
    alt = f"Average precision: COCO at IoU 0.5 {_listed(names, coco_50, '{:.3f}')}; VOC {_listed(names, voc, '{:.3f}')}."
    return _chart("average_precision", figure, alt)


def _detections(material: Material, figures: SplitFigures) -> Chart:
    names = material.display_names
    true, false = zip(*((at.hits, at.false_alarms) for at in figures.operating_point.figures), strict=True)
    figure = _bars(names, {"true": true, "false": false}, (BLUE, ORANGE), ",.0f", xlabel="detections")
    alt = f"Detections at the threshold: true {_listed(names, true)}; false {_listed(names, false)}."
    return _chart("predicted", figure, alt)


def _confusion(material: Material, figures: SplitFigures) -> Chart:
    names, rows = material.display_names, []
    for row, annotated in zip(figures.confusion.tolist(), [*names, "background"], strict=True):
        columns = ", ".join(f"{v} {c}" for v, c in zip(row, [*names, "missed"], strict=True))
        rows.append(f"{annotated} detected as {columns}")
    return _chart("confusion", draw_confusion(figures.confusion, names), f"Confusion matrix: {'; '.join(rows)}.")


def _sizes(material: Material, figures: SplitFigures) -> Chart:
    by_size = {size: figures.by_size[size] for size in ("small", "medium", "large")}
    per_class = {
        name: [coco.per_class[:, label].mean() for coco in by_size.values()]
        for label, name in enumerate(material.display_names)
    }
    alt = ", ".join(f"{size} {percent(coco.mean())}" for size, coco in by_size.items())
    label = "average precision, IoU 0.50 to 0.95"
    figure = _bars(list(by_size), per_class, class_colours(material.class_names), ".3f", xlabel=label, xlim=(0, 1.15))
    return _chart("sizes", figure, f"Average precision by size of object: {alt}")


def _calibration(material: Material, figures: SplitFigures) -> Chart:
    names = material.display_names
    errors = _listed(names, [c.error for c in figures.calibrations], "{:.3f}")
    alt = f"Share of detections that are right against their score; expected calibration error {errors}."
    return _chart("calibration", draw_calibration(names, figures.calibrations, class_colours(material.class_names)), alt)


def _precision_recall(material: Material, figures: SplitFigures, label: int) -> Chart:
    name, voc, precision = material.display_names[label], figures.voc[label], figures.coco.precision[0, :, label]
    alt = (
        f"Precision against recall of {name}: COCO AP at IoU 0.5 {percent(figures.coco.per_class[0][label])}, VOC AP "
        f"{percent(voc.average_precision)}."
    )
    figure = draw_precision_recall(name, None if np.isnan(precision).any() else precision, voc)
    return _chart(f"precision_recall_{label}", figure, alt)


def _thresholds(material: Material, figures: SplitFigures, label: int) -> Chart:
    name, class_name = material.display_names[label], material.class_names[label]
    point = figures.operating_point
    one, at = point.counts[label], point.figures[label]
    hits, detected = np.cumsum(one.hit), np.arange(1, len(one.hit) + 1)
    threshold, choice = point.thresholds[class_name], point.choices.get(class_name)
    word = "chosen" if choice is not None and choice.threshold is not None else "used"
    figure = draw_thresholds(name, one.scores, hits / detected, hits / max(len(one.wanted), 1), threshold, word)
    alt = (
        f"Precision, recall and F1 of {name} against the score threshold; at {threshold:.3f} precision is "
        f"{percent(at.precision)} and recall {percent(at.recall)}."
    )
    return _chart(f"thresholds_{label}", figure, alt)


def _chart(name: str, figure: Figure, alt: str) -> Chart:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return Chart(name, data.getvalue(), alt)


def _listed(names: Sequence[str], values: Sequence[Any], form: str = "{}") -> str:
    """One value per class in words."""
    return ", ".join(f"{n} {'has no objects' if v is None else form.format(v)}" for n, v in zip(names, values, strict=True))
