"""The detection loss: box, objectness and class terms. Independent of Lightning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from ppe_yolo.model.boxes import cxcywh_to_xyxy, pairwise_iou
from ppe_yolo.model.coding import Grid, decode_cxcywh
from ppe_yolo.model.names import BoxCoding
from ppe_yolo.training.matchers import AnchorMatcher, IoUMatcher, Matcher, Objects, Predictions, RatioMatcher, SimOTAMatcher
from ppe_yolo.training.pairs import corners, paired_iou

_BOX_LOSSES = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}


@dataclass(frozen=True, kw_only=True)
class AssignConfig:
    """Which predictions are trained on which objects; see `matchers`.

    Attributes:
        strategy: Which anchors fit an object: `ratio` (`RatioMatcher`) or `iou` (`IoUMatcher`).
        iou_threshold: With `iou`, the lowest IoU of the sizes of object and anchor.
        max_ratio: With `ratio`, the largest factor between the sides of object and anchor.
        neighbours: Also use the two neighbouring cells that are nearest to the object's centre.
        dynamic: Keep only the candidates that predict their object best at present (`SimOTAMatcher`).
    """

    strategy: Literal["iou", "ratio"] = "ratio"
    iou_threshold: float = 0.3
    max_ratio: float = 4.0
    neighbours: bool = True
    dynamic: bool = True


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Settings of the loss.

    Attributes:
        box: `giou` (Rezatofighi et al. 2019), `diou` or `ciou` (Zheng et al. 2020).
        weigh_small_boxes: Multiply each box loss by 2 - w * h / input area, as the original helmet system did.
        objectness_target: `one`: the objectness target of positives is 1; `iou`: it is the current IoU of the predicted box
            with its object, so that the score tells how good the box is (Redmon & Farhadi 2017, section 2; Li et al. 2020
            "GFL").
        focal_gamma: The objectness loss is multiplied by |target - p|^gamma; 0 switches this off.
        ignore_iou: Unassigned predictions whose IoU with any object is at least this are excluded from the background loss.
        label_smoothing: Class targets are 1 - s and s instead of 1 and 0.
        box_weight: Weight of the box term.
        objectness_weight: Weight of the objectness term.
        class_weight: Weight of the class term.
        assign: Which predictions are trained on which objects.
    """

    box: Literal["giou", "diou", "ciou"] = "ciou"
    weigh_small_boxes: bool = False
    objectness_target: Literal["one", "iou"] = "iou"
    focal_gamma: float = 2.0
    ignore_iou: float = 0.5
    label_smoothing: float = 0.01
    box_weight: float = 5.0
    objectness_weight: float = 5.0
    class_weight: float = 1.0
    assign: AssignConfig = field(default_factory=AssignConfig)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "LossConfig":
        """Reads what `dataclasses.asdict` made of a configuration."""
        return cls(**{**values, "assign": AssignConfig(**values["assign"])})


class LossTerms(NamedTuple):
    """Weighted terms, each a scalar; `total` is their sum."""

    total: Tensor
    box: Tensor
    objectness: Tensor
    classification: Tensor


def build_matcher(config: AssignConfig) -> Matcher:
    """The matcher that a configuration describes."""
    anchors: AnchorMatcher
    if config.strategy == "iou":
        anchors = IoUMatcher(neighbours=config.neighbours, iou_threshold=config.iou_threshold)
    elif config.strategy == "ratio":
        anchors = RatioMatcher(neighbours=config.neighbours, max_ratio=config.max_ratio)
    else:
        assert_never(config.strategy)
    return SimOTAMatcher(anchors) if config.dynamic else anchors


def compute_loss(
    logits: Tensor, grid: Grid, targets: Sequence[dict[str, Tensor]], coding: BoxCoding, config: LossConfig
) -> LossTerms:
    """The loss of one batch; each term is a sum divided by the number of positives in the batch (at least 1).

    Args:
        logits: [B, N, 5 + C] in the grid's order.
        grid: The grid locations.
        targets: One per image, with boxes_xyxy [M, 4] in pixels of the input and labels [M].
        coding: How box logits encode boxes.
        config: The settings.
    """
    logits = logits.float()  # sums over thousands of locations need more than 16 bits
    boxes_cxcywh = decode_cxcywh(logits[..., :4], grid.cells_xy, grid.anchors_wh, grid.strides, coding)  # [B, N, 4]
    objects = Objects(
        boxes_xyxy=torch.cat([t["boxes_xyxy"] for t in targets]),
        labels=torch.cat([t["labels"] for t in targets]),
        image=torch.cat([torch.full_like(t["labels"], i) for i, t in enumerate(targets)]),
    )
    predictions = Predictions(logits=logits.detach(), boxes_cxcywh=boxes_cxcywh.detach())
    assigned = build_matcher(config.assign).match(predictions, objects, grid)
    positives = max(len(assigned.location), 1)

    matched_xyxy = objects.boxes_xyxy[assigned.target]
    predicted_xyxy = corners(boxes_cxcywh[assigned.image, assigned.location])
    box_losses = _BOX_LOSSES[config.box](predicted_xyxy, matched_xyxy, reduction="none")
    if config.weigh_small_boxes:
        area = (matched_xyxy[:, 2:] - matched_xyxy[:, :2]).prod(-1)
        level = grid.levels[0]
        box_losses = box_losses * (2.0 - area / (level.height * level.width * level.stride**2))

    objectness_target, weight = _background(cxcywh_to_xyxy(boxes_cxcywh), targets, config.ignore_iou)
    weight[assigned.image, assigned.location] = 1.0
    if config.objectness_target == "iou":
        value = paired_iou(predicted_xyxy.detach(), matched_xyxy)
    elif config.objectness_target == "one":
        value = torch.ones_like(box_losses)
    else:
        assert_never(config.objectness_target)
    objectness_target[assigned.image, assigned.location] = value
    objectness_logits = logits[..., 4]
    if config.focal_gamma > 0:
        weight = weight * (objectness_target - torch.sigmoid(objectness_logits)).abs() ** config.focal_gamma
    objectness_losses = weight * F.binary_cross_entropy_with_logits(objectness_logits, objectness_target, reduction="none")

    class_logits = logits[assigned.image, assigned.location, 5:]
    class_target = F.one_hot(objects.labels[assigned.target], class_logits.shape[-1]).to(class_logits.dtype)
    class_target = class_target * (1 - 2 * config.label_smoothing) + config.label_smoothing
    class_losses = F.binary_cross_entropy_with_logits(class_logits, class_target, reduction="none")

    box = config.box_weight * box_losses.sum() / positives
    objectness = config.objectness_weight * objectness_losses.sum() / positives
    classification = config.class_weight * class_losses.sum() / positives
    return LossTerms(box + objectness + classification, box, objectness, classification)


@torch.no_grad()
def _background(boxes_xyxy: Tensor, targets: Sequence[dict[str, Tensor]], ignore_iou: float) -> tuple[Tensor, Tensor]:
    """Objectness as if all were background: target 0 [B, N]; weight [B, N] 0 where a box overlaps an object, else 1."""
    padded = torch.nn.utils.rnn.pad_sequence([t["boxes_xyxy"] for t in targets], batch_first=True)  # [B, most, 4]
    target = boxes_xyxy.new_zeros(boxes_xyxy.shape[:2])
    if padded.shape[1] == 0:
        return target, torch.ones_like(target)
    best = pairwise_iou(boxes_xyxy, padded).amax(-1)
    return target, (best < ignore_iou).to(target.dtype)
