"""Writes a checkpoint as one ONNX file, if it detects what the checkpoint detects."""

import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import onnx
import torch

from ppe_yolo.core.contract import STRIDE, ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, blake2b_file, require_output
from ppe_yolo.evaluation.files.operating_point import with_operating_point
from ppe_yolo.export.graph import DECODED_BOXES, DECODED_SCORES, OPSET, add_suppression, stamp
from ppe_yolo.export.parity import ParityReport, check_parity
from ppe_yolo.inference.checkpoint import build_network, read_checkpoint, require_trained, training_hash
from ppe_yolo.inference.deployable import DeployableNetwork
from ppe_yolo.model.yolov3 import YoloV3


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The result of an export.

    Attributes:
        path: The file.
        contract: Its contract.
        nodes: Number of nodes in its graph.
        parity: How it compares with the checkpoint.
        has_dropped_thresholds: Whether the checkpoint had alarm thresholds that do not hold at the new input size.
    """

    path: Path
    contract: ModelContract
    nodes: int
    parity: ParityReport
    has_dropped_thresholds: bool


def export_onnx(
    checkpoint: Path,
    out: Path,
    *,
    suppression: bool = True,
    half: bool = False,
    operating_point: Path | None = None,
    input_size: tuple[int, int] | None = None,
) -> Exported:
    """Exports a checkpoint, compares the result with it, and writes the file.

    Args:
        checkpoint: Written by `ppe-yolo fit`.
        out: The file to write.
        suppression: Put the suppression into the graph; without it, the outputs are decoded_xyxy [B, N, 4] and decoded_scores
            [B, N, C].
        half: Convolutions in float16.
        operating_point: An operating_point.json for the contract; None keeps thresholds and score histogram of the checkpoint.
        input_size: (height, width) in multiples of 32; None: that of the training. The network is fully convolutional and
            its anchors are in pixels, so the same weights work at any size. Alarm thresholds hold for one size only: at
            another one, those of the checkpoint are dropped.

    Raises:
        UserError: Not a checkpoint, not a name for an ONNX file, thresholds of another model or input size, or the two models
            differ; then nothing is written.
    """
    require_output(out, ".onnx")
    network, contract = build_network(read_checkpoint(checkpoint), checkpoint)
    require_trained(contract, checkpoint)
    checkpoint_hash = blake2b_file(checkpoint)
    trained_size, has_dropped_thresholds = contract.input_size, False
    if input_size is not None and input_size != trained_size:
        has_dropped_thresholds = bool(contract.alarm_thresholds) and operating_point is None
        contract = at_input_size(contract, input_size)
    if operating_point is not None:
        model_hash = training_hash(contract, checkpoint)
        contract = with_operating_point(contract, operating_point, model_hash=model_hash, trained_size=trained_size)
    contract = replace(
        contract,
        provenance={
            **contract.provenance,
            "architecture": network.architecture,
            "checkpoint_blake2b": checkpoint_hash,
            "exported": datetime.now(UTC).isoformat(timespec="seconds"),
            "precision": "float16" if half else "float32",
        },
    )
    model = build_model(network, contract, suppression=suppression, half=half)
    with atomic_path(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
        parity = check_parity(network, contract, temporary, suppression=suppression, half=half)
    return Exported(
        path=out,
        contract=contract,
        nodes=len(model.graph.node),
        parity=parity,
        has_dropped_thresholds=has_dropped_thresholds,
    )


def at_input_size(contract: ModelContract, input_size: tuple[int, int]) -> ModelContract:
    """The contract of the same weights at another input size, without alarm thresholds.

    Raises:
        UserError: Not multiples of 32.
    """
    if any(side < STRIDE or side % STRIDE for side in input_size):
        raise UserError(
            setting="input_size",
            expected=f"a height and a width in multiples of {STRIDE}",
            got=f"{input_size[0]} {input_size[1]}",
        )
    return replace(contract, input_size=input_size, alarm_thresholds={}, score_histogram=())


def build_model(network: YoloV3, contract: ModelContract, *, suppression: bool = True, half: bool = False) -> onnx.ModelProto:
    """The ONNX model of a network, with its contract, checked by onnx."""
    model = trace(DeployableNetwork(network, half=half), contract)
    if suppression:
        model = add_suppression(model, contract)
    stamp(model, contract)
    onnx.checker.check_model(model, full_check=True)
    return model


def trace(network: DeployableNetwork, contract: ModelContract) -> onnx.ModelProto:
    """The network only: images uint8 [batch, H, W, 3] -> decoded_xyxy [batch, N, 4], decoded_scores [batch, N, C]."""
    # two images: a batch of one would be exported as a constant
    images = torch.zeros((2, *contract.input_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=[DECODED_BOXES, DECODED_SCORES],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    return program.model_proto
