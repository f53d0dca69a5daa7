"""Geometry of boxes on torch tensors; `ppe_yolo.core.boxes` has the IoU for numpy.

Tensors end in their format: _xyxy corners, _cxcywh centre and size, _wh size. Coordinates are pixels.
"""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Converts centre and size [..., 4] to corners [..., 4]."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Converts corners [..., 4] to centre and size [..., 4]."""
    top_left, bottom_right = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat(((top_left + bottom_right) / 2, bottom_right - top_left), dim=-1)


def pairwise_iou(boxes_a_xyxy: Tensor, boxes_b_xyxy: Tensor) -> Tensor:
    """Returns the IoU of every box of A with every box of B: [..., N, 4], [..., M, 4] -> [..., N, M]. Empty boxes give 0.

    Unlike torchvision.ops.box_iou, this accepts batches and allocates no [N, M, 2] tensors.
    """
    ax1, ay1, ax2, ay2 = boxes_a_xyxy[..., :, None, :].unbind(-1)
    bx1, by1, bx2, by2 = boxes_b_xyxy[..., None, :, :].unbind(-1)
    intersection = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    intersection = intersection * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    return intersection / union.clamp(min=1e-9)


def iou_of_sizes(a_wh: Tensor, b_wh: Tensor) -> Tensor:
    """Returns the IoU of boxes that share their centre: [N, 2], [M, 2] -> [N, M] (Redmon & Farhadi 2017, section 2)."""
    intersection = torch.minimum(a_wh[:, None], b_wh[None]).prod(-1)
    return intersection / (a_wh.prod(-1)[:, None] + b_wh.prod(-1)[None] - intersection).clamp(min=1e-9)
