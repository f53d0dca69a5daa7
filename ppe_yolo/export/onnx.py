"""`ppe-yolo export`: a checkpoint as one ONNX file, which is written only if it finds what the checkpoint finds."""

import hashlib
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import onnx
import torch
from rich.console import Console

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path
from ppe_yolo.evaluation.files import read_thresholds
from ppe_yolo.export.graph import DECODED_BOXES, DECODED_SCORES, OPSET, add_suppression, stamp
from ppe_yolo.export.parity import check_parity
from ppe_yolo.inference.checkpoint import build_network, read_checkpoint, require_trained, training_hash
from ppe_yolo.inference.deployable import DeployableNetwork
from ppe_yolo.model.yolov3 import YoloV3


def export_onnx(
    checkpoint: Path,
    out: Path,
    *,
    suppression: bool = True,
    half: bool = False,
    alarm_thresholds: Path | None = None,
    console: Console,
) -> None:
    """Exports, compares, writes.

    Args:
        checkpoint: Written by `ppe-yolo fit`.
        out: The file to write.
        suppression: With the suppression in the graph; without it the outputs are decoded_xyxy [B, N, 4] and
            decoded_scores [B, N, C].
        half: Convolutions in float16.
        alarm_thresholds: An operating_point.json for the contract; else it keeps what the checkpoint has.
        console: Where the comparison is printed.

    Raises:
        UserError: Not a checkpoint, not a name for an ONNX file, or the two models differ; then nothing is written.
    """
    if out.suffix != ".onnx":
        raise UserError(f"--out: expected a name that ends in .onnx, got {out}")
    network, contract = build_network(read_checkpoint(checkpoint), checkpoint)
    require_trained(contract, checkpoint)
    checkpoint_hash = hashlib.blake2b(checkpoint.read_bytes(), digest_size=16).hexdigest()
    if alarm_thresholds is not None:
        chosen = read_thresholds(alarm_thresholds, contract.class_names, training_hash(contract, checkpoint))
        contract = replace(contract, alarm_thresholds=chosen)
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
        check_parity(network, contract, temporary, suppression=suppression, half=half, console=console)
    nodes = len(model.graph.node)
    console.print(f"{out}: opset {OPSET}, {nodes} nodes, {out.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


def build_model(network: YoloV3, contract: ModelContract, *, suppression: bool = True, half: bool = False) -> onnx.ModelProto:
    """The ONNX model of a network, with its contract and checked by onnx."""
    model = trace(DeployableNetwork(network, half=half), contract)
    if suppression:
        model = add_suppression(model, contract)
    stamp(model, contract)
    onnx.checker.check_model(model, full_check=True)
    return model


def trace(network: DeployableNetwork, contract: ModelContract) -> onnx.ModelProto:
    """The network alone: images uint8 [batch, H, W, 3] -> decoded_xyxy [batch, N, 4], decoded_scores [batch, N, C]."""
    # two pictures: a batch of one would be taken for a constant
    images = torch.zeros((2, *contract.input_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the exporter about itself
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
