"""Darknet's weights to a checkpoint of ppe-yolo, and back."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, require_output, write_text
from ppe_yolo.inference.checkpoint import (
    AT_RANDOM_KEY,
    CHECKPOINT_KEY,
    build_network,
    describe_network,
    read_checkpoint,
    require_trained,
)
from ppe_yolo.model.darknet_cfg import CfgFacts, cfg_text, read_cfg
from ppe_yolo.model.darknet_weights import DarknetWeights, load_weights, read_weights, write_weights
from ppe_yolo.model.names import Architecture, BoxCoding, DarknetKind
from ppe_yolo.model.yolov3 import YoloV3, default_anchors_wh

COCO = "coco"
PAD_VALUE = 127  # the grey that Darknet pads with, half of white
# yolov3-tiny.weights were trained with mask = 1,2,3 at stride 16; the cfg was fixed later, the weights were not
_FIXED_TINY_ANCHORS_WH = [[10.0, 14.0], [23.0, 27.0], [37.0, 58.0], [81.0, 82.0], [135.0, 169.0], [344.0, 319.0]]
_PUBLISHED_TINY_ANCHORS_WH = ((23, 27), (37, 58), (81, 82), (81, 82), (135, 169), (344, 319))


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An imported Darknet file.

    Attributes:
        weights: Content of the file.
        network: The network with these weights.
        contract: Contract of the checkpoint.
        at_random: Names of the tensors that the file does not contain.
        companions: The .cfg and .names files next to it that were read.
    """

    weights: DarknetWeights
    network: YoloV3
    contract: ModelContract
    at_random: list[str]
    companions: list[Path]

    def summary(self) -> str:
        """A summary for the user, in several lines."""
        held = "a backbone" if self.weights.num_classes is None else f"{self.weights.num_classes} classes"
        anchors = json.dumps(self.network.anchors_wh.reshape(-1, 2).tolist())
        lines = [
            f"Darknet {self.weights.version}, {held}, {self.weights.images_seen:,} images seen: "
            f"{len(self.weights.tensors)} tensors read, {len(self.weights.tensors) - self._dropped()} used",
            f"input {self.contract.input_size}, box coding {self.network.box_coding}, anchors {anchors}",
            f"classes {', '.join(self.contract.class_names[:5])}{', ...' if len(self.contract.class_names) > 5 else ''}",
        ]
        if self.companions:
            lines.append(f"read from files next to it, unless given: {', '.join(map(str, self.companions))}")
        if self.at_random:
            lines.append(f"at random, to be trained: {', '.join(self.at_random)}")
        return "\n".join(lines)

    def _dropped(self) -> int:
        return len(set(self.at_random) & set(self.weights.tensors))


