"""How raw maps encode boxes: the grid of their predictions, and decoding. Plain functions on tensors."""

import math
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from ppe_yolo.model.boxes import cxcywh_to_xyxy
from ppe_yolo.model.names import BoxCoding

MAX_LOG_SCALE = math.log(1000.0)  # exp() of more than this is no box of any image


@dataclass(frozen=True, kw_only=True)
class Level:
    """The geometry of one raw map.

    Attributes:
        height: Cells.
        width: Cells.
        stride: Side of a cell, pixels.
        anchors_wh: [A, 2], pixels.
    """

    height: int
    width: int
    stride: int
    anchors_wh: Tensor


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid locations (cell and anchor) of all raw maps, flattened to N = sum(A * H * W).

    The order is level, anchor, row, column. Each grid location makes one prediction.

    Attributes:
        levels: Geometry of each raw map.
        cells_xy: Column and row of the cell [N, 2].
        anchors_wh: Size of the anchor [N, 2], pixels.
        strides: Side of the cell [N, 1], pixels.
    """

    levels: tuple[Level, ...]
    cells_xy: Tensor
    anchors_wh: Tensor
    strides: Tensor


def make_grid(levels: tuple[Level, ...]) -> Grid:
    """Flattens the grid locations of all levels."""
    cells, anchors, strides = [], [], []
    for level in levels:
        device, count = level.anchors_wh.device, len(level.anchors_wh)
        rows, columns = torch.meshgrid(
            torch.arange(level.height, device=device), torch.arange(level.width, device=device), indexing="ij"
        )
        xy = torch.stack((columns, rows), dim=-1).float()  # [H, W, 2]
        cells.append(xy.expand(count, -1, -1, -1).reshape(-1, 2))
        anchors.append(level.anchors_wh[:, None, None].expand(-1, level.height, level.width, -1).reshape(-1, 2))
        strides.append(torch.full((count * level.height * level.width, 1), float(level.stride), device=device))
    return Grid(levels=levels, cells_xy=torch.cat(cells), anchors_wh=torch.cat(anchors), strides=torch.cat(strides))


def flatten_maps(raw_maps: list[Tensor]) -> Tensor:
    """Flattens raw maps, each [B, A, H, W, 5 + C], to logits [B, N, 5 + C] in the order of `Grid`."""
    return torch.cat([m.flatten(1, 3) for m in raw_maps], dim=1)


def decode_cxcywh(box_logits: Tensor, cells_xy: Tensor, anchors_wh: Tensor, strides: Tensor, coding: BoxCoding) -> Tensor:
    """Decodes box logits [..., N, 4] to centre and size [..., N, 4] in pixels.

    Args:
        box_logits: [..., N, 4].
        cells_xy: See `Grid`.
        anchors_wh: See `Grid`.
        strides: See `Grid`.
        coding: `darknet`: the centre is sigmoid(t) within the cell, the size anchor * exp(t) (Redmon & Farhadi 2018, section
            2.1). `bounded`: the centre is 2 sigmoid(t) - 0.5, so that a finite t reaches the border of a cell (grid
            sensitivity, Bochkovskiy et al. 2020, section 3.4) and neighbour cells can predict the object too; the size is
            anchor * (2 sigmoid(t))^2, at most four times the anchor, so that early gradients do not explode.
    """
    if coding == "darknet":
        centre = (torch.sigmoid(box_logits[..., :2]) + cells_xy) * strides
        size = torch.exp(box_logits[..., 2:4].clamp(max=MAX_LOG_SCALE)) * anchors_wh
    elif coding == "bounded":
        centre = (torch.sigmoid(box_logits[..., :2]) * 2.0 - 0.5 + cells_xy) * strides
        size = (torch.sigmoid(box_logits[..., 2:4]) * 2.0) ** 2 * anchors_wh
    else:
        assert_never(coding)
    return torch.cat((centre, size), dim=-1)


def decode(logits: Tensor, grid: Grid, coding: BoxCoding) -> tuple[Tensor, Tensor]:
    """Decodes logits [B, N, 5 + C] to boxes_xyxy [B, N, 4] in pixels of the input and scores [B, N, C] in 0..1.

    A score is objectness times class probability (Redmon & Farhadi 2018, sections 2.1 and 2.2).
    """
    boxes_cxcywh = decode_cxcywh(logits[..., :4], grid.cells_xy, grid.anchors_wh, grid.strides, coding)
    return cxcywh_to_xyxy(boxes_cxcywh), torch.sigmoid(logits[..., 4:5]) * torch.sigmoid(logits[..., 5:])
