"""Matchers: which predictions are trained on which objects. Pure functions of tensors; nothing here is learned."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ppe_yolo.model.boxes import iou_of_sizes, xyxy_to_cxcywh
from ppe_yolo.model.coding import Grid, Level
from ppe_yolo.training.pairs import corners, paired_iou

BOX_COST = 3.0  # weight of the box cost relative to the class cost in SimOTA


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What the network predicts at present, without gradients.

    Attributes:
        logits: [B, N, 5 + C] in the grid's order.
        boxes_cxcywh: [B, N, 4] decoded, in pixels of the input.
    """

    logits: Tensor
    boxes_cxcywh: Tensor


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The annotated objects of a batch.

    Attributes:
        boxes_xyxy: [M, 4] in pixels of the input.
        labels: [M].
        image: [M] index of each object's image in the batch.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    image: Tensor


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The positives: the prediction at `location[p]` of image `image[p]` is trained on object `target[p]`.

    No prediction is trained on two objects.
    """

    image: Tensor
    location: Tensor
    target: Tensor


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Possible positives: location `location[p]` of image `image[p]` for object `target[p]`; the lowest `cost[p]` is best."""

    image: Tensor
    location: Tensor
    target: Tensor
    cost: Tensor

    def take(self, chosen: Tensor) -> "Candidates":
        """The candidates at these indices [K], or where this mask [P] is true."""
        return Candidates(
            image=self.image[chosen], location=self.location[chosen], target=self.target[chosen], cost=self.cost[chosen]
        )


class Matcher(ABC):
    """Assigns the objects of a batch to grid locations."""

    @abstractmethod
    def match(self, predictions: Predictions, objects: Objects, grid: Grid) -> Assignment:
        """The positives of a batch."""


