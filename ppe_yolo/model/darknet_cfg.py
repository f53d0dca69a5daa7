"""Darknet cfg files: writing the cfg of a network, for readers of its .weights file, and reading facts that weights lack."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ppe_yolo.core.errors import UserError
from ppe_yolo.model.blocks import Residual
from ppe_yolo.model.coding import BoxCoding
from ppe_yolo.model.darknet53 import YoloV3Body
from ppe_yolo.model.yolov3 import ANCHORS_PER_LEVEL, YoloV3


@dataclass(frozen=True)
class CfgFacts:
    """The facts in a cfg, apart from the layers.

    Attributes:
        input_size: (height, width), pixels.
        anchors_wh: [[width, height], ...] in pixels of the input, the finest stride first.
        box_coding: How box logits encode boxes.
    """

    input_size: tuple[int, int]
    anchors_wh: list[list[float]]
    box_coding: BoxCoding


def read_cfg(path: Path) -> CfgFacts:
    """Reads the sections [net] and [yolo] of a Darknet cfg.

    Raises:
        UserError: The file is no cfg of a YOLOv3, or has a box coding that ppe-yolo lacks.
    """
    try:
        sections = _sections(path.read_text(encoding="utf-8"))
        net = next(options for name, options in sections if name in ("net", "network"))
        yolo = [options for name, options in sections if name == "yolo"]
        input_size = int(net["height"]), int(net["width"])
        anchors_wh = []
        for options in reversed(yolo):  # Darknet starts with the coarsest stride
            numbers = [float(n) for n in options["anchors"].split(",")]
            pairs = [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
            anchors_wh += [pairs[int(i)] for i in options["mask"].split(",")]
        codings = {(float(o.get("scale_x_y", 1)), int(o.get("new_coords", 0))) for o in yolo}
    except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise UserError(
            file=path,
            expected="the cfg of a YOLOv3 with [net] and [yolo] sections",
            got=repr(error),
            hint="fix it, or move it away and set --anchors, --box-coding and --input-size",
        ) from error
    known: dict[tuple[float, int], BoxCoding] = {(1.0, 0): "darknet", (2.0, 1): "bounded"}
    if len(codings) != 1 or not codings <= known.keys():
        raise UserError(
            file=path,
            expected="scale_x_y=1, or scale_x_y=2 and new_coords=1, in all [yolo] sections",
            got=str(sorted(codings)),
            hint="other box codings cannot be imported",
        )
    return CfgFacts(input_size, anchors_wh, known[codings.pop()])


def _sections(text: str) -> list[tuple[str, dict[str, str]]]:
    """Returns names and options in order. Names repeat, which configparser does not allow."""
    sections: list[tuple[str, dict[str, str]]] = []
    for line in (raw.split("#")[0].strip() for raw in text.splitlines()):
        if line.startswith("["):
            sections.append((line.strip("[]"), {}))
        elif line and not line.startswith(";"):
            key, _, value = line.partition("=")
            sections[-1][1][key.strip()] = value.strip()
    return sections


def cfg_text(network: YoloV3, input_size: tuple[int, int]) -> str:
    """Returns the cfg that belongs to the .weights file of a network.

    Args:
        network: Provides architecture, number of classes, anchors and box coding.
        input_size: (height, width) of the input, pixels.
    """
    height, width = input_size
    net = f"[net]\nbatch=1\nsubdivisions=1\nheight={height}\nwidth={width}\nchannels=3\n"
    sections = _tiny(network) if network.architecture == "yolov3-tiny" else _yolov3(network)
    return "\n".join((net, *sections))


def _yolov3(network: YoloV3) -> Iterator[str]:
    """Yields the layers of the body, read from the modules, so that any width and depth works."""
    body = network.body
    assert isinstance(body, YoloV3Body)
    number = 0  # index of Darknet's current layer
    ends = []  # index of the last layer of each stage
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
    """Returns the number of output channels of a `ConvBlock`."""
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
    """Yields the layers that join the output of the neck with that of layer `shallow`. They follow a head."""
    yield from ("[route]\nlayers=-4\n", _convolution(channels, 1), "[upsample]\nstride=2\n")
    yield f"[route]\nlayers=-1, {shallow}\n"


def _head(network: YoloV3, level: int) -> Iterator[str]:
    """Yields the last convolution of a head and the meaning of its channels."""
    # Darknet's new_coords is the bounded coding: centre scale_x_y * p - (scale_x_y - 1) / 2, size anchor * (2 p)^2 with
    # p = sigmoid(t), where the convolution applies the sigmoid, to all channels
    activation, coding = ("linear", "") if network.box_coding == "darknet" else ("logistic", "scale_x_y=2.0\nnew_coords=1\n")
    filters = ANCHORS_PER_LEVEL * (5 + network.num_classes)
    yield f"[convolutional]\nsize=1\nstride=1\npad=1\nfilters={filters}\nactivation={activation}\n"
    anchors = network.anchors_wh.reshape(-1, 2).tolist()
    mask = ",".join(str(level * ANCHORS_PER_LEVEL + i) for i in range(ANCHORS_PER_LEVEL))
    pairs = ", ".join(f"{w:.9g},{h:.9g}" for w, h in anchors)
    yield f"[yolo]\nmask={mask}\nanchors={pairs}\nclasses={network.num_classes}\nnum={len(anchors)}\n{coding}"
