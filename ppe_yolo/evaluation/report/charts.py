"""The figures of the report. Every line and bar is told apart by its form as well as by its colour."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppe_yolo.core.drawing import colour_of
from ppe_yolo.evaluation.metrics.coco_ap import RECALLS
from ppe_yolo.evaluation.metrics.matching import Floats, Ints
from ppe_yolo.evaluation.metrics.mistakes import Calibration
from ppe_yolo.evaluation.metrics.voc_ap import VocCurve

WIDTH = 5.0  # inches; at 72 pixels an inch it fits a phone, and a letter of 10 points is 10 pixels high
BLUE, ORANGE, SKY, GREY = "#0072B2", "#E69F00", "#56B4E9", "#595959"  # Okabe & Ito 2008
_STYLES = ("-", "--", ":", "-.")
_HATCHES = ("", "//", "..", "xx")


def class_colour(name: str, label: int) -> tuple[float, ...]:
    """The colour that a class has on photos, for matplotlib."""
    return tuple(v / 255 for v in colour_of(name, label))


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
    """Bars side by side for each name, from the top, with their values; NaN is left out."""
    figure, axes = _axes(0.9 + 0.32 * len(names) * len(groups), **labels)
    axes.grid(axis="y", visible=False)
    size = 0.8 / len(groups)
    for i, (group, values) in enumerate(groups.items()):
        places = np.arange(len(names)) - 0.4 + (i + 0.5) * size
        numbers = np.asarray(values, dtype=np.float64)
        bars = axes.barh(places, np.nan_to_num(numbers), size * 0.9, label=group, color=colours[i], hatch=_HATCHES[i % 4])
        axes.bar_label(bars, ["none here" if np.isnan(v) else format(v, form) for v in numbers], padding=3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    if len(groups) > 1:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_objects(class_names: Sequence[str], objects: Sequence[int], difficult: Sequence[int]) -> Figure:
    """Annotated objects of each class."""
    groups = {"annotated": objects, "marked difficult": difficult} if any(difficult) else {"annotated": objects}
    return _bars(class_names, groups, (BLUE, ORANGE), ",.0f", xlabel="objects")


def draw_average_precision(class_names: Sequence[str], figures: Mapping[str, Sequence[float]]) -> Figure:
    """Average precision of each class, a bar a protocol, 0 to 1."""
    return _bars(class_names, figures, (BLUE, ORANGE, SKY), ".3f", xlabel="average precision", xlim=(0, 1.15))


def draw_sizes(sizes: Sequence[str], figures: Mapping[str, Sequence[float]], colours: Sequence[Any]) -> Figure:
    """Average precision by size, a bar a class."""
    return _bars(sizes, figures, colours, ".3f", xlabel="average precision, IoU 0.50 to 0.95", xlim=(0, 1.15))


def draw_predicted(class_names: Sequence[str], true: Sequence[int], false: Sequence[int]) -> Figure:
    """Found objects of each class, true and false."""
    return _bars(class_names, {"true": true, "false": false}, (BLUE, ORANGE), ",.0f", xlabel="detections")


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
    """Counts, shaded by their part of the row."""
    size = len(matrix)
    figure = Figure(figsize=(WIDTH, 1.4 + 0.7 * size), layout="constrained")
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(size, size):
        text = "-" if row == column == size - 1 else f"{matrix[row, column]:,}\n{100 * share[row, column]:.0f} %"
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10 if size < 8 else 6)
    axes.set_xticks(range(size), [*class_names, "not found"], rotation=0 if size < 6 else 90)
    axes.set_yticks(range(size), [*class_names, "background"])
    axes.set(xlabel="found as", ylabel="annotated as")
    return figure


def draw_calibration(class_names: Sequence[str], calibrations: Sequence[Calibration]) -> Figure:
    """Part of detections that are right against their mean score, a line a class."""
    figure, axes = _axes(xlabel="mean score", ylabel="part that is right", xlim=(0, 1), ylim=(0, 1.02))
    axes.plot((0, 1), (0, 1), color="black", linewidth=1, label="as it should be")
    for label, (name, one) in enumerate(zip(class_names, calibrations, strict=True)):
        there = one.counts > 0
        form = "os^Dv"[label % 5] + _STYLES[label % 4]
        error = "" if one.error is None else f", ECE {one.error:.3f}"
        axes.plot(one.promised[there], one.kept[there], form, color=class_colour(name, label), label=f"{name}{error}")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_training(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], ylabel: str) -> Figure:
    """Logged values against steps, a line a name."""
    figure, axes = _axes(xlabel="training step", ylabel=ylabel)
    colours = (BLUE, ORANGE, GREY, "#009E73", "#CC79A7", SKY)
    for i, (name, (steps, values)) in enumerate(curves.items()):
        axes.plot(steps, values, _STYLES[i % 4], color=colours[i % 6], marker="o" if len(steps) < 3 else None, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    return figure
