"""`ppe-yolo pack-weights`: the two files of a model that comes with the library, from a run's checkpoint."""

import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ppe_yolo.core.files import atomic_path
from ppe_yolo.evaluation.files import read_thresholds
from ppe_yolo.export.onnx import export_onnx
from ppe_yolo.export.quantize import quantize
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, build_network, describe_network, read_checkpoint, require_trained
from ppe_yolo.model.yolov3 import YoloV3
from ppe_yolo.weights import SUFFIXES

_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's earliest date: the same weights make the same bytes


def pack_weights(
    checkpoint: Path,
    out: Path,
    name: str,
    *,
    alarm_thresholds: Path,
    calibration: str,
    class_map: str | None = None,
    console: Console,
) -> None:
    """Writes NAME.ckpt to fine-tune from and NAME.int8.onnx to detect with; both or none.

    Args:
        checkpoint: Of a run, which remembers its validation photos.
        out: Folder for the two files.
        name: The model's name.
        alarm_thresholds: operating_point.json of the same checkpoint on its validation photos.
        calibration: The data of the training, see `quantize`.
        class_map: Name or file.
        console: Where to print.

    Raises:
        UserError: Not a trained checkpoint, thresholds of another one, or 8 bits lose too much.
    """
    network, contract = build_network(read_checkpoint(checkpoint), checkpoint)
    require_trained(contract, checkpoint)
    run_hash = hashlib.blake2b(checkpoint.read_bytes(), digest_size=16).hexdigest()
    contract = replace(
        contract,
        alarm_thresholds=read_thresholds(alarm_thresholds, contract.class_names, run_hash),
        provenance={**contract.provenance, "run_checkpoint_blake2b": run_hash},
    )
    with tempfile.TemporaryDirectory() as folder:
        packed, whole, small = (Path(folder) / f"{name}{s}" for s in (SUFFIXES["checkpoint"], ".onnx", SUFFIXES["onnx"]))
        packed.write_bytes(pack_checkpoint(network, describe_network(network, contract)))
        export_onnx(packed, whole, console=console)
        # 7 bits: what overflows on processors without VNNI would do so on the users', not here
        quantize(whole, calibration, small, class_map=class_map, reduce_range=True, console=console)
        for made in (packed, small):
            with atomic_path(out / made.name) as temporary:
                shutil.copyfile(made, temporary)
            console.print(f"{out / made.name}: {made.stat().st_size:,} bytes", soft_wrap=True)


def pack_checkpoint(network: YoloV3, description: Mapping[str, Any]) -> bytes:
    """A checkpoint without what only a resumed training needs, its kernels in bfloat16, compressed.

    `read_checkpoint` takes it like any other: torch reads compressed archives, and a network copies its weights into
    float32. bfloat16 keeps eight significant bits of each weight, and its exponents, which hardly vary, compress well.
    """
    weights = {
        # the few numbers of biases and batch norms stay as they are
        f"network.{key}": (value.to(torch.bfloat16) if value.ndim == 4 else value).contiguous()
        for key, value in network.state_dict().items()
    }
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": weights, CHECKPOINT_KEY: dict(description)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            target.writestr(zipfile.ZipInfo(entry.filename, _EPOCH), source.read(entry), zipfile.ZIP_DEFLATED, 9)
    return packed.getvalue()
