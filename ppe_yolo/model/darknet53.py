"""YOLOv3 with the Darknet-53 backbone (Redmon & Farhadi 2018, "YOLOv3: An Incremental Improvement")."""

from torch import Tensor, nn

from ppe_yolo.model.blocks import ConvBlock, Residual, upsample_and_join

STRIDES = (8, 16, 32)
# (width, height) in pixels at 416, three to a stride; the paper's, fitted to COCO
DEFAULT_ANCHORS_WH = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


class Darknet53(nn.Module):
    """Backbone, table 1 of the paper: [B, 3, H, W] -> features at strides 8, 16, 32 with 256, 512, 1024 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(3, 32, 3)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvBlock(c // 2, c, 3, stride=2), *(Residual(c) for _ in range(n)))
            for c, n in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the outputs of the last three stages, the finest first."""
        x, features = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[2:]


def _five_convolutions(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBlock(in_channels, channels, 1),
        ConvBlock(channels, channels * 2, 3),
        ConvBlock(channels * 2, channels, 1),
        ConvBlock(channels, channels * 2, 3),
        ConvBlock(channels * 2, channels, 1),
    )


class YoloV3Body(nn.Module):
    """Backbone, neck and heads of YOLOv3 (section 2.3): [B, 3, H, W] -> raw maps [B, outputs, H/s, W/s], s in STRIDES.

    Args:
        outputs: Channels of each raw map, anchors * (5 + classes).
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.backbone = Darknet53()
        self.neck32 = _five_convolutions(1024, 512)
        self.lateral32 = ConvBlock(512, 256, 1)
        self.neck16 = _five_convolutions(512 + 256, 256)
        self.lateral16 = ConvBlock(256, 128, 1)
        self.neck8 = _five_convolutions(256 + 128, 128)
        self.heads = nn.ModuleList(nn.Sequential(ConvBlock(c, c * 2, 3), nn.Conv2d(c * 2, outputs, 1)) for c in (128, 256, 512))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the raw maps, the finest stride first."""
        c8, c16, c32 = self.backbone(images)
        p32 = self.neck32(c32)
        p16 = self.neck16(upsample_and_join(self.lateral32(p32), c16))
        p8 = self.neck8(upsample_and_join(self.lateral16(p16), c8))
        return [head(x) for head, x in zip(self.heads, (p8, p16, p32), strict=True)]
