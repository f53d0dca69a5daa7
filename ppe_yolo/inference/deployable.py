"""The network in the form for export: letterboxed uint8 images in, decoded boxes and scores out."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ppe_yolo.model.blocks import ConvBlock
from ppe_yolo.model.yolov3 import YoloV3


class DeployableNetwork(nn.Module):
    """A copy of a network with the input of the contract, which computes the same numbers with fewer operations.

    Batch norms are folded into their convolutions, and the division by 255 into the first one. Suppression is in
    `export.graph`, since ONNX has an operator for whole batches and torch only one for single images.

    Args:
        network: The network; it is not changed.
        half: Run convolutions in float16, for GPUs. Boxes are still decoded in float32; see `YoloV3.predict`.
    """

    def __init__(self, network: YoloV3, *, half: bool = False) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).float().eval().requires_grad_(False)
        self.dtype = torch.float16 if half else torch.float32
        body = self.network.body
        for parent in list(body.modules()):
            for name, child in parent.named_children():
                if isinstance(child, ConvBlock):
                    setattr(parent, name, fuse(child))
        self.divisor = 255.0
        if not half:  # float16 would lose a 255th of a small weight
            first = next(m for m in body.modules() if isinstance(m, nn.Conv2d))
            first.weight.data /= self.divisor
            self.divisor = 1.0
        body.to(self.dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes boxes and scores before suppression.

        Args:
            images: uint8 [B, H, W, 3], RGB.

        Returns:
            boxes_xyxy [B, N, 4] in pixels of the input and scores [B, N, C], both float32.
        """
        pixels = images.permute(0, 3, 1, 2).to(self.dtype)
        return self.network.predict(pixels if self.divisor == 1.0 else pixels / self.divisor)


def fuse(block: ConvBlock) -> nn.Sequential:
    """Fuses a block into convolution with bias, leaky ReLU and pooling, which onnxruntime computes in one pass in this order.

    Args:
        block: A block in evaluation mode.
    """
    convolution, norm, pool, activation = block
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return nn.Sequential(fuse_conv_bn_eval(convolution, norm), activation, pool)
