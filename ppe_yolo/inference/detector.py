"""A detector: photos in, boxes in the photos' own pixels out; made from a model file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.inference.postprocess import postprocess_batch
from ppe_yolo.model.coding import decode, flatten_maps
from ppe_yolo.model.yolov3 import YoloV3

CHECKPOINT_KEY = "ppe_yolo"  # where a checkpoint keeps its contract and what is needed to build its network
AT_RANDOM_KEY = "at_random"  # in a contract's provenance: names of tensors that no training has touched yet


class Detector(Protocol):
    """Anything that finds objects in photos and says what it promises."""

    contract: ModelContract

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """RGB photos of any size, each uint8 [H, W, 3] -> one `Detections` a photo."""
        ...


def detect_batch(network: YoloV3, images: Tensor, contract: ModelContract) -> list[dict[str, Tensor]]:
    """Images [B, 3, H, W] in 0..1 -> boxes_xyxy [K, 4] in pixels of the input, scores [K], labels [K], a picture each."""
    raw_maps = network(images)
    boxes_xyxy, scores = decode(flatten_maps(raw_maps).float(), network.grid(raw_maps), network.box_coding)
    return postprocess_batch(
        boxes_xyxy,
        scores,
        input_size=(images.shape[2], images.shape[3]),
        score_floor=contract.score_floor,
        nms_iou_threshold=contract.nms_iou_threshold,
        max_detections=contract.max_detections,
    )


class TorchDetector:
    """Runs a network with PyTorch."""

    def __init__(self, network: YoloV3, contract: ModelContract, device: torch.device) -> None:
        self.contract = contract
        self.device = device
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """See `Detector.detect`."""
        fitted = [letterbox(i, self.contract.input_size, self.contract.pad_value) for i in images]
        nhwc = torch.from_numpy(np.stack([canvas for canvas, _ in fitted])).to(self.device)
        batch = nhwc.permute(0, 3, 1, 2).float() / 255  # already channels_last in memory
        return [
            Detections(
                *placement.restore_detections(
                    d["boxes_xyxy"].cpu().numpy(), d["scores"].cpu().numpy(), d["labels"].cpu().numpy()
                )
            )
            for d, (_, placement) in zip(detect_batch(self.network, batch, self.contract), fitted, strict=True)
        ]


def choose_device(name: str) -> torch.device:
    """`auto`: the first GPU if there is one; else what is named.

    Raises:
        UserError: No such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(f"device: {name!r} cannot be used here ({reason}): try auto or cpu") from error
    return device


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of ours without running any code that it may carry.

    Raises:
        UserError: No such file, not a checkpoint, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a checkpoint, got {'a folder' if path.is_dir() else 'no such file'}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, and its texts advise to read the file in the way that runs code
        reason = error.strerror if isinstance(error, OSError) else "damaged, or it holds more than tensors and plain values"
        raise UserError(f"{path}: expected a checkpoint, got a file that cannot be read as one ({reason})") from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path}: expected a checkpoint written by `ppe-yolo fit`, got one without a model contract")
    return checkpoint


def build_network(checkpoint: dict[str, Any], path: str | Path) -> tuple[YoloV3, ModelContract]:
    """The network of a checkpoint with its weights, and its contract.

    Raises:
        UserError: What the checkpoint holds does not fit together; names `path`.
    """
    try:
        kept = checkpoint[CHECKPOINT_KEY]
        contract = ModelContract.from_json(kept["contract"])
        network = YoloV3(kept["architecture"], len(contract.class_names), kept["anchors_wh"], kept["box_coding"])
        prefix = "network."
        weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        network.load_state_dict(weights)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: the checkpoint contradicts itself ({reason}): train or copy it again") from error
    return network, contract


def describe_network(network: YoloV3, contract: ModelContract) -> dict[str, Any]:
    """What a checkpoint keeps at CHECKPOINT_KEY, in plain types alone; `build_network` reads it."""
    return {
        "contract": contract.to_json(),
        "architecture": network.architecture,
        "anchors_wh": network.anchors_wh.reshape(-1, 2).tolist(),
        "box_coding": network.box_coding,
    }


def require_trained(contract: ModelContract, path: str | Path) -> None:
    """Refuses a model whose heads, or more, hold random numbers: it is there to start a training from."""
    untrained = contract.provenance.get(AT_RANDOM_KEY)
    if untrained:
        raise UserError(
            f"{path}: {len(untrained)} of its tensors ({untrained[0]}, ...) hold random numbers and detect nothing: "
            f"train it first, ppe-yolo fit --model.weights {path}"
        )


def training_hash(contract: ModelContract, path: Path) -> str | None:
    """Tells the training that a model file came from: the same for a run's checkpoint, its ONNX file and its packed files.

    That is the hash of the run's checkpoint, which files made from it remember; None where `path` is no file.
    """
    remembered = contract.provenance.get("run_checkpoint_blake2b") or contract.provenance.get("checkpoint_blake2b")
    if remembered is not None:
        return str(remembered)
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else None


def load_detector(path: str | Path, *, device: str = "auto", tiles: int = 1) -> Detector:
    """The detector in a model file: a checkpoint or an ONNX model.

    Args:
        path: The file.
        device: See `choose_device`.
        tiles: Photos are looked at in so many rows and columns of tiles, too; see `TiledDetector`.

    Raises:
        UserError: The file is not a model of ours, or not a trained one, or the device is not there.
    """
    if tiles > 1:
        from ppe_yolo.inference.tiled import TiledDetector

        return TiledDetector(load_detector(path, device=device), tiles)
    if is_onnx(Path(path)):
        from ppe_yolo.inference.onnx_detector import load_onnx_detector

        return load_onnx_detector(path, device=device)
    network, contract = build_network(read_checkpoint(path), path)
    require_trained(contract, path)
    return TorchDetector(network, contract, choose_device(device))


def is_onnx(path: Path) -> bool:
    """Whether a model file is to be read as ONNX: by its content where that tells, else by its name."""
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(2)
    # a checkpoint is a zip archive; an ONNX file begins with its version, protobuf's field 1
    return start != b"PK" and (path.suffix.lower() == ".onnx" or start[:1] == b"\x08")
