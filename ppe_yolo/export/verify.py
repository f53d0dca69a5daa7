"""Compares an ONNX model with its checkpoint on a whole annotated split."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.images import read_image
from ppe_yolo.evaluation.evaluate import average_precision_of
from ppe_yolo.export.parity import Difference, ParityError, Tolerance, compare
from ppe_yolo.inference.checkpoint import build_network, read_checkpoint, require_trained
from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.onnx_detector import load_onnx_detector
from ppe_yolo.inference.torch_detector import TorchDetector

IN_IMAGE = Tolerance(boxes=0.1, scores=1e-3)  # in pixels of the image, which may be larger than the input
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Verification:
    """An ONNX model and its checkpoint on the same images.

    Attributes:
        model: The ONNX model.
        images: Number of images.
        difference: Of their detections, with the tolerance `IN_IMAGE`.
        checkpoint: mAP@0.5 and mAP@0.5:0.95 of the checkpoint, 0 to 1.
        onnx: The same of the ONNX model.
    """

    model: Path
    images: int
    difference: Difference
    checkpoint: Mapping[str, float]
    onnx: Mapping[str, float]

    @property
    def gain(self) -> dict[str, float]:
        """Points by which the ONNX model is better, by name of the metric."""
        return {name: 100 * (self.onnx[name] - value) for name, value in self.checkpoint.items()}

    def require(self, tolerance: float) -> None:
        """Checks that no metric differs by more than `tolerance` points.

        Raises:
            ParityError: Names the metric with the largest difference.
        """
        worst = max(self.gain, key=lambda name: abs(self.gain[name]))
        if not abs(self.gain[worst]) <= tolerance:  # "not <=": NaN is refused, too
            raise ParityError(
                f"{worst} differs from the checkpoint's by {self.gain[worst]:+.3f} points, allowed are {tolerance:g}",
                file=self.model,
            )


def verify(
    model: Path,
    checkpoint: Path,
    data: str,
    *,
    split: str,
    class_map: str | None = None,
    console: Console | None = None,
) -> Verification:
    """Runs an ONNX model and its checkpoint, at the model's input size, on the same images.

    Args:
        model: An ONNX model.
        checkpoint: The checkpoint that it was exported from.
        data: See `open_source`.
        split: The images.
        class_map: Name or file.
        console: Shows progress; none when None.

    Raises:
        UserError: The two have different classes, or the data has errors.
    """
    onnx = load_onnx_detector(model, device="cpu")
    network, contract = build_network(read_checkpoint(checkpoint), checkpoint)
    require_trained(contract, checkpoint)
    if contract.class_names != onnx.contract.class_names:
        raise UserError(
            file=model,
            expected=f"the classes of {checkpoint}, {', '.join(contract.class_names)}",
            got=", ".join(onnx.contract.class_names),
        )
    contract = replace(contract, input_size=onnx.contract.input_size)
    detectors: dict[str, Detector] = {"checkpoint": TorchDetector(network, contract, torch.device("cpu")), "onnx": onnx}
    mapping = load_class_map(class_map).require_classes(contract.class_names, model)
    annotated = AnnotatedDataset.open(data, mapping, splits=[split]).split(split)
    detections: dict[str, list[Detections]] = {name: [] for name in detectors}
    starts = range(0, len(annotated), BATCH)
    for start in track(starts, "comparing", console=console, transient=True, disable=console is None):
        images = [read_image(a.image) for a in annotated[start : start + BATCH]]
        for name, detector in detectors.items():
            detections[name] += detector.detect(images)
    maps = {name: average_precision_of(annotated, detected, contract) for name, detected in detections.items()}
    return Verification(
        model=model,
        images=len(annotated),
        difference=compare(detections["checkpoint"], detections["onnx"], IN_IMAGE),
        checkpoint=maps["checkpoint"],
        onnx=maps["onnx"],
    )
