"""The network as Darknet's cfg text, for readers of our .weights files; and what a cfg says that weights do not."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ppe_yolo.core.errors import UserError
from ppe_yolo.model.blocks import Residual
from ppe_yolo.model.darknet53 import YoloV3Body
from ppe_yolo.model.names import BoxCoding
from ppe_yolo.model.yolov3 import ANCHORS_PER_LEVEL, YoloV3


@dataclass(frozen=True)
class CfgFacts:
    """What a cfg says of its network beside the layers.

    Attributes:
        input_size: (height, width), pixels.
        anchors_wh: [[width, height], ...] in pixels of the input, the finest stride first.
        box_coding: How boxes are coded.
    """

    input_size: tuple[int, int]
    anchors_wh: list[list[float]]
    box_coding: BoxCoding


def read_cfg(path: Path) -> CfgFacts:
    """Reads the parts [net] and [yolo] of a Darknet cfg.

    Raises:
        UserError: Not a cfg of a YOLOv3, or boxes are coded in a way that ours is not.
    """
    try:
        parts = _sections(path.read_text(encoding="utf-8"))
        net = next(options for name, options in parts if name in ("net", "network"))
        yolo = [options for name, options in parts if name == "yolo"]
        input_size = int(net["height"]), int(net["width"])
        anchors_wh = []
        for options in reversed(yolo):  # Darknet begins with the coarsest stride
            numbers = [float(n) for n in options["anchors"].split(",")]
            pairs = [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
            anchors_wh += [pairs[int(i)] for i in options["mask"].split(",")]
        codings = {(float(o.get("scale_x_y", 1)), int(o.get("new_coords", 0))) for o in yolo}
    except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise UserError(
            f"{path}: expected the cfg of a YOLOv3 with [net] and [yolo] parts ({error!r}): mend it, or move it away and give "
            "--anchors, --box-coding and --input-size"
        ) from error
    known: dict[tuple[float, int], BoxCoding] = {(1.0, 0): "darknet", (2.0, 1): "bounded"}
    if len(codings) != 1 or not codings <= known.keys():
        raise UserError(
            f"{path}: expected boxes coded with scale_x_y=1, or with scale_x_y=2 and new_coords=1, in all [yolo] parts, got "
            f"{sorted(codings)}: such a network cannot be taken over"
        )
    return CfgFacts(input_size, anchors_wh, known[codings.pop()])


def _sections(text: str) -> list[tuple[str, dict[str, str]]]:
    """Names and options in order; a name may come many times, which configparser does not allow."""
    parts: list[tuple[str, dict[str, str]]] = []
    for line in (raw.split("#")[0].strip() for raw in text.splitlines()):
        if line.startswith("["):
            parts.append((line.strip("[]"), {}))
        elif line and not line.startswith(";"):
            key, _, value = line.partition("=")
            parts[-1][1][key.strip()] = value.strip()
    return parts


def cfg_text(network: YoloV3, input_size: tuple[int, int]) -> str:
    """The cfg that goes with the network's .weights file.

    Args:
        network: Its architecture, number of classes, anchors and box coding are told.
        input_size: (height, width) of the input, pixels.
    """
    height, width = input_size
    net = f"[net]\nbatch=1\nsubdivisions=1\nheight={height}\nwidth={width}\nchannels=3\n"
    sections = _tiny(network) if network.architecture == "yolov3-tiny" else _yolov3(network)
    return "\n".join((net, *sections))


def _yolov3(network: YoloV3) -> Iterator[str]:
    """The layers of the body, read off the network itself, so that every width and depth is written alike."""
    body = network.body
    assert isinstance(body, YoloV3Body)
    number = 0  # of Darknet's layers so far
    ends = []  # last layer of each stage
    yield _convolution(_filters(body.backbone.stem), 3)
    for stage in body.backbone.stages:
        downsample, *blocks = stage.children()
        yield _convolution(_filters(downsample), 3, stride=2)
        for block in blocks:
            assert isinstance(block, Residual)
            yield from (_convolution(_filters(block.reduce), 1), _convolution(_filters(block.expand), 3))
            yield "[shortcut]\nfrom=-3\nactivation=linear\n"
        number += 1 + 3 * len(blocks)
        ends.append(number)
    for level, neck, lateral, shallow in (
        (2, body.neck32, body.lateral32, ends[-2]),
        (1, body.neck16, body.lateral16, ends[-3]),
        (0, body.neck8, None, None),
    ):
        for block in neck:
            yield _convolution(_filters(block), _kernel_size(block))
        yield _convolution(_filters(next(body.heads[level].children())), 3)
        yield from _head(network, level)
        if lateral is not None and shallow is not None:
            yield from _upsample_and_join(_filters(lateral), shallow)


def _filters(block: nn.Module) -> int:
    """Number of output channels of a `ConvBlock`."""
    return int(next(m for m in block.modules() if isinstance(m, nn.Conv2d)).out_channels)


def _kernel_size(block: nn.Module) -> int:
    return int(next(m for m in block.modules() if isinstance(m, nn.Conv2d)).kernel_size[0])


def _tiny(network: YoloV3) -> Iterator[str]:
    for channels in (16, 32, 64, 128, 256, 512):
        yield _convolution(channels, 3)
        yield f"[maxpool]\nsize=2\nstride={1 if channels == 512 else 2}\n"
    yield from (_convolution(1024, 3), _convolution(256, 1), _convolution(512, 3))
    yield from _head(network, 1)
    yield from _upsample_and_join(128, 8)
    yield _convolution(256, 3)
    yield from _head(network, 0)


def _convolution(filters: int, size: int, stride: int = 1) -> str:
    return f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation=leaky\n"


def _upsample_and_join(channels: int, shallow: int) -> Iterator[str]:
    """From the layer before the last head's two convolutions, joined with the output of layer number `shallow`."""
    yield from ("[route]\nlayers=-4\n", _convolution(channels, 1), "[upsample]\nstride=2\n")
    yield f"[route]\nlayers=-1, {shallow}\n"


def _head(network: YoloV3, level: int) -> Iterator[str]:
    """The last convolution of a head and what its channels mean."""
    # Darknet's newer coordinates are our bounded coding: centre scale_x_y * p - (scale_x_y - 1) / 2, size anchor * (2 p)^2 of
    # p = sigmoid(t), where the sigmoid (of all channels) belongs to the convolution
    activation, coding = ("linear", "") if network.box_coding == "darknet" else ("logistic", "scale_x_y=2.0\nnew_coords=1\n")
    filters = ANCHORS_PER_LEVEL * (5 + network.num_classes)
    yield f"[convolutional]\nsize=1\nstride=1\npad=1\nfilters={filters}\nactivation={activation}\n"
    anchors = network.anchors_wh.reshape(-1, 2).tolist()
    mask = ",".join(str(level * ANCHORS_PER_LEVEL + i) for i in range(ANCHORS_PER_LEVEL))
    pairs = ", ".join(f"{w:.9g},{h:.9g}" for w, h in anchors)
    yield f"[yolo]\nmask={mask}\nanchors={pairs}\nclasses={network.num_classes}\nnum={len(anchors)}\n{coding}"
