"""Checkpoints: reading them safely, and the network and contract that they hold."""

from pathlib import Path
from typing import Any

import torch

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import blake2b_file, refuse_lfs_pointer
from ppe_yolo.core.words import one_line
from ppe_yolo.model.yolov3 import YoloV3

CHECKPOINT_KEY = "ppe_yolo"  # where a checkpoint keeps its contract and the arguments to build its network
AT_RANDOM_KEY = "at_random"  # in a contract's provenance: names of tensors that no training has changed yet

_NETWORK_PREFIX = "network."  # in the names of a checkpoint's state_dict


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint written by ppe-yolo without running any code that the file may contain.

    Raises:
        UserError: The file does not exist, or is not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(file=path, expected="a checkpoint", got="a folder" if path.is_dir() else "no such file")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path) from error
    refuse_lfs_pointer(path, start)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types, and its messages suggest a way to read the file that runs code
        reason = "damaged, or it holds more than tensors and plain values"
        is_onnx = start[:1] == b"\x08"  # its version, protobuf's field 1
        got = "an ONNX model" if is_onnx else f"a file that cannot be read as one ({reason})"
        raise UserError(file=path, expected="a checkpoint", got=got) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(file=path, expected="a checkpoint written by `ppe-yolo fit`", got="one without a model contract")
    return checkpoint


def build_network(checkpoint: dict[str, Any], path: str | Path) -> tuple[YoloV3, ModelContract]:
    """Builds the network of a checkpoint and loads its weights.

    Args:
        checkpoint: Result of `read_checkpoint`.
        path: The file, for messages.

    Returns:
        The network and its contract.

    Raises:
        UserError: The content of the checkpoint does not fit together.
    """
    try:
        kept = checkpoint[CHECKPOINT_KEY]
        contract = ModelContract.from_json(kept["contract"])
        network = YoloV3(kept["architecture"], len(contract.class_names), kept["anchors_wh"], kept["box_coding"])
        network.load_state_dict(
            {
                name.removeprefix(_NETWORK_PREFIX): tensor
                for name, tensor in checkpoint["state_dict"].items()
                if name.startswith(_NETWORK_PREFIX)
            }
        )
    except UserError as error:
        raise type(error)(str(error), file=path) from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = f"the checkpoint contradicts itself ({one_line(error)})"
        raise UserError(problem, file=path, hint="train or copy it again") from error
    return network, contract


def describe_network(network: YoloV3, contract: ModelContract) -> dict[str, Any]:
    """Returns the value that a checkpoint keeps at CHECKPOINT_KEY, in plain types only; `build_network` reads it."""
    return {
        "contract": contract.to_json(),
        "architecture": network.architecture,
        "anchors_wh": network.anchors_wh.reshape(-1, 2).tolist(),
        "box_coding": network.box_coding,
    }


def require_trained(contract: ModelContract, path: str | Path) -> None:
    """Checks that a model has no random weights; a model with some is only a starting point for training.

    Raises:
        UserError: Some tensors hold random numbers.
    """
    untrained = contract.provenance.get(AT_RANDOM_KEY)
    if untrained:
        raise UserError(
            f"{len(untrained)} of its tensors ({untrained[0]}, ...) hold random numbers and detect nothing",
            file=path,
            hint=f"train it first, ppe-yolo fit --model.weights {path}",
        )


def training_hash(contract: ModelContract, path: Path) -> str | None:
    """Identifies the training run of a model file: the same for the run's checkpoint, its ONNX file and its packed files.

    This is the hash of the run's checkpoint, which the files made from it remember.

    Returns:
        The hash, or None if `path` is not a file.
    """
    remembered = contract.provenance.get("run_checkpoint_blake2b") or contract.provenance.get("checkpoint_blake2b")
    if remembered is not None:
        return str(remembered)
    return blake2b_file(path) if path.is_file() else None
