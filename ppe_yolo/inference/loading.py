"""From a model file to a detector."""

from pathlib import Path

from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.tiled import TiledDetector
from ppe_yolo.weights import find_model


def load_detector(path: str | Path, *, device: str = "auto", tiles: int = 1, threads: int | None = None) -> Detector:
    """Loads a detector from a checkpoint or an ONNX model.

    An ONNX model needs no torch, which takes seconds to import.

    Args:
        path: The file, or the name of a bundled model such as `helmet-small`.
        device: auto, cpu, cuda or cuda:1; see `choose_device` for checkpoints and `OnnxDetector` for ONNX models.
        tiles: Rows and columns of tiles that are searched in addition to the whole image, for small heads; 1 searches the
            whole image only. See `TiledDetector`.
        threads: Threads per operator of an ONNX model; None leaves the choice to onnxruntime.

    Raises:
        UserError: The file is no model written by ppe-yolo, or not a trained one, or the device is not available.
    """
    path = find_model(path, "onnx")
    detector: Detector
    if is_onnx(path):
        from ppe_yolo.inference.onnx_detector import load_onnx_detector

        detector = load_onnx_detector(path, device=device, threads=threads)
    else:
        detector = _load_torch_detector(path, device)
    return TiledDetector(detector, tiles) if tiles > 1 else detector


def is_onnx(path: Path) -> bool:
    """Returns whether a model file must be read as ONNX, by its content if that is clear, otherwise by its name."""
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(2)
    # a checkpoint is a zip archive; an ONNX file starts with its version, protobuf's field 1
    return start != b"PK" and (path.suffix.lower() == ".onnx" or start[:1] == b"\x08")


def _load_torch_detector(path: Path, device: str) -> Detector:
    from ppe_yolo.inference.checkpoint import build_network, read_checkpoint, require_trained
    from ppe_yolo.inference.torch_detector import TorchDetector, choose_device

    network, contract = build_network(read_checkpoint(path), path)
    require_trained(contract, path)
    return TorchDetector(network, contract, choose_device(device))
