"""Makes the two files of a bundled model from the checkpoint of a run."""

import io
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ppe_yolo.core.files import atomic_path
from ppe_yolo.evaluation.data_sets import DataSpec
from ppe_yolo.evaluation.files.operating_point import with_operating_point
from ppe_yolo.export.onnx import Exported, export_onnx
from ppe_yolo.export.quantize import Quantized, quantize
from ppe_yolo.inference.checkpoint import (
    CHECKPOINT_KEY,
    build_network,
    describe_network,
    read_checkpoint,
    require_trained,
    training_hash,
)
from ppe_yolo.model.yolov3 import YoloV3
from ppe_yolo.weights import SUFFIXES

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip: the same weights make the same bytes


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A packed model.

    Attributes:
        checkpoint: NAME.ckpt.
        onnx: NAME.int8.onnx.
        exported: The export in float32.
        quantized: Its quantisation.
    """

    checkpoint: Path
    onnx: Path
    exported: Exported
    quantized: Quantized


def pack_weights(
    checkpoint: Path,
    out: Path,
    name: str,
    *,
    operating_point: Path,
    calibration: Sequence[DataSpec],
    console: Console | None = None,
) -> Packed:
    """Writes NAME.ckpt to fine-tune from and NAME.int8.onnx to detect with; both or none.

    Args:
        checkpoint: Of a run, or packed; it records the validation images.
        out: Folder for the two files.
        name: The model's name.
        operating_point: operating_point.json of the same checkpoint on its validation images.
        calibration: The data sets of the training, see `quantize`.
        console: Shows progress; none when None.

    Raises:
        UserError: Not a trained checkpoint, thresholds of another one, or quantisation loses too much.
    """
    network, contract = build_network(read_checkpoint(checkpoint), checkpoint)
    require_trained(contract, checkpoint)
    run_hash = training_hash(contract, checkpoint)  # packed files can be packed again, with other thresholds
    contract = with_operating_point(contract, operating_point, model_hash=run_hash, trained_size=contract.input_size)
    contract = replace(contract, provenance={**contract.provenance, "run_checkpoint_blake2b": run_hash})
    with tempfile.TemporaryDirectory() as folder:
        checkpoint_file, float_file, onnx_file = (
            Path(folder) / f"{name}{suffix}" for suffix in (SUFFIXES["checkpoint"], ".onnx", SUFFIXES["onnx"])
        )
        checkpoint_file.write_bytes(pack_checkpoint(network, describe_network(network, contract)))
        exported = export_onnx(checkpoint_file, float_file)
        # 7 bits: 8 would overflow on users' processors without VNNI, even if not on this one
        quantized = quantize(float_file, calibration, onnx_file, reduce_range=True, console=console)
        for file in (checkpoint_file, onnx_file):
            with atomic_path(out / file.name) as temporary:
                shutil.copyfile(file, temporary)
        return Packed(checkpoint=out / checkpoint_file.name, onnx=out / onnx_file.name, exported=exported, quantized=quantized)


def pack_checkpoint(network: YoloV3, description: Mapping[str, Any]) -> bytes:
    """A compressed checkpoint with kernels in bfloat16, and without the state that only a resumed training needs.

    `read_checkpoint` reads it like any other: torch reads compressed archives, and a network copies its weights into float32.
    bfloat16 keeps eight significant bits of each weight, and its exponents, which hardly vary, compress well.
    """
    weights = {
        # biases and batch norms are few numbers, and stay in float32
        f"network.{key}": (value.to(torch.bfloat16) if value.ndim == 4 else value).contiguous()
        for key, value in network.state_dict().items()
    }
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": weights, CHECKPOINT_KEY: dict(description)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            target.writestr(zipfile.ZipInfo(entry.filename, _EPOCH), source.read(entry), zipfile.ZIP_DEFLATED, 9)
    return packed.getvalue()
