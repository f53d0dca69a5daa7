"""Geometry of predicted boxes and the objects that they are paired with, box i with box i."""

import torch
from torch import Tensor

from ppe_yolo.model.boxes import cxcywh_to_xyxy, pairwise_iou

MIN_SIDE = 0.01  # pixels; a predicted box without width or height has no aspect ratio, and its gradient would be NaN


def corners(boxes_cxcywh: Tensor) -> Tensor:
    """Predicted boxes [P, 4] as corners [P, 4], each side at least `MIN_SIDE` long."""
    centre, size = boxes_cxcywh.split(2, dim=-1)
    return cxcywh_to_xyxy(torch.cat((centre, size.clamp(min=MIN_SIDE)), dim=-1))


def paired_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of box i of A with box i of B: [P, 4], [P, 4] -> [P]."""
    return pairwise_iou(a_xyxy[:, None], b_xyxy[:, None])[:, 0, 0]
