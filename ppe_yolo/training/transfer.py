"""Transfer of weights: start a training from a network that was trained before."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.inference.checkpoint import AT_RANDOM_KEY, build_network, read_checkpoint
from ppe_yolo.model.yolov3 import YoloV3
from ppe_yolo.weights import find_model


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A network to start from.

    Attributes:
        path: The file that it was read from, for messages.
        network: With its weights.
        contract: Its contract.
    """

    path: str
    network: YoloV3
    contract: ModelContract


def load_pretrained(weights: str) -> Pretrained:
    """Reads a checkpoint, or the checkpoint of a bundled model such as `helmet-small`.

    Raises:
        UserError: No such file or name, or not a checkpoint written by ppe-yolo.
    """
    path = find_model(weights, "checkpoint")
    network, contract = build_network(read_checkpoint(path), path)
    return Pretrained(path=weights, network=network, contract=contract)


def transfer_weights(
    network: YoloV3, source: Pretrained, *, class_names: Sequence[str], keep_anchors: bool = False
) -> list[str]:
    """Copies all tensors whose name and shape match; the others, such as heads of other classes, keep their values.

    Args:
        network: Changed in place.
        source: Where the weights come from.
        class_names: Of `network`, for the log.
        keep_anchors: Keep the network's anchors. Otherwise those of `source` are taken over, since its heads predict boxes
            relative to them.

    Returns:
        Lines for the log: what was copied, what was not, and what has to be learned again.

    Raises:
        UserError: `source` has another architecture.
    """
    ours, theirs = network.state_dict(), source.network.state_dict()
    untrained = set(source.contract.provenance.get(AT_RANDOM_KEY, ()))
    matching = {
        key: value
        for key, value in theirs.items()
        if key in ours and value.shape == ours[key].shape and key not in untrained and key != "anchors_wh"
    }
    if len(matching) < len(ours) // 2:
        raise UserError(
            setting="weights",
            file=source.path,
            expected=f"weights of {network.architecture}",
            got=source.network.architecture,
            hint="choose the recipe of that architecture",
        )
    network.load_state_dict(matching, strict=False)
    if not keep_anchors and source.network.architecture == network.architecture:
        network.anchors_wh.copy_(source.network.anchors_wh)
    at_random = sorted(key for key in ours if key not in matching and key != "anchors_wh")
    rest = f"; at random: {', '.join(at_random)}" if at_random else ""
    copied = f"weights: {len(matching)} tensors from {source.path}{rest}"
    has_heads = _output_layers(network) <= matching.keys()
    return [copied, *_mismatches(network, source, class_names)] if has_heads else [copied]


def _mismatches(network: YoloV3, source: Pretrained, class_names: Sequence[str]) -> list[str]:
    """Lines for the log about copied heads whose classes, anchors or coding of boxes differ."""
    lines = []
    if source.contract.class_names != tuple(class_names):
        lines.append(
            f"weights: their classes were {', '.join(source.contract.class_names)}; here they are {', '.join(class_names)}: "
            "the class predictions start off wrong and are learned again"
        )
    same_boxes = network.box_coding == source.network.box_coding and torch.equal(network.anchors_wh, source.network.anchors_wh)
    if not same_boxes:
        # the same logits now encode other boxes; the features are still worth keeping
        lines.append(
            f"weights: their heads use box_coding {source.network.box_coding} and anchors {_anchors(source.network)}; here it "
            f"is {network.box_coding} and {_anchors(network)}: the boxes start off wrong and are learned again"
        )
    return lines


def _output_layers(network: YoloV3) -> set[str]:
    """Names of the parameters of each head's last convolution."""
    convolutions = [
        [module for module in head.modules() if isinstance(module, nn.Conv2d)][-1]
        for head in network.body.get_submodule("heads").children()
    ]
    last = {id(parameter) for convolution in convolutions for parameter in convolution.parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in last}


def _anchors(network: YoloV3) -> list[list[float]]:
    return network.anchors_wh.reshape(-1, 2).tolist()
