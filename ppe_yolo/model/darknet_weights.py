"""Darknet .weights files: a header, then the numbers of all layers one after the other, without names and shapes.

The order is that of the layers in Darknet's cfg/yolov3.cfg and cfg/yolov3-tiny.cfg. darknet53.conv.74, the backbone that its
authors trained on ImageNet, holds the first 74 layers of cfg/darknet53.cfg, which are those of yolov3.cfg too. A convolution
with batch norm is stored as shifts, scales, running means, running variances and kernels; one without as biases and kernels.
The channels of a head are, anchor by anchor, x, y, w, h, objectness, classes, as in `YoloV3`.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, refuse_lfs_pointer
from ppe_yolo.model.names import Architecture, DarknetKind
from ppe_yolo.model.yolov3 import ANCHORS_PER_LEVEL, YoloV3, build_body

_VERSION = struct.Struct("<iii")  # major, minor, revision
_SEEN = {1: struct.Struct("<i"), 2: struct.Struct("<q")}  # by minor version: number of images seen in training
_NUMBER = np.dtype("<f4")
# modules of the body in the order of the file; Darknet starts with the coarsest stride, `heads` with the finest
_YOLOV3 = ("backbone", "neck32", "heads.2", "lateral32", "neck16", "heads.1", "lateral16", "neck8", "heads.0")
_PARTS: dict[DarknetKind, tuple[Architecture, tuple[str, ...]]] = {
    "yolov3": ("yolov3", _YOLOV3),
    "yolov3-small": ("yolov3-small", _YOLOV3),
    "yolov3-tiny": ("yolov3-tiny", ("backbone16", "backbone32", "heads.1", "lateral32", "heads.0")),
    "darknet53": ("yolov3", ("backbone",)),
}


@dataclass(frozen=True, kw_only=True)
class DarknetWeights:
    """The content of a file.

    Attributes:
        version: Version of the header, such as 0.2.
        images_seen: Number of images seen in training, from the header.
        num_classes: Number of classes of its heads; None for a backbone alone.
        tensors: Name in the state_dict of `YoloV3` -> float32 tensor.
    """

    version: str
    images_seen: int
    num_classes: int | None
    tensors: dict[str, Tensor]


def layout(kind: DarknetKind, num_classes: int) -> dict[str, torch.Size]:
    """Returns names (in the state_dict of `YoloV3`) and shapes of a file's tensors, in the order of the file."""
    architecture, parts = _PARTS[kind]
    with torch.device("meta"):
        body = build_body(architecture, ANCHORS_PER_LEVEL * (5 + num_classes))
    shapes: dict[str, torch.Size] = {}
    for part in parts:
        convolution, kernels = "", torch.Size()
        for name, module in body.get_submodule(part).named_modules(prefix=f"body.{part}"):
            state = module.state_dict()
            if isinstance(module, nn.Conv2d):
                convolution, kernels = name, state["weight"].shape
                if module.bias is not None:
                    shapes |= {f"{name}.bias": state["bias"].shape, f"{name}.weight": kernels}
            elif isinstance(module, nn.BatchNorm2d):
                shapes |= {f"{name}.{key}": state[key].shape for key in ("bias", "weight", "running_mean", "running_var")}
                shapes[f"{convolution}.weight"] = kernels
    return shapes


def file_size(kind: DarknetKind, num_classes: int, minor_version: int = 2) -> int:
    """Returns the size of a file in bytes. `num_classes` does not matter for a backbone alone."""
    numbers = sum(math.prod(shape) for shape in layout(kind, num_classes).values())
    return _VERSION.size + _SEEN[minor_version].size + numbers * _NUMBER.itemsize


def read_weights(path: Path, kind: DarknetKind, num_classes: int) -> DarknetWeights:
    """Reads a file. Its number of classes follows from its size.

    Args:
        path: The file.
        kind: The network whose layers it holds.
        num_classes: Expected number of classes, only for the message about a wrong size.

    Raises:
        UserError: The file does not exist, has no Darknet header, a size that fits no number of classes, or numbers that
            cannot be weights.
    """
    if not path.is_file():
        raise UserError(file=path, expected="a Darknet .weights file", got="a folder" if path.is_dir() else "no such file")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            refuse_lfs_pointer(path, file.read(64))
            file.seek(0)
            version, minor, images_seen = _read_header(path, file.read(_VERSION.size + _SEEN[2].size))
            classes = _classes_of(kind, size, minor)
            if classes is None:
                raise _wrong_size(path, kind, size, minor, num_classes)
            file.seek(_VERSION.size + _SEEN[minor].size)
            numbers = np.fromfile(file, dtype=_NUMBER)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", file=path) from error
    row, tensors, start = torch.from_numpy(numbers.astype(np.float32, copy=False)), {}, 0
    for name, shape in layout(kind, classes).items():
        tensors[name] = row[start : start + math.prod(shape)].view(shape)
        start += math.prod(shape)
    _check_numbers(path, tensors)
    return DarknetWeights(
        version=version,
        images_seen=images_seen,
        num_classes=None if kind == "darknet53" else classes,
        tensors=tensors,
    )


