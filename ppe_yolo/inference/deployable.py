"""The network as it is shipped: bytes of a letterboxed picture in, decoded boxes and scores out."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ppe_yolo.model.blocks import ConvBlock
from ppe_yolo.model.coding import decode, flatten_maps
from ppe_yolo.model.yolov3 import YoloV3


class DeployableNetwork(nn.Module):
    """A copy of a network that takes what the contract says, and computes the same numbers with fewer operations.

    Batch norms are folded into their convolutions, and the division by 255 into the first one. Suppression is not here but
    in `export.graph`: ONNX has it for whole batches, torch one picture at a time.

    Args:
        network: The network; it is left as it is.
        half: Convolutions in float16, for GPUs. Boxes are decoded in float32 all the same: float16 knows quarters of a
            pixel at best.
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
        if not half:  # a 255th of a small weight would be lost in float16
            first = next(m for m in body.modules() if isinstance(m, nn.Conv2d))
            first.weight.data /= self.divisor
            self.divisor = 1.0
        body.to(self.dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 [B, H, W, 3], RGB -> boxes_xyxy [B, N, 4] in pixels of the input, scores [B, N, C], both float32."""
        pixels = images.permute(0, 3, 1, 2).to(self.dtype)
        raw_maps = self.network(pixels if self.divisor == 1.0 else pixels / self.divisor)
        logits = flatten_maps([m.float() for m in raw_maps])
        return decode(logits, self.network.grid(raw_maps), self.network.box_coding)


def fuse(block: ConvBlock) -> nn.Sequential:
    """One convolution with a bias, leaky ReLU, pooling: the order that onnxruntime computes in one pass over the picture.

    Args:
        block: In evaluation mode.
    """
    convolution, norm, pool, activation = block
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return nn.Sequential(fuse_conv_bn_eval(convolution, norm), activation, pool)
