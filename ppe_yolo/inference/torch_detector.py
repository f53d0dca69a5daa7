"""Detection with PyTorch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.inference.postprocess import postprocess_batch
from ppe_yolo.model.yolov3 import YoloV3


def detect_batch(network: YoloV3, images: Tensor, contract: ModelContract) -> list[dict[str, Tensor]]:
    """Detects objects in letterboxed images.

    Args:
        network: The network.
        images: [B, 3, H, W], RGB in 0..1, of the contract's input size.
        contract: See `postprocess`.

    Returns:
        Per image: boxes_xyxy [K, 4] in pixels of the input, scores [K] in descending order, labels [K].
    """
    return postprocess_batch(*network.predict(images), contract)


class TorchDetector:
    """Runs a network with PyTorch.

    Args:
        network: The network; it is switched to evaluation mode and moved to the device.
        contract: Its contract.
        device: Where to run it; see `choose_device`.
    """

    def __init__(self, network: YoloV3, contract: ModelContract, device: torch.device) -> None:
        self.contract = contract
        self.device = device
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detects objects in RGB images; see `Detector.detect`."""
        if len(images) == 0:
            return []
        letterboxed = [letterbox(i, self.contract.input_size, self.contract.pad_value) for i in images]
        nhwc = torch.from_numpy(np.stack([canvas for canvas, _ in letterboxed])).to(self.device)
        batch = nhwc.permute(0, 3, 1, 2).float() / 255  # already channels_last in memory
        return [
            placement.restore_detections(d["boxes_xyxy"].cpu().numpy(), d["scores"].cpu().numpy(), d["labels"].cpu().numpy())
            for d, (_, placement) in zip(detect_batch(self.network, batch, self.contract), letterboxed, strict=True)
        ]


def choose_device(name: str) -> torch.device:
    """Returns the device of that name; `auto` stands for the first GPU, or the CPU if there is none.

    Raises:
        UserError: This machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(f"{name!r} cannot be used here ({reason})", setting="device", hint="try auto or cpu") from error
    return device
