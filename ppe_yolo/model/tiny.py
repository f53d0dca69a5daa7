"""YOLOv3-tiny, which the authors of YOLOv3 publish along with it (cfg/yolov3-tiny.cfg of Darknet)."""

import itertools

from torch import Tensor, nn

from ppe_yolo.model.blocks import ConvBlock, SamePool, upsample_and_join

STRIDES = (16, 32)
# its authors', fitted to COCO: (width, height) in pixels at 416, three per stride
DEFAULT_ANCHORS_WH = (
    ((10, 14), (23, 27), (37, 58)),
    ((81, 82), (135, 169), (344, 319)),
)


class YoloV3TinyBody(nn.Module):
    """Backbone, neck and heads of YOLOv3-tiny: [B, 3, H, W] -> raw maps [B, outputs, H/s, W/s], s in STRIDES.

    Args:
        outputs: Channels of each raw map, anchors * (5 + classes).
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        channels = (3, 16, 32, 64, 128)
        self.backbone16 = nn.Sequential(
            *(ConvBlock(before, after, 3, pool=True) for before, after in itertools.pairwise(channels)),
            ConvBlock(128, 256, 3),
        )
        self.backbone32 = nn.Sequential(
            nn.MaxPool2d(2), ConvBlock(256, 512, 3), SamePool(), ConvBlock(512, 1024, 3), ConvBlock(1024, 256, 1)
        )
        self.lateral32 = ConvBlock(256, 128, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(ConvBlock(in_channels, hidden, 3), nn.Conv2d(hidden, outputs, 1))
            for in_channels, hidden in ((128 + 256, 256), (256, 512))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the raw maps, the finest stride first."""
        c16 = self.backbone16(images)
        c32 = self.backbone32(c16)
        p16 = upsample_and_join(self.lateral32(c32), c16)
        return [head(x) for head, x in zip(self.heads, (p16, c32), strict=True)]
