"""Plots of metrics, for files and for TensorBoard."""

from matplotlib.figure import Figure

from ppe_yolo.evaluation.metrics.coco_ap import RECALLS, PrecisionRecallCurve


def draw_curves(curves: dict[str, PrecisionRecallCurve]) -> Figure:
    """Precision against recall, one line per class."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(RECALLS, curve.precision, label=f"{name}: AP50 {curve.precision.mean():.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall at IoU 0.5")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()
    return figure
