"""The gate of every export: checkpoint and ONNX on the same pictures, none of which was used for tracing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.console import Console

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import tile_images
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.data.synthetic import draw_site
from ppe_yolo.export.graph import DECODED_BOXES, DECODED_SCORES, with_decoded_outputs
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector, open_session, read_onnx
from ppe_yolo.inference.postprocess import postprocess_batch
from ppe_yolo.model.coding import decode, flatten_maps
from ppe_yolo.model.yolov3 import YoloV3

SIZES = ((360, 480), (720, 1280), (640, 400))  # (height, width) of the pictures


class ParityError(UserError):
    """Two models that should find the same do not; says by how much."""


@dataclass(frozen=True)
class Tolerance:
    """How far checkpoint and ONNX may lie apart: boxes in pixels, and scores."""

    boxes: float
    scores: float


FLOAT32 = Tolerance(boxes=0.05, scores=1e-4)
FLOAT16 = Tolerance(boxes=2.0, scores=0.02)
SAME_INPUT = Tolerance(boxes=1e-3, scores=1e-6)  # suppression alone, given the same decoded boxes and scores


@dataclass(frozen=True)
class Difference:
    """How far apart two runs are: largest differences of boxes (pixels) and scores, detections without a counterpart."""

    boxes: float
    scores: float
    unmatched: int
    detections: int


def parity_pictures() -> dict[str, NDArray[np.uint8]]:
    """Photos of several sizes: sites, a crowd and an empty wall."""
    rng = np.random.default_rng(20)
    sites = [draw_site(np.random.default_rng([20, i]), size)[0] for i, size in enumerate(SIZES)]
    crowd = [draw_site(np.random.default_rng([21, i]), (240, 320))[0] for i in range(20)]
    wall = rng.normal(150, 4, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    names = [f"site {width}x{height}" for height, width in SIZES]
    return {**dict(zip(names, sites, strict=True)), "crowd": tile_images(crowd, 5, (240, 320)), "empty": wall}


@torch.inference_mode()
def check_parity(
    network: YoloV3, contract: ModelContract, path: Path, *, suppression: bool, half: bool, console: Console
) -> None:
    """Compares in three steps, each with pictures one by one and three at a time.

    Decoded boxes and scores of every place, checkpoint against ONNX; the detections of the file against our own
    suppression of the same decoded values; and the detections of the file against those of the checkpoint, which is
    printed alone: of two boxes that score the same but for the last digit, either may go.

    Raises:
        ParityError: A difference beyond tolerance.
    """
    tolerance = FLOAT16 if half else FLOAT32
    content = read_onnx(path)
    pictures = parity_pictures()
    canvases = np.stack([letterbox(p, contract.input_size, contract.pad_value)[0] for p in pictures.values()])
    network = network.eval()
    raw_maps = network(torch.from_numpy(canvases).permute(0, 3, 1, 2).float() / 255)
    decoded = decode(flatten_maps(raw_maps), network.grid(raw_maps), network.box_coding)
    boxes_xyxy, scores = (t.numpy() for t in decoded)

    opened = onnx.load_model_from_string(content)
    if suppression:
        opened = with_decoded_outputs(opened)
    session = open_session(opened.SerializeToString(), str(path))
    detector = load_onnx_detector(path, device="cpu") if suppression else None
    batches = [[i] for i in range(len(canvases))] + [[0, 1, 2], [4, 3, 0]]
    raw, apart, whole = [], [], []
    for batch in batches:
        found_xyxy, found_scores = session.run([DECODED_BOXES, DECODED_SCORES], {"images": canvases[batch]})
        raw.append((_largest(found_xyxy, boxes_xyxy[batch]), _largest(found_scores, scores[batch])))
        if detector is not None:
            detected = _detect(detector, canvases[batch])
            apart.append(compare(_suppress(found_xyxy, found_scores, contract), detected, SAME_INPUT))
            whole.append(compare(_suppress(boxes_xyxy[batch], scores[batch], contract), detected, tolerance))
    worst = Difference(max(b for b, _ in raw), max(s for _, s in raw), 0, 0)
    text = f"decoded boxes differ by at most {worst.boxes:.2g} px (allowed {tolerance.boxes:g}), scores by {worst.scores:.2g} "
    text += f"(allowed {tolerance.scores:g})"
    console.print(
        f"parity on {len(pictures)} pictures ({', '.join(pictures)}), one by one and three at a time:", soft_wrap=True
    )
    console.print(f"  {text}", soft_wrap=True)
    if not (worst.boxes <= tolerance.boxes and worst.scores <= tolerance.scores):
        raise ParityError(f"parity: the ONNX model is not the checkpoint: {text}: nothing is written")
    if detector is None:
        return
    lost, of = sum(d.unmatched for d in apart), sum(d.detections for d in apart)
    text = f"suppression in the graph against ours: {lost} of {of} detections without a counterpart"
    console.print(f"  {text}", soft_wrap=True)
    console.print(
        f"  file against checkpoint: {sum(d.unmatched for d in whole)} of {sum(d.detections for d in whole)} without a "
        f"counterpart, boxes within {max(d.boxes for d in whole):.2g} px, scores within {max(d.scores for d in whole):.2g}",
        soft_wrap=True,
    )
    if lost:
        raise ParityError(f"parity: {text}: nothing is written")


def compare(a: Sequence[Detections], b: Sequence[Detections], tolerance: Tolerance) -> Difference:
    """Compares the detections of the same pictures.

    A detection has a counterpart when the other side has one of its label with a box and a score within the tolerance; the
    differences are those between counterparts.
    """
    unmatched, boxes, scores, total = 0, [0.0], [0.0], 0
    for one, other in zip(a, b, strict=True):
        apart = np.abs(one.boxes_xyxy[:, None] - other.boxes_xyxy[None]).max(axis=2)
        score_apart = np.abs(one.scores[:, None] - other.scores[None])
        same = one.labels[:, None] == other.labels[None]
        same &= (apart <= tolerance.boxes) & (score_apart <= tolerance.scores)
        unmatched += int((~same.any(axis=1)).sum() + (~same.any(axis=0)).sum())
        total += len(one.scores) + len(other.scores)
        if same.any():
            nearest = np.where(same, apart, np.inf).argmin(axis=1)
            rows = np.nonzero(same.any(axis=1))[0]
            boxes.append(float(apart[rows, nearest[rows]].max()))
            scores.append(float(score_apart[rows, nearest[rows]].max()))
    return Difference(max(boxes), max(scores), unmatched, total)


def _largest(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The largest difference; not a number where either is not."""
    return float(np.abs(a - b).max())


def _detect(detector: OnnxDetector, batch: NDArray[np.uint8]) -> list[Detections]:
    """Detections in pixels of the input."""
    boxes_xyxy, scores, labels = detector.run(batch)
    return [
        Detections(b[:n], s[:n], k[:n])
        for b, s, k, n in zip(boxes_xyxy, scores, labels, np.count_nonzero(scores, axis=1), strict=True)
    ]


def _suppress(boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], contract: ModelContract) -> list[Detections]:
    found = postprocess_batch(
        torch.from_numpy(boxes_xyxy),
        torch.from_numpy(scores),
        input_size=contract.input_size,
        score_floor=contract.score_floor,
        nms_iou_threshold=contract.nms_iou_threshold,
        max_detections=contract.max_detections,
    )
    return [Detections(d["boxes_xyxy"].numpy(), d["scores"].numpy(), d["labels"].numpy()) for d in found]