@dataclass(frozen=True)
class AnchorMatcher(Matcher):
    """Compares the sizes of objects and anchors; ignores the predictions.

    An object that fits no anchor gets the anchor with the highest IoU, so that no object is lost.

    Args:
        neighbours: Also use the two cells next to the object's own cell that are nearest to its centre, which triples the
            positives (multi-positives, Ge et al. 2021 "YOLOX", section 2.1; a cross instead of a square).
    """

    neighbours: bool = True

    @abstractmethod
    def fits(self, sizes_wh: Tensor, anchors_wh: Tensor, iou: Tensor) -> Tensor:
        """Whether an anchor fits an object.

        Args:
            sizes_wh: [M, 2] of the objects, pixels.
            anchors_wh: [K, 2] of all levels, pixels.
            iou: [M, K] of the two, with a common centre.

        Returns:
            [M, K] bool.
        """

    def match(self, predictions: Predictions, objects: Objects, grid: Grid) -> Assignment:
        """See `Matcher.match`; of two objects at one location, the better fitting one wins."""
        return resolve_conflicts(self.find_candidates(objects, grid))

    def find_candidates(self, objects: Objects, grid: Grid) -> Candidates:
        """The locations that fit each object; the cost is 1 - IoU of the object's and the anchor's size."""
        device = objects.boxes_xyxy.device
        if len(objects.boxes_xyxy) == 0:
            empty = torch.zeros(0, dtype=torch.long, device=device)
            return Candidates(image=empty, location=empty, target=empty, cost=empty.float())
        boxes_cxcywh = xyxy_to_cxcywh(objects.boxes_xyxy)
        sizes_wh = boxes_cxcywh[:, 2:]
        anchors_wh = torch.cat([level.anchors_wh for level in grid.levels])
        iou = iou_of_sizes(sizes_wh, anchors_wh)
        fits = self.fits(sizes_wh, anchors_wh, iou)
        orphan = ~fits.any(1)
        fits[orphan, iou[orphan].argmax(1)] = True

        locations, targets, ious = [], [], []
        first_location = first_anchor = 0
        for level in grid.levels:
            count = len(level.anchors_wh)
            target, anchor = fits[:, first_anchor : first_anchor + count].nonzero(as_tuple=True)
            cell, index = self._cells(boxes_cxcywh[target, :2] / level.stride, level)
            locations.append(first_location + (anchor[index] * level.height + cell[:, 1]) * level.width + cell[:, 0])
            targets.append(target[index])
            ious.append(iou[target[index], first_anchor + anchor[index]])
            first_location += count * level.height * level.width
            first_anchor += count
        target = torch.cat(targets)
        return Candidates(image=objects.image[target], location=torch.cat(locations), target=target, cost=1 - torch.cat(ious))

    def _cells(self, centres: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Column and row [P, 2] of the cells that may predict objects with centres [K, 2] (in cells), and their objects [P]."""
        limit = torch.tensor([level.width, level.height], device=centres.device)
        own = torch.minimum(centres.long().clamp(min=0), limit - 1)
        cells, indices = [own], [torch.arange(len(centres), device=centres.device)]
        if self.neighbours:
            step = torch.where(centres - own < 0.5, -1, 1)
            for axis in (0, 1):
                neighbour = own.clone()
                neighbour[:, axis] += step[:, axis]
                inside = ((neighbour >= 0) & (neighbour < limit)).all(1).nonzero().squeeze(1)
                cells.append(neighbour[inside])
                indices.append(inside)
        return torch.cat(cells), torch.cat(indices)


@dataclass(frozen=True)
class RatioMatcher(AnchorMatcher):
    """An anchor fits an object if neither side differs by a factor of `max_ratio` or more."""

    max_ratio: float = 4.0

    def fits(self, sizes_wh: Tensor, anchors_wh: Tensor, iou: Tensor) -> Tensor:
        """See `AnchorMatcher.fits`."""
        ratio = sizes_wh[:, None] / anchors_wh[None]
        return torch.maximum(ratio, 1 / ratio).amax(-1) < self.max_ratio


@dataclass(frozen=True)
class IoUMatcher(AnchorMatcher):
    """An anchor fits an object if the IoU of their sizes is above `iou_threshold`, as in the original helmet system."""

    iou_threshold: float = 0.3

    def fits(self, sizes_wh: Tensor, anchors_wh: Tensor, iou: Tensor) -> Tensor:
        """See `AnchorMatcher.fits`."""
        return iou > self.iou_threshold


@dataclass(frozen=True)
class SimOTAMatcher(Matcher):
    """Of the candidates of an anchor matcher, keeps those that predict their object best at present.

    The cost of a candidate is the classification loss plus `BOX_COST` times -log(IoU) (Ge et al. 2021 "YOLOX", section 2.1,
    equation 1). The number of positives of each object follows from the predictions, see `keep_dynamic`.

    Args:
        anchors: Finds the candidates.
    """

    anchors: AnchorMatcher

    def match(self, predictions: Predictions, objects: Objects, grid: Grid) -> Assignment:
        """See `Matcher.match`."""
        candidates = self.anchors.find_candidates(objects, grid)
        at = (candidates.image, candidates.location)
        iou = paired_iou(corners(predictions.boxes_cxcywh[at]), objects.boxes_xyxy[candidates.target])
        logits = predictions.logits[at]
        scores = (torch.sigmoid(logits[:, 4:5]) * torch.sigmoid(logits[:, 5:])).sqrt()  # [P, C]
        expected = F.one_hot(objects.labels[candidates.target], scores.shape[-1]).to(scores.dtype)
        class_cost = F.binary_cross_entropy(scores, expected, reduction="none").sum(-1)
        candidates = replace(candidates, cost=class_cost - BOX_COST * torch.log(iou + 1e-8))
        return resolve_conflicts(keep_dynamic(candidates, iou))


def keep_dynamic(candidates: Candidates, iou: Tensor, top: int = 10) -> Candidates:
    """Keeps the k cheapest candidates of each object.

    k is the sum of the object's `top` highest IoUs, rounded down, and at least 1: an object that many locations predict well
    has many positives (dynamic k of SimOTA; Ge et al. 2021 "YOLOX", section 2.1; Ge et al. 2021 "OTA", section 3.3).

    Args:
        candidates: P of them.
        iou: [P] of the predicted box and the object of each candidate.
        top: How many IoUs are summed.
    """
    target = candidates.target
    if len(target) == 0:
        return candidates
    counted = _rank_per_key(target, -iou) < top
    k = torch.zeros(int(target.max()) + 1, dtype=iou.dtype, device=iou.device)
    k.index_add_(0, target[counted], iou[counted])
    return candidates.take(_rank_per_key(target, candidates.cost) < k.long().clamp(min=1)[target])


def resolve_conflicts(candidates: Candidates) -> Assignment:
    """Keeps one object per location: the one with the lowest cost, or the first of equals."""
    locations = candidates.location.amax() + 1 if len(candidates.location) else 1
    order = candidates.cost.argsort(stable=True)
    keys = (candidates.image * locations + candidates.location)[order]
    kept = candidates.take(order[_rank_per_key(keys, torch.zeros_like(candidates.cost)) == 0])
    return Assignment(image=kept.image, location=kept.location, target=kept.target)


def _rank_per_key(keys: Tensor, values: Tensor) -> Tensor:
    """Rank of each value [P] among the entries with the same key [P]; equal values rank in their order."""
    order = values.argsort(stable=True)
    order = order[keys[order].argsort(stable=True)]
    sorted_keys = keys[order]
    position = torch.arange(len(keys), device=keys.device)
    first = torch.ones_like(sorted_keys, dtype=torch.bool)
    first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    start = torch.where(first, position, 0).cummax(0).values  # where the entry's key begins
    return torch.empty_like(order).scatter_(0, order, position - start)
