"""The detection loss: box, objectness and class terms. Knows nothing of Lightning."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from ppe_yolo.model.boxes import cxcywh_to_xyxy, pairwise_iou, xyxy_to_cxcywh
from ppe_yolo.model.coding import BoxCoding, Grid, decode_cxcywh
from ppe_yolo.training.assign import Assignment, Strategy, find_candidates, keep_dynamic, one_per_place

MIN_SIDE = 0.01  # pixels; a predicted box of no width or height has no aspect ratio, and its gradient would be NaN
BOX_COST = 3.0  # what a place's box counts beside its class when places are compared
_BOX_LOSSES = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}


@dataclass(frozen=True)
class AssignConfig:
    """How objects find their places; see `assign.find_candidates`.

    Attributes:
        strategy: Which anchors fit an object.
        iou_threshold: See `strategy`.
        max_ratio: See `strategy`.
        neighbours: Also the two cells nearest to its centre.
        dynamic: Of all these places only those that predict it best at present, see `assign.keep_dynamic`.
    """

    strategy: Strategy = "ratio"
    iou_threshold: float = 0.3
    max_ratio: float = 4.0
    neighbours: bool = True
    dynamic: bool = True


@dataclass(frozen=True)
class LossConfig:
    """Every part of the loss that can be chosen.

    Attributes:
        box: `giou` (Rezatofighi et al. 2019), `diou` or `ciou` (Zheng et al. 2020).
        weigh_small_boxes: Multiply each box's loss by 2 - w * h / input area, as the original helmet system did.
        objectness_target: `one`: a positive's objectness shall be 1; `iou`: the IoU that its box has at present, so that
            the score tells how good the box is (Redmon & Farhadi 2017, section 2; Li et al. 2020 "GFL").
        focal_gamma: Objectness BCE is multiplied by |target - p|^gamma; 0 switches that off.
        ignore_iou: A place that answers for nothing but whose box overlaps an object more than this is no background.
        label_smoothing: Class targets are 1 - s and s instead of 1 and 0.
        box_weight: Weight of the box term.
        objectness_weight: Weight of the objectness term.
        class_weight: Weight of the class term.
        assign: How objects find their places.
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


class LossTerms(NamedTuple):
    """Weighted terms, each a scalar; `total` is their sum."""

    total: Tensor
    box: Tensor
    objectness: Tensor
    classification: Tensor


def compute_loss(
    logits: Tensor, grid: Grid, targets: Sequence[dict[str, Tensor]], coding: BoxCoding, config: LossConfig
) -> LossTerms:
    """The loss of one batch; each term is a sum divided by the number of positives in the batch (at least 1).

    Args:
        logits: [B, N, 5 + C] in the grid's order.
        grid: The places.
        targets: One a picture, with boxes_xyxy [M, 4] in pixels of the input and labels [M].
        coding: How box logits stand for boxes.
        config: The parts to use.
    """
    logits = logits.float()  # sums over thousands of places need more than 16 bits
    boxes_cxcywh = decode_cxcywh(logits[..., :4], grid.cells_xy, grid.anchors_wh, grid.strides, coding)  # [B, N, 4]
    all_targets_xyxy = torch.cat([t["boxes_xyxy"] for t in targets])
    target_image = torch.cat([torch.full_like(t["labels"], i) for i, t in enumerate(targets)])
    labels = torch.cat([t["labels"] for t in targets])
    found = assign_places(logits.detach(), boxes_cxcywh.detach(), all_targets_xyxy, labels, target_image, grid, config.assign)
    positives = max(len(found.place), 1)

    matched_xyxy = all_targets_xyxy[found.target]
    predicted_xyxy = _with_size(boxes_cxcywh[found.image, found.place])
    box_losses = _BOX_LOSSES[config.box](predicted_xyxy, matched_xyxy, reduction="none")
    if config.weigh_small_boxes:
        area = (matched_xyxy[:, 2:] - matched_xyxy[:, :2]).prod(-1)
        level = grid.levels[0]
        box_losses = box_losses * (2.0 - area / (level.height * level.width * level.stride**2))

    objectness_target, weight = _objectness_targets(cxcywh_to_xyxy(boxes_cxcywh), targets, config.ignore_iou)
    weight[found.image, found.place] = 1.0
    if config.objectness_target == "iou":
        value = _paired_iou(predicted_xyxy.detach(), matched_xyxy)
    else:
        value = torch.ones_like(box_losses)
    objectness_target[found.image, found.place] = value
    objectness_logits = logits[..., 4]
    if config.focal_gamma > 0:
        weight = weight * (objectness_target - torch.sigmoid(objectness_logits)).abs() ** config.focal_gamma
    objectness_losses = weight * F.binary_cross_entropy_with_logits(objectness_logits, objectness_target, reduction="none")

    class_logits = logits[found.image, found.place, 5:]
    class_target = F.one_hot(labels[found.target], class_logits.shape[-1]).to(class_logits.dtype)
    class_target = class_target * (1 - 2 * config.label_smoothing) + config.label_smoothing
    class_losses = F.binary_cross_entropy_with_logits(class_logits, class_target, reduction="none")

    box = config.box_weight * box_losses.sum() / positives
    objectness = config.objectness_weight * objectness_losses.sum() / positives
    classification = config.class_weight * class_losses.sum() / positives
    return LossTerms(box + objectness + classification, box, objectness, classification)


