"""YOLOv3 with the Darknet-53 backbone (Redmon & Farhadi 2018, "YOLOv3: An Incremental Improvement")."""

from torch import Tensor, nn

from ppe_yolo.model.blocks import ConvBlock, Residual, upsample_and_join

STRIDES = (8, 16, 32)
# for human heads: a geometric series from 8 to 54 pixels at 416, then larger steps for heads that fill the image
HEAD_ANCHORS_WH = (
    ((8, 10), (11, 14), (15, 19)),
    ((20, 25), (28, 34), (38, 46)),
    ((54, 65), (90, 108), (180, 216)),
)
STAGE_CHANNELS = (64, 128, 256, 512, 1024)
STAGE_BLOCKS = (1, 2, 8, 8, 4)  # residual blocks in each stage
NECK_CHANNELS = (128, 256, 512)  # at strides 8, 16, 32
NECK_PAIRS = 2  # pairs of a 3x3 and a 1x1 convolution in each neck
# the paper's, fitted to COCO: (width, height) in pixels at 416, three per stride
DEFAULT_ANCHORS_WH = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


def scaled_channels(channels: int, width: float) -> int:
    """Returns the number of channels at a width multiplier, a multiple of 8 (Howard et al. 2017 "MobileNets", section 3.3)."""
    return max(8, round(channels * width / 8) * 8)


def scaled_repeats(repeats: int, depth: float) -> int:
    """Returns the number of repeated blocks at a depth multiplier, at least 1."""
    return max(1, round(repeats * depth))


class Darknet53(nn.Module):
    """Backbone, table 1 of the paper: [B, 3, H, W] -> features at strides 8, 16, 32 with 256, 512, 1024 channels times `width`.

    Args:
        width: Multiplier of the number of channels.
        depth: Multiplier of the number of residual blocks in each stage.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self.stem = ConvBlock(3, scaled_channels(32, width), 3)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvBlock(scaled_channels(c // 2, width), scaled_channels(c, width), 3, stride=2),
                *(Residual(scaled_channels(c, width)) for _ in range(scaled_repeats(n, depth))),
            )
            for c, n in zip(STAGE_CHANNELS, STAGE_BLOCKS, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the features of the last three stages, the finest stride first."""
        x, features = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[2:]


def _neck(in_channels: int, channels: int, pairs: int) -> nn.Sequential:
    """Builds a 1x1 convolution followed by pairs of a 3x3 and a 1x1 convolution."""
    blocks = [ConvBlock(in_channels, channels, 1)]
    for _ in range(pairs):
        blocks += [ConvBlock(channels, channels * 2, 3), ConvBlock(channels * 2, channels, 1)]
    return nn.Sequential(*blocks)


class YoloV3Body(nn.Module):
    """Backbone, neck and heads of YOLOv3 (section 2.3): [B, 3, H, W] -> raw maps [B, outputs, H/s, W/s], s in STRIDES.

    The multipliers follow the convention of YOLOv5 and YOLOX (Ge et al. 2021 "YOLOX", section 2.3). At 1.0 the layers are those
    of Darknet-53, so its published weights fit.

    Args:
        outputs: Channels of each raw map, anchors * (5 + classes).
        width: Multiplier of the number of channels.
        depth: Multiplier of the number of residual blocks in each stage, and of the pairs of convolutions in each neck.
    """

    def __init__(self, outputs: int, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        pairs = scaled_repeats(NECK_PAIRS, depth)
        n8, n16, n32 = (scaled_channels(c, width) for c in NECK_CHANNELS)
        c8, c16, c32 = (scaled_channels(c, width) for c in STAGE_CHANNELS[2:])
        self.backbone = Darknet53(width, depth)
        self.neck32 = _neck(c32, n32, pairs)
        self.lateral32 = ConvBlock(n32, n16, 1)
        self.neck16 = _neck(n16 + c16, n16, pairs)
        self.lateral16 = ConvBlock(n16, n8, 1)
        self.neck8 = _neck(n8 + c8, n8, pairs)
        self.heads = nn.ModuleList(nn.Sequential(ConvBlock(c, c * 2, 3), nn.Conv2d(c * 2, outputs, 1)) for c in (n8, n16, n32))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the raw maps, the finest stride first."""
        c8, c16, c32 = self.backbone(images)
        p32 = self.neck32(c32)
        p16 = self.neck16(upsample_and_join(self.lateral32(p32), c16))
        p8 = self.neck8(upsample_and_join(self.lateral16(p16), c8))
        return [head(x) for head, x in zip(self.heads, (p8, p16, p32), strict=True)]
