"""The building blocks of Darknet: convolution with batch norm, and the residual block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# OpenCV's reader of Darknet weights adds this to the variance (Darknet itself adds it to the root). PyTorch's 1e-5 would
# shift the raw maps of networks with small variances by more than 0.01
BATCH_NORM_EPS = 1e-6


class ConvBlock(nn.Sequential):
    """Convolution without bias, batch norm, leaky ReLU of slope 0.1 (Redmon & Farhadi 2018, section 2.4).

    Shapes: [B, in_channels, H, W] -> [B, out_channels, ceil(H / stride), ceil(W / stride)], halved again by `pool`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel.
        stride: Stride of the convolution.
        pool: Also halve the output by max pooling. Pooling precedes the leaky ReLU. Both orders give the same numbers, since
            the ReLU is monotonic, but in this one it has to compute a quarter of them.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, pool: bool = False) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS),
            nn.MaxPool2d(2) if pool else nn.Identity(),
            nn.LeakyReLU(0.1, inplace=True),
        )


class Residual(nn.Module):
    """The residual block of Darknet-53 (table 1 of the paper): x + conv3x3(conv1x1(x)). Keeps the shape [B, channels, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvBlock(channels, channels // 2, 1)
        self.expand = ConvBlock(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the output of the two convolutions to their input."""
        return x + self.expand(self.reduce(x))


class SamePool(nn.Module):
    """Max pooling 2x2 with stride 1 that keeps the shape, padded by one pixel on the right and at the bottom as in Darknet."""

    def forward(self, x: Tensor) -> Tensor:
        """Pools features [B, C, H, W] -> [B, C, H, W]."""
        # repeating the last row and column gives the same maximum as Darknet's padding of minus infinity
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), kernel_size=2, stride=1)


def upsample_and_join(deep: Tensor, shallow: Tensor) -> Tensor:
    """Upsamples `deep` [B, C1, H, W] by 2 and concatenates `shallow` [B, C2, 2H, 2W] after it: [B, C1 + C2, 2H, 2W]."""
    return torch.cat((F.interpolate(deep, scale_factor=2.0, mode="nearest"), shallow), dim=1)