def assign_places(
    logits: Tensor,
    boxes_cxcywh: Tensor,
    targets_xyxy: Tensor,
    labels: Tensor,
    target_image: Tensor,
    grid: Grid,
    config: AssignConfig,
) -> Assignment:
    """Which places answer for which objects.

    Args:
        logits: [B, N, 5 + C], for `dynamic` alone.
        boxes_cxcywh: [B, N, 4] as predicted at present, for `dynamic` alone.
        targets_xyxy: Objects of the whole batch [M, 4].
        labels: [M].
        target_image: [M] index of each object's image in the batch.
        grid: The places.
        config: How.
    """
    ways = {k: v for k, v in vars(config).items() if k != "dynamic"}
    candidates = find_candidates(xyxy_to_cxcywh(targets_xyxy), target_image, grid, **ways)
    if config.dynamic:
        image, place, target, _ = candidates
        iou = _paired_iou(_with_size(boxes_cxcywh[image, place]), targets_xyxy[target])
        at_place = logits[image, place]
        scores = (torch.sigmoid(at_place[:, 4:5]) * torch.sigmoid(at_place[:, 5:])).sqrt()  # [P, C]
        wanted = F.one_hot(labels[target], scores.shape[-1]).to(scores.dtype)
        # the cost of SimOTA (Ge et al. 2021 "YOLOX", section 2.1, equation 1)
        class_cost = F.binary_cross_entropy(scores, wanted, reduction="none").sum(-1)
        candidates = keep_dynamic(candidates._replace(cost=class_cost - BOX_COST * torch.log(iou + 1e-8)), iou)
    return one_per_place(candidates)


def _with_size(boxes_cxcywh: Tensor) -> Tensor:
    """Predicted boxes [P, 4], none of them thinner than `MIN_SIDE`, as corners [P, 4]."""
    centre, size = boxes_cxcywh.split(2, dim=-1)
    return cxcywh_to_xyxy(torch.cat((centre, size.clamp(min=MIN_SIDE)), dim=-1))


@torch.no_grad()
def _objectness_targets(boxes_xyxy: Tensor, targets: Sequence[dict[str, Tensor]], ignore_iou: float) -> tuple[Tensor, Tensor]:
    """Target 0 everywhere, and weight 1 where a box overlaps no object by more than `ignore_iou`: [B, N], [B, N]."""
    padded = torch.nn.utils.rnn.pad_sequence([t["boxes_xyxy"] for t in targets], batch_first=True)  # [B, most, 4]
    target = boxes_xyxy.new_zeros(boxes_xyxy.shape[:2])
    if padded.shape[1] == 0:
        return target, torch.ones_like(target)
    best = pairwise_iou(boxes_xyxy, padded).amax(-1)
    return target, (best < ignore_iou).to(target.dtype)


def _paired_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of box i with box i: [P, 4], [P, 4] -> [P]."""
    return pairwise_iou(a_xyxy[:, None], b_xyxy[:, None])[:, 0, 0]
