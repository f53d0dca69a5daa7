"""The check of every export: checkpoint and ONNX model on the same images, none of which was used for tracing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import tile_images
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.data.synthetic import draw_site
from ppe_yolo.export.graph import DECODED_BOXES, DECODED_SCORES, with_decoded_outputs
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector, open_session, read_onnx
from ppe_yolo.inference.postprocess import postprocess_batch
from ppe_yolo.model.yolov3 import YoloV3

SIZES = ((360, 480), (720, 1280), (640, 400))  # (height, width) of the images


class ParityError(UserError):
    """Two models that must detect the same do not; the message says by how much they differ."""


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed difference of boxes (pixels) and scores."""

    boxes: float
    scores: float


FLOAT32 = Tolerance(boxes=0.05, scores=1e-4)
FLOAT16 = Tolerance(boxes=2.0, scores=0.02)
SAME_INPUT = Tolerance(boxes=1e-3, scores=1e-6)  # suppression only, on the same decoded boxes and scores


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference of two runs on the same images.

    Attributes:
        boxes: Largest difference of boxes, pixels.
        scores: Largest difference of scores.
        unmatched: Detections without a counterpart.
        detections: Detections of both runs.
    """

    boxes: float = 0.0
    scores: float = 0.0
    unmatched: int = 0
    detections: int = 0


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """The result of a parity check.

    Attributes:
        images: Names of the images.
        tolerance: What was allowed.
        decoded: Decoded boxes and scores, ONNX model against checkpoint.
        suppression: Detections, the file against `inference.postprocess` on the same decoded values; None without suppression.
        detections: Detections, the file against the checkpoint; None without suppression.
    """

    images: tuple[str, ...]
    tolerance: Tolerance
    decoded: Difference
    suppression: Difference | None = None
    detections: Difference | None = None

    def describe_decoded(self) -> str:
        """The difference before suppression, in one line."""
        return (
            f"decoded boxes differ by at most {self.decoded.boxes:.2g} px (allowed {self.tolerance.boxes:g}), "
            f"scores by {self.decoded.scores:.2g} (allowed {self.tolerance.scores:g})"
        )

    def describe_suppression(self) -> str:
        """The difference of the suppression alone, in one line."""
        difference = self.suppression or Difference()
        return (
            f"suppression in the graph against PyTorch's: {difference.unmatched} of {difference.detections} detections "
            "without a counterpart"
        )

    def lines(self) -> list[str]:
        """The whole report."""
        lines = [f"parity on {len(self.images)} images ({', '.join(self.images)}), one by one and three at a time:"]
        lines.append(f"  {self.describe_decoded()}")
        if self.suppression is not None and self.detections is not None:
            whole = self.detections
            lines.append(f"  {self.describe_suppression()}")
            lines.append(
                f"  file against checkpoint: {whole.unmatched} of {whole.detections} without a counterpart, boxes within "
                f"{whole.boxes:.2g} px, scores within {whole.scores:.2g}"
            )
        return lines


def parity_images() -> dict[str, NDArray[np.uint8]]:
    """Drawn images of several sizes: sites, a crowd and an empty wall."""
    rng = np.random.default_rng(20)
    sites = [draw_site(np.random.default_rng([20, i]), size)[0] for i, size in enumerate(SIZES)]
    crowd = [draw_site(np.random.default_rng([21, i]), (240, 320))[0] for i in range(20)]
    wall = rng.normal(150, 4, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    names = [f"site {width}x{height}" for height, width in SIZES]
    return {**dict(zip(names, sites, strict=True)), "crowd": tile_images(crowd, 5, (240, 320)), "empty": wall}


@torch.inference_mode()
def check_parity(network: YoloV3, contract: ModelContract, path: Path, *, suppression: bool, half: bool) -> ParityReport:
    """Compares an ONNX file with its network, image by image and three images at a time.

    Decoded boxes and scores of all grid locations must agree, and the suppression in the graph must keep what
    `inference.postprocess` keeps of the same decoded values. The detections of file and checkpoint are reported, but not
    judged: of two boxes whose scores differ in the last digit, either may be suppressed.

    Args:
        network: The network of the checkpoint.
        contract: The contract of the ONNX file; its input size is used.
        path: The ONNX file.
        suppression: Whether the file contains the suppression.
        half: Whether its convolutions are in float16.

    Raises:
        ParityError: A difference beyond the tolerance.
    """
    tolerance = FLOAT16 if half else FLOAT32
    content = read_onnx(path)
    images = parity_images()
    canvases = np.stack([letterbox(i, contract.input_size, contract.pad_value)[0] for i in images.values()])
    network = network.eval()
    predictions = network.predict(torch.from_numpy(canvases).permute(0, 3, 1, 2).float() / 255)
    boxes_xyxy, scores = (t.numpy() for t in predictions)

    opened = onnx.load_model_from_string(content)
    if suppression:
        opened = with_decoded_outputs(opened)
    session = open_session(opened.SerializeToString(), str(path))
    detector = load_onnx_detector(path, device="cpu") if suppression else None
    raw, of_suppression, of_detections = [], [], []
    for batch in [[i] for i in range(len(canvases))] + [[0, 1, 2], [4, 3, 0]]:
        onnx_xyxy, onnx_scores = session.run([DECODED_BOXES, DECODED_SCORES], {"images": canvases[batch]})
        raw.append(Difference(boxes=_largest(onnx_xyxy, boxes_xyxy[batch]), scores=_largest(onnx_scores, scores[batch])))
        if detector is not None:
            detections = _detect(detector, canvases[batch])
            of_suppression.append(compare(_suppress(onnx_xyxy, onnx_scores, contract), detections, SAME_INPUT))
            of_detections.append(compare(_suppress(boxes_xyxy[batch], scores[batch], contract), detections, tolerance))
    report = ParityReport(
        images=tuple(images),
        tolerance=tolerance,
        decoded=_worst(raw),
        suppression=_worst(of_suppression) if suppression else None,
        detections=_worst(of_detections) if suppression else None,
    )
    # "not <=": a difference that is not a number is refused, too
    if not (report.decoded.boxes <= tolerance.boxes and report.decoded.scores <= tolerance.scores):
        raise ParityError(f"parity: the ONNX model is not the checkpoint: {report.describe_decoded()}: nothing is written")
    if report.suppression is not None and report.suppression.unmatched:
        raise ParityError(f"parity: {report.describe_suppression()}: nothing is written")
    return report


def _worst(differences: Sequence[Difference]) -> Difference:
    """The largest differences, and the sums of detections."""
    return Difference(
        boxes=float(np.max([d.boxes for d in differences])),
        scores=float(np.max([d.scores for d in differences])),
        unmatched=sum(d.unmatched for d in differences),
        detections=sum(d.detections for d in differences),
    )


def compare(a: Sequence[Detections], b: Sequence[Detections], tolerance: Tolerance) -> Difference:
    """Compares two lists of detections of the same images.

    A detection has a counterpart if the other side has one with the same label, and with box and score within the tolerance;
    differences are measured between counterparts.
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
    return Difference(boxes=max(boxes), scores=max(scores), unmatched=unmatched, detections=total)


def _largest(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The largest difference; NaN if there is one in either."""
    return float(np.abs(a - b).max())


def _detect(detector: OnnxDetector, batch: NDArray[np.uint8]) -> list[Detections]:
    """Detections in pixels of the input."""
    boxes_xyxy, scores, labels = detector.run(batch)
    return [
        Detections(b[:n], s[:n], k[:n])
        for b, s, k, n in zip(boxes_xyxy, scores, labels, np.count_nonzero(scores, axis=1), strict=True)
    ]


def _suppress(boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], contract: ModelContract) -> list[Detections]:
    detections = postprocess_batch(torch.from_numpy(boxes_xyxy), torch.from_numpy(scores), contract)
    return [Detections(d["boxes_xyxy"].numpy(), d["scores"].numpy(), d["labels"].numpy()) for d in detections]