def load_weights(network: YoloV3, weights: DarknetWeights) -> list[str]:
    """Loads the tensors of a file into a network. Heads with another number of classes keep their weights.

    Returns:
        Names of the parameters and statistics that the file did not provide.
    """
    own = network.state_dict()
    fitting = {name: t for name, t in weights.tensors.items() if t.shape == own[name].shape}
    network.load_state_dict(fitting, strict=False)
    return [n for n in own if n not in fitting and n != "anchors_wh" and not n.endswith("num_batches_tracked")]


def write_weights(path: Path, network: YoloV3, images_seen: int) -> None:
    """Writes a network atomically, with a header of version 0.2.

    Raises:
        UserError: The file cannot be written, or the network contains NaN or infinity.
    """
    state = network.state_dict()
    tensors = {name: state[name].cpu().float() for name in layout(network.architecture, network.num_classes)}
    _check_numbers(path, tensors)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_VERSION.pack(0, 2, 0) + _SEEN[2].pack(images_seen))
        for tensor in tensors.values():
            file.write(tensor.contiguous().numpy().astype(_NUMBER, copy=False).tobytes())


def _read_header(path: Path, head: bytes) -> tuple[str, int, int]:
    """Returns the version as text, the minor version, and the number of images seen."""
    if len(head) < _VERSION.size + _SEEN[2].size:
        raise UserError(
            file=path, expected="a Darknet .weights file", got=f"{len(head)} bytes", hint="copy or download it again"
        )
    major, minor, revision = _VERSION.unpack_from(head)
    seen = _SEEN[minor].unpack_from(head, _VERSION.size)[0] if minor in _SEEN else -1
    if major != 0 or minor not in _SEEN or not 0 <= revision < 1000 or seen < 0:
        raise UserError(
            file=path,
            expected="a Darknet header of version 0.1 or 0.2 with a number of images",
            got=f"version {major}.{minor}, revision {revision}, {seen} images",
            hint="this is no Darknet .weights file, or it is damaged",
        )
    return f"{major}.{minor}", minor, seen


def _classes_of(kind: DarknetKind, size: int, minor: int) -> int | None:
    """Returns the number of classes that a size implies (1 for a backbone alone), or None if it fits no number."""
    smallest = file_size(kind, 1, minor)
    per_class = file_size(kind, 2, minor) - smallest
    if per_class == 0:
        return 1 if size == smallest else None
    more, rest = divmod(size - smallest, per_class)
    return 1 + more if more >= 0 and rest == 0 else None


def _wrong_size(path: Path, kind: DarknetKind, size: int, minor: int, num_classes: int) -> UserError:
    expected = file_size(kind, num_classes, minor)
    per_class = file_size(kind, num_classes + 1, minor) - expected
    classes = f" for {num_classes} classes ({per_class:,} more or less per class)" if per_class else ""
    others = [other for other in _PARTS if _classes_of(other, size, minor) is not None]
    if others:
        hint = f"it has the size of {' or '.join(others)}: choose that --architecture"
    else:
        hint = "it is truncated, too long, or of another network: copy or download it again"
    return UserError(file=path, expected=f"{expected:,} bytes of {kind}{classes}", got=f"{size:,} bytes", hint=hint)


def _check_numbers(path: Path, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(
                "contains NaN or infinity", file=path, item=name, hint="the weights are damaged, or their training failed"
            )
        # in a file of another network, or with a part missing, kernels are read as variances
        if name.endswith("running_var") and (tensor < 0).any():
            raise UserError(
                file=path,
                item=name,
                expected="variances",
                got=f"{tensor.min():.3g}",
                hint="the file is damaged, or of another network",
            )
