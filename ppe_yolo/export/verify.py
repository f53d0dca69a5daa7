"""`ppe-yolo verify`: an ONNX model against its checkpoint on a whole annotated split."""

from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.images import read_image
from ppe_yolo.evaluation.evaluate import average_precision_of
from ppe_yolo.export.parity import ParityError, Tolerance, compare
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.inference.onnx_detector import load_onnx_detector

IN_PHOTO = Tolerance(boxes=0.1, scores=1e-3)  # in pixels of the photo, which may be larger than the input
BATCH = 4


def verify(
    model: Path, checkpoint: Path, data: str, *, split: str, class_map: str | None, tolerance: float, console: Console
) -> dict[str, float]:
    """Compares detections (printed alone) and mean average precision (which decides).

    Args:
        model: An ONNX model.
        checkpoint: What it was made from.
        data: See `open_source`.
        split: Which photos.
        class_map: Name or file.
        tolerance: Points by which mAP@0.5 and mAP@0.5:0.95 may differ.
        console: Where to print.

    Returns:
        Points by which the ONNX model is better, by name of the figure.

    Raises:
        UserError: The two are not of the same contract, or the data has errors.
        ParityError: A figure differs by more than the tolerance.
    """
    detectors = {"checkpoint": load_detector(checkpoint, device="cpu"), "onnx": load_onnx_detector(model, device="cpu")}
    promised = {name: (d.contract.class_names, d.contract.input_size) for name, d in detectors.items()}
    if promised["checkpoint"] != promised["onnx"]:
        raise UserError(f"{model}: made for {promised['onnx']}, the checkpoint {checkpoint} for {promised['checkpoint']}")
    contract = detectors["checkpoint"].contract
    mapping = load_class_map(class_map).require_classes(contract.class_names, model)
    annotated = AnnotatedDataset.open(data, mapping, splits=[split]).split(split)
    found: dict[str, list[Detections]] = {name: [] for name in detectors}
    for start in track(range(0, len(annotated), BATCH), "comparing", console=console, transient=True):
        photos = [read_image(a.image) for a in annotated[start : start + BATCH]]
        for name, detector in detectors.items():
            found[name] += detector.detect(photos)
    apart = compare(found["checkpoint"], found["onnx"], IN_PHOTO)
    summaries = {name: average_precision_of(annotated, detections, contract) for name, detections in found.items()}
    gain: dict[str, float] = {}
    table = Table("", "checkpoint", "onnx", "points")
    maps = {d: (100 * (s["map_50"] or 0.0), 100 * (s["map"] or 0.0)) for d, s in summaries.items()}
    for name, before, after in zip(("mAP@0.5", "mAP@0.5:0.95"), maps["checkpoint"], maps["onnx"], strict=True):
        gain[name] = after - before
        table.add_row(name, f"{before:.3f} %", f"{after:.3f} %", f"{gain[name]:+.4f}")
    console.print(table)
    console.print(
        f"{len(annotated)} photos of {split}: {apart.unmatched} of {apart.detections} detections without a counterpart "
        f"({IN_PHOTO.boxes:g} px, score {IN_PHOTO.scores:g}); the others within {apart.boxes:.2g} px, score {apart.scores:.2g}",
        soft_wrap=True,
    )
    worst = max(gain, key=lambda name: abs(gain[name]))
    if not abs(gain[worst]) <= tolerance:
        raise ParityError(
            f"{model}: {worst} differs from the checkpoint's by {gain[worst]:+.3f} points, allowed are {tolerance:g}"
        )
    return gain