def import_darknet(
    path: Path,
    kind: DarknetKind,
    out: Path,
    *,
    class_names: str | None = None,
    input_size: tuple[int, int] | None = None,
    anchors: str | None = None,
    box_coding: BoxCoding | None = None,
) -> Imported:
    """Makes a checkpoint of a Darknet .weights file, to detect with or to start a training from.

    The file contains only the weights. Everything else that is not given is read from the .cfg and .names files of the same
    name next to it, where `export_darknet` writes them; without those, the file is treated as one of the published ones.
    There are no published weights of `yolov3-small`, so it needs the .cfg, or both anchors and box coding.

    Args:
        path: The file.
        kind: The layers that it contains; `darknet53` is only the backbone of `yolov3`.
        out: The checkpoint to write.
        class_names: A file with one name per line, or `coco`; heads with another number of classes start at random.
        input_size: (height, width), pixels.
        anchors: JSON, [[width, height], ...] in pixels of the input, the finest stride first.
        box_coding: How the network encodes boxes.

    Raises:
        UserError: The file or an argument is wrong; see `read_weights`.
    """
    require_output(out, ".ckpt", path)
    architecture: Architecture = "yolov3" if kind == "darknet53" else kind
    companions = [] if kind == "darknet53" else [f for f in map(path.with_suffix, (".cfg", ".names")) if f.is_file()]
    named = class_names or next((str(file) for file in companions if file.suffix == ".names"), COCO)
    names = read_class_names(named)
    weights = read_weights(path, kind, len(names))
    if class_names is None and weights.num_classes not in (len(names), None):
        raise UserError(
            file=path,
            expected=f"the {len(names)} classes of {'COCO' if named == COCO else named}",
            got=str(weights.num_classes),
            hint="name them with --class-names FILE, one per line",
        )
    facts = CfgFacts((416, 416), published_anchors_wh(architecture), "darknet")
    if companions and companions[0].suffix == ".cfg":
        facts = read_cfg(companions[0])
        if architecture == "yolov3-tiny" and weights.num_classes == 80 and facts.anchors_wh == _FIXED_TINY_ANCHORS_WH:
            facts = replace(facts, anchors_wh=published_anchors_wh(architecture))
    elif architecture == "yolov3-small" and (anchors is None or box_coding is None):
        raise UserError(
            file=path,
            expected=f"its cfg next to it, {path.with_suffix('.cfg').name}",
            got="no such file",
            hint="yolov3-small has no published anchors: copy the cfg there, or give --anchors and --box-coding",
        )
    contract = ModelContract(class_names=names, input_size=input_size or facts.input_size, pad_value=PAD_VALUE)
    anchors_wh = facts.anchors_wh if anchors is None else parse_anchors(anchors)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same file makes the same checkpoint
        network = YoloV3(architecture, len(names), anchors_wh, box_coding or facts.box_coding)
    at_random = load_weights(network, weights)
    provenance = {"darknet_weights": path.name, "images_seen": weights.images_seen, AT_RANDOM_KEY: at_random}
    contract = replace(contract, provenance=provenance)
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    with atomic_path(out) as temporary:
        torch.save({"state_dict": state, CHECKPOINT_KEY: describe_network(network, contract)}, temporary)
    return Imported(weights=weights, network=network, contract=contract, at_random=at_random, companions=companions)


def export_darknet(checkpoint: Path, out: Path) -> list[Path]:
    """Writes the weights, and next to them the cfg and the class names that a reader of Darknet's format needs.

    Returns:
        The files.

    Raises:
        UserError: Not a trained checkpoint, or one of the files exists already.
    """
    files = [out, out.with_suffix(".cfg"), out.with_suffix(".names")]
    require_output(out, ".weights")
    for file in files:
        if file.exists():
            raise UserError(file=file, problem="already exists", hint="choose another --out, or move it away")
    network, contract = build_network(read_checkpoint(checkpoint), checkpoint)
    require_trained(contract, checkpoint)
    write_text(files[1], cfg_text(network, contract.input_size))
    write_text(files[2], "".join(f"{name}\n" for name in contract.class_names))
    write_weights(out, network, images_seen=contract.provenance.get("images_seen", 0))
    return files


def published_anchors_wh(architecture: Architecture) -> list[list[float]]:
    """The anchors that the weights of Darknet's authors were trained with, in pixels of the input, the finest stride first."""
    if architecture == "yolov3-tiny":
        return [[float(w), float(h)] for w, h in _PUBLISHED_TINY_ANCHORS_WH]
    return default_anchors_wh(architecture).tolist()


def parse_anchors(text: str) -> list[list[float]]:
    """Anchors from JSON.

    Raises:
        UserError: Not a list of pairs of numbers.
    """
    try:
        pairs = json.loads(text)
        anchors = [[float(side) for side in pair] for pair in pairs]
    except (ValueError, TypeError) as error:
        raise UserError(setting="anchors", expected="[[width,height],...]", got=f"{text!r} ({error})") from error
    if any(len(pair) != 2 or not all(map(math.isfinite, pair)) for pair in anchors):
        raise UserError(setting="anchors", expected="[[width,height],...]", got=repr(text))
    return anchors


def read_class_names(name_or_file: str) -> tuple[str, ...]:
    """The names of COCO's 80 classes, or those of a file, one per line (a `.names` file of Darknet).

    Raises:
        UserError: No such file, or not text.
    """
    if name_or_file == COCO:
        from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

        categories = FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
        return tuple(name for name in categories if name not in ("__background__", "N/A"))
    try:
        lines = Path(name_or_file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            setting="class_names", expected=f"{COCO} or a text file with one name per line", got=f"{name_or_file} ({error})"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())
