"""Which place of the raw maps answers for which object. Pure functions, no learning."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ppe_yolo.model.boxes import iou_of_sizes
from ppe_yolo.model.coding import Grid

Strategy = Literal["iou", "ratio"]


@dataclass(frozen=True)
class Assignment:
    """Positives: place `place[p]` of image `image[p]` answers for object `target[p]`. Each place answers for one."""

    image: Tensor
    place: Tensor
    target: Tensor


class Candidates(NamedTuple):
    """Place `place[p]` of image `image[p]` may answer for object `target[p]`, the better the lower `cost[p]`."""

    image: Tensor
    place: Tensor
    target: Tensor
    cost: Tensor

    def take(self, chosen: Tensor) -> "Candidates":
        """Some of them, by index."""
        return Candidates(*(t[chosen] for t in self))


def find_candidates(
    targets_cxcywh: Tensor,
    target_image: Tensor,
    grid: Grid,
    *,
    strategy: Strategy,
    iou_threshold: float = 0.3,
    max_ratio: float = 4.0,
    neighbours: bool = True,
) -> Candidates:
    """The places that fit each object; the cost is 1 - IoU of the object's and the anchor's sizes.

    Args:
        targets_cxcywh: Objects of the whole batch, [M, 4] pixels.
        target_image: [M] index of each object's image in the batch.
        grid: The places.
        strategy: `iou`: the anchors whose size has an IoU above `iou_threshold` with the object's, as in the original
            helmet system; `ratio`: the anchors no side of which differs by more than `max_ratio`. In both, an object
            that no anchor fits goes to the anchor of the best IoU, so that none is lost.
        iou_threshold: See `iou`.
        max_ratio: See `ratio`.
        neighbours: Also the two cells nearest to the object's centre beside its own, which triples the positives
            (multi-positives, Ge et al. 2021 "YOLOX", section 2.1, in a cross instead of a square).
    """
    device = targets_cxcywh.device
    if len(targets_cxcywh) == 0:
        empty = torch.zeros(0, dtype=torch.long, device=device)
        return Candidates(empty, empty, empty, empty.float())
    sizes_wh = targets_cxcywh[:, 2:]
    anchors_wh = torch.cat([level.anchors_wh for level in grid.levels])
    fit_iou = iou_of_sizes(sizes_wh, anchors_wh)  # [M, all anchors]
    if strategy == "iou":
        fits = fit_iou > iou_threshold
    else:
        ratio = sizes_wh[:, None] / anchors_wh[None]
        fits = torch.maximum(ratio, 1 / ratio).amax(-1) < max_ratio
    orphan = ~fits.any(1)
    fits[orphan, fit_iou[orphan].argmax(1)] = True

    places, targets, fit_of = [], [], []
    first_place = first_anchor = 0
    for level in grid.levels:
        count = len(level.anchors_wh)
        target, anchor = fits[:, first_anchor : first_anchor + count].nonzero(as_tuple=True)
        limit = torch.tensor([level.width, level.height], device=device)
        position = targets_cxcywh[target, :2] / level.stride
        own = torch.minimum(position.long().clamp(min=0), limit - 1)
        cells, which = [own], [torch.arange(len(target), device=device)]
        if neighbours:
            step = torch.where(position - own < 0.5, -1, 1)
            for axis in (0, 1):
                beside = own.clone()
                beside[:, axis] += step[:, axis]
                inside = ((beside >= 0) & (beside < limit)).all(1).nonzero().squeeze(1)
                cells.append(beside[inside])
                which.append(inside)
        cell, index = torch.cat(cells), torch.cat(which)
        places.append(first_place + (anchor[index] * level.height + cell[:, 1]) * level.width + cell[:, 0])
        targets.append(target[index])
        fit_of.append(fit_iou[target[index], first_anchor + anchor[index]])
        first_place += count * level.height * level.width
        first_anchor += count
    target = torch.cat(targets)
    return Candidates(target_image[target], torch.cat(places), target, 1 - torch.cat(fit_of))


def keep_dynamic(candidates: Candidates, iou: Tensor, top: int = 10) -> Candidates:
    """Of each object's candidates only the k of the lowest cost.

    k is the sum of the object's `top` highest IoUs, rounded down, and at least 1: an object that many places predict well has
    many positives (dynamic k of SimOTA; Ge et al. 2021 "YOLOX", section 2.1; Ge et al. 2021 "OTA", section 3.3).

    Args:
        candidates: P of them, the cost of each by what the network predicts at present.
        iou: [P] overlap of the box that each predicts with its object.
        top: How many IoUs count.
    """
    target = candidates.target
    if len(target) == 0:
        return candidates
    counted = _rank_per_key(target, -iou) < top
    k = torch.zeros(int(target.max()) + 1, dtype=iou.dtype, device=iou.device)
    k.index_add_(0, target[counted], iou[counted])
    return candidates.take(_rank_per_key(target, candidates.cost) < k.long().clamp(min=1)[target])


def one_per_place(candidates: Candidates) -> Assignment:
    """Each place answers for the object of the lowest cost; of equals, for the first."""
    places = candidates.place.amax() + 1 if len(candidates.place) else 1
    order = candidates.cost.argsort(stable=True)
    keys = (candidates.image * places + candidates.place)[order]
    keep = order[_rank_per_key(keys, torch.zeros_like(candidates.cost)) == 0]
    kept = candidates.take(keep)
    return Assignment(kept.image, kept.place, kept.target)


def _rank_per_key(keys: Tensor, values: Tensor) -> Tensor:
    """How many entries of the same key [P] have a lower value [P], or the same and come first: [P]."""
    order = values.argsort(stable=True)
    order = order[keys[order].argsort(stable=True)]
    sorted_keys = keys[order]
    position = torch.arange(len(keys), device=keys.device)
    first = torch.ones_like(sorted_keys, dtype=torch.bool)
    first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    start = torch.where(first, position, 0).cummax(0).values  # where the entry's key begins
    return torch.empty_like(order).scatter_(0, order, position - start)
