"""Mean average precision as COCO defines it, by torchmetrics; training uses it, where it gathers over all processes.

Protocol: average precision is the mean of precision at 101 recalls; `map` is its mean over IoU thresholds 0.50 to 0.95 and
classes, `map_50` at IoU 0.5 alone. A `difficult` object is passed as a crowd: missing it is no miss, and detecting it (overlap
divided by the detection's own area, as COCO does for crowds) is no false alarm.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from ppe_yolo.evaluation.metrics.coco_ap import AT_THREE_QUARTERS, IOU_THRESHOLDS, RECALLS, PrecisionRecallCurve

_IOU_50, _ALL_SIZES, _MOST_DETECTIONS = 0, 0, -1


class _SplitMetric(MeanAveragePrecision):
    """Gathers the images of all processes, whose shares may differ in size.

    torchmetrics itself gathers image by image, and hangs if one process has fewer images than another.
    """

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        group = process_group or self.process_group
        for state in self._reductions:
            shares: list[Any] = [None] * dist.get_world_size(group)
            dist.all_gather_object(shares, [t.cpu() for t in getattr(self, state)], group)
            setattr(self, state, [t.to(self.device) for share in shares for t in share])


def build_metric(max_detections: int) -> MeanAveragePrecision:
    """The metric, for use alone or inside a LightningModule, where it gathers over all processes."""
    metric = _SplitMetric(
        backend="faster_coco_eval",
        # torchmetrics' defaults are rounded to 32 bits, so an exact recall of 0.6 falls short of its own threshold
        iou_thresholds=IOU_THRESHOLDS.tolist(),
        rec_thresholds=RECALLS.tolist(),
        class_metrics=True,
        extended_summary=True,
        max_detection_thresholds=[1, min(10, max_detections), max_detections],
    )
    metric.warn_on_many_detections = False  # the contract's limit is meant for crowded scenes
    return metric


def to_metric_predictions(detections: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Detections with boxes_xyxy [K, 4], scores [K] and labels [K], under the metric's names."""
    return [{"boxes": d["boxes_xyxy"], "scores": d["scores"], "labels": d["labels"]} for d in detections]


def to_metric_targets(targets: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Targets with boxes_xyxy [N, 4], labels [N] and difficult [N], under the metric's names."""
    return [{"boxes": t["boxes_xyxy"], "labels": t["labels"], "iscrowd": t["difficult"].long()} for t in targets]


class ClassAP(TypedDict):
    """Figures of one class; None without objects."""

    ap: float | None
    ap_50: float | None
    recall_50: float | None


class MeanAP(TypedDict):
    """COCO's figures; None without objects."""

    map: float | None
    map_50: float | None
    map_75: float | None
    per_class: dict[str, ClassAP]


def summarise(result: dict[str, Any], class_names: Sequence[str]) -> MeanAP:
    """The metric's result in plain types."""
    precision = _array(result["precision"])  # [T, R, C, size, detections]
    recall = _array(result["recall"])  # [T, C, size, detections]
    seen = {int(label): k for k, label in enumerate(_array(result["classes"]).reshape(-1))}
    per_class: dict[str, ClassAP] = {}
    for label, name in enumerate(class_names):
        k = seen.get(label)
        if k is None:
            per_class[name] = {"ap": None, "ap_50": None, "recall_50": None}
            continue
        all_ious = precision[:, :, k, _ALL_SIZES, _MOST_DETECTIONS]
        per_class[name] = {
            "ap": _mean(all_ious),
            "ap_50": _mean(all_ious[_IOU_50]),
            "recall_50": _mean(recall[_IOU_50, k, _ALL_SIZES, _MOST_DETECTIONS]),
        }
    return {
        "map": _mean(precision[:, :, :, _ALL_SIZES, _MOST_DETECTIONS]),
        "map_50": _mean(precision[_IOU_50, :, :, _ALL_SIZES, _MOST_DETECTIONS]),
        "map_75": _mean(precision[AT_THREE_QUARTERS, :, :, _ALL_SIZES, _MOST_DETECTIONS]),
        "per_class": per_class,
    }


def precision_recall_curves(result: dict[str, Any], class_names: Sequence[str]) -> dict[str, PrecisionRecallCurve]:
    """The curve of each class that has objects in the split."""
    precision, scores = _array(result["precision"]), _array(result["scores"])
    curves = {}
    for k, label in enumerate(_array(result["classes"]).reshape(-1).astype(int)):
        values = precision[_IOU_50, :, k, _ALL_SIZES, _MOST_DETECTIONS]
        if (values > -1).any():
            curves[class_names[label]] = PrecisionRecallCurve(
                values.clip(min=0.0), scores[_IOU_50, :, k, _ALL_SIZES, _MOST_DETECTIONS].clip(min=0.0)
            )
    return curves


def _array(value: Any) -> NDArray[np.float64]:
    return np.asarray(value.cpu() if isinstance(value, Tensor) else value, dtype=np.float64)


def _mean(values: Any) -> float | None:
    """Mean of the defined values; COCO marks the others with -1."""
    defined = np.asarray(values)[np.asarray(values) > -1]
    return float(defined.mean()) if defined.size else None
