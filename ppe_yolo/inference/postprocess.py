"""From decoded boxes and scores to detections: score floor, non-maximum suppression and a maximum number per image."""

from torch import Tensor
from torchvision.ops import nms

from ppe_yolo.core.contract import ModelContract

MAX_CANDIDATES = 1000  # before suppression; more would only take time


def postprocess(boxes_xyxy: Tensor, scores: Tensor, contract: ModelContract) -> dict[str, Tensor]:
    """Returns the detections of one image. Suppression treats each class on its own.

    Args:
        boxes_xyxy: [N, 4] in pixels of the input.
        scores: [N, C].
        contract: Provides input size (boxes are clipped to it), score floor, NMS threshold and maximum number of detections.

    Returns:
        boxes_xyxy [K, 4], scores [K] in descending order, labels [K].
    """
    height, width = contract.input_size
    flat = scores.flatten()
    candidates = (flat >= contract.score_floor).nonzero().squeeze(1)
    if len(candidates) > MAX_CANDIDATES:
        candidates = candidates[flat[candidates].topk(MAX_CANDIDATES).indices]
    location = candidates // scores.shape[1]
    labels = candidates % scores.shape[1]
    limit = boxes_xyxy.new_tensor([width, height, width, height])
    boxes = boxes_xyxy[location].clamp(min=0).minimum(limit)
    # shift each class by more than the input size, so that boxes of different classes never overlap (they are clipped)
    offset = labels[:, None].to(boxes.dtype) * (max(height, width) + 1)
    keep = nms(boxes + offset, flat[candidates], contract.nms_iou_threshold)[: contract.max_detections]
    return {"boxes_xyxy": boxes[keep], "scores": flat[candidates][keep], "labels": labels[keep]}


def postprocess_batch(boxes_xyxy: Tensor, scores: Tensor, contract: ModelContract) -> list[dict[str, Tensor]]:
    """Applies `postprocess` to each image of boxes [B, N, 4] and scores [B, N, C]."""
    return [postprocess(b, s, contract) for b, s in zip(boxes_xyxy.float(), scores.float(), strict=True)]
