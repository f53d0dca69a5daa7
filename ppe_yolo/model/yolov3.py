"""The detector network: a body, its anchors and its raw maps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppe_yolo.core.errors import UserError
from ppe_yolo.model import darknet53, tiny
from ppe_yolo.model.coding import Grid, Level, decode, flatten_maps, make_grid
from ppe_yolo.model.names import Architecture, BoxCoding

ANCHORS_PER_LEVEL = 3
OBJECTNESS_PRIOR = 0.01


@dataclass(frozen=True)
class _Plan:
    """How to build an architecture.

    Attributes:
        body: Builds backbone, neck and heads, given the number of channels of each raw map.
        strides: Strides of the raw maps, the finest first.
        anchors_wh: Default anchors for each stride, (width, height) in pixels at 416.
    """

    body: Callable[[int], nn.Module]
    strides: tuple[int, ...]
    anchors_wh: tuple[tuple[tuple[int, int], ...], ...]


_PLANS: dict[Architecture, _Plan] = {
    "yolov3": _Plan(darknet53.YoloV3Body, darknet53.STRIDES, darknet53.DEFAULT_ANCHORS_WH),
    "yolov3-small": _Plan(partial(darknet53.YoloV3Body, width=0.5, depth=0.25), darknet53.STRIDES, darknet53.HEAD_ANCHORS_WH),
    "yolov3-tiny": _Plan(tiny.YoloV3TinyBody, tiny.STRIDES, tiny.DEFAULT_ANCHORS_WH),
}


def build_body(architecture: Architecture, outputs: int) -> nn.Module:
    """Builds backbone, neck and heads of an architecture; `outputs` is the number of channels of each raw map."""
    return _PLANS[architecture].body(outputs)


def default_anchors_wh(architecture: Architecture) -> NDArray[np.float64]:
    """Returns the default anchors of an architecture: [K, 2] width and height in pixels at 416, the finest stride first."""
    return np.array(_PLANS[architecture].anchors_wh, dtype=np.float64).reshape(-1, 2)


class YoloV3(nn.Module):
    """YOLOv3 in one of its sizes, without loss and post-processing.

    Args:
        architecture: `yolov3` and `yolov3-small` (half the width, a quarter of the depth) have strides 8, 16 and 32;
            `yolov3-tiny` has strides 16 and 32.
        num_classes: Number of classes, C.
        anchors_wh: (width, height) pairs in pixels of the input, three per stride, the finest stride first; None for the
            defaults of the architecture.
        box_coding: How box logits encode boxes; see `coding.decode_cxcywh`.

    Raises:
        UserError: The architecture or box coding is unknown, or the number of anchors does not fit the architecture.
    """

    anchors_wh: Tensor

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int,
        anchors_wh: Sequence[Sequence[float]] | None = None,
        box_coding: BoxCoding = "bounded",
    ) -> None:
        super().__init__()
        if architecture not in _PLANS:
            raise UserError(setting="architecture", expected=f"one of {sorted(_PLANS)}", got=repr(architecture))
        if box_coding not in get_args(BoxCoding):
            raise UserError(setting="box_coding", expected=f"one of {sorted(get_args(BoxCoding))}", got=repr(box_coding))
        self.strides = _PLANS[architecture].strides
        anchors = torch.tensor(
            default_anchors_wh(architecture) if anchors_wh is None else [list(a) for a in anchors_wh], dtype=torch.float32
        )
        expected = (ANCHORS_PER_LEVEL * len(self.strides), 2)
        if anchors.shape != expected or not (anchors > 0).all():
            raise UserError(
                f"{architecture} takes {expected[0]} pairs of a positive width and height",
                setting="anchors",
                got=repr(anchors_wh),
                hint=f"run `ppe-yolo anchors` with --architecture {architecture}",
            )
        self.architecture = architecture
        self.num_classes = num_classes
        self.box_coding = box_coding
        self.body = build_body(architecture, ANCHORS_PER_LEVEL * (5 + num_classes))
        self.register_buffer("anchors_wh", anchors.view(len(self.strides), ANCHORS_PER_LEVEL, 2))
        self._initialise()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Computes the raw maps of images.

        Args:
            images: [B, 3, H, W], RGB in 0..1.

        Returns:
            One map per stride s, each [B, A, H/s, W/s, 5 + C]: logits of x, y, w, h, objectness and classes.
        """
        maps = self.body(images)
        return [m.unflatten(1, (ANCHORS_PER_LEVEL, 5 + self.num_classes)).permute(0, 1, 3, 4, 2) for m in maps]

    def logits(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Computes the logits of all grid locations.

        Args:
            images: [B, 3, H, W], RGB in 0..1.

        Returns:
            Logits [B, N, 5 + C] in the order of the grid, and the grid.
        """
        raw_maps = self(images)
        return flatten_maps(raw_maps), self.grid(raw_maps)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the prediction of each grid location, before suppression.

        Args:
            images: [B, 3, H, W], RGB in 0..1.

        Returns:
            boxes_xyxy [B, N, 4] in pixels of the input and scores [B, N, C], both float32.
        """
        logits, grid = self.logits(images)
        return decode(logits.float(), grid, self.box_coding)  # float16 resolves quarters of a pixel at best

    def grid(self, raw_maps: Sequence[Tensor]) -> Grid:
        """Returns the grid locations of raw maps, each [B, A, H/s, W/s, 5 + C]."""
        return make_grid(
            tuple(
                Level(height=int(m.shape[2]), width=int(m.shape[3]), stride=stride, anchors_wh=anchors)
                for m, stride, anchors in zip(raw_maps, self.strides, self.anchors_wh, strict=True)
            )
        )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
        for head in self.body.get_submodule("heads").children():
            final = list(head.children())[-1]
            assert isinstance(final, nn.Conv2d) and final.bias is not None
            nn.init.normal_(final.weight, std=0.01)
            nn.init.zeros_(final.bias)
            # almost all predictions are background; starting there saves the first epochs (Lin et al. 2017, section 3.3)
            bias = final.bias.detach().view(ANCHORS_PER_LEVEL, 5 + self.num_classes)
            bias[:, 4] = -math.log((1 - OBJECTNESS_PRIOR) / OBJECTNESS_PRIOR)
