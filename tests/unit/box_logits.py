"""The inverse of the decoding of boxes, to plant objects in a network's output."""

import torch
from torch import Tensor

from ppe_yolo.model.names import BoxCoding


def encode_cxcywh(boxes_cxcywh: Tensor, cells_xy: Tensor, anchors_wh: Tensor, strides: Tensor, coding: BoxCoding) -> Tensor:
    """Encodes centre and size [..., N, 4] in pixels as box logits [..., N, 4], the inverse of `decode_cxcywh`.

    A box that the coding cannot express (too far from its cell, or too large) gives infinite logits.
    """
    offset = boxes_cxcywh[..., :2] / strides - cells_xy
    ratio = boxes_cxcywh[..., 2:] / anchors_wh
    if coding == "darknet":
        return torch.cat((torch.logit(offset), torch.log(ratio)), dim=-1)
    return torch.cat((torch.logit((offset + 0.5) / 2.0), torch.logit(ratio.sqrt() / 2.0)), dim=-1)
