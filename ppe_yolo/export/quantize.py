"""Quantises an ONNX model to 8-bit integers, and writes it only if it detects as well as before."""

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from rich.console import Console
from rich.progress import Progress

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, require_output
from ppe_yolo.core.timing import time_interleaved
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.images import read_image
from ppe_yolo.evaluation.data_sets import DataSpec
from ppe_yolo.evaluation.evaluate import average_precision_of
from ppe_yolo.export.calibration import choose_images, open_calibration
from ppe_yolo.export.quantize_graph import quantize_graph
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector, read_onnx

# instructions that accumulate products of bytes in 32 bits; without them two products are added in 16 bits and may overflow,
# unless the weights keep to 7 bits
VNNI = ("avx512_vnni", "avx_vnni", "avx_vnni_int8")
TIMED_ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model before or after quantisation.

    Attributes:
        maps: mAP@0.5 and mAP@0.5:0.95 on the validation images, 0 to 1.
        size: Bytes of the file.
        seconds: Median time of a run with batch size 1.
    """

    maps: Mapping[str, float]
    size: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """The result of a quantisation.

    Attributes:
        path: The file.
        bits: Of the weights.
        reason: Why this number of bits.
        calibration: Number of images that the ranges were found on.
        validation: Number of images that both models were evaluated on.
        before: The model in float32.
        after: The quantised model.
        speedup: Median of before / after over the rounds.
    """

    path: Path
    bits: int
    reason: str
    calibration: int
    validation: int
    before: Measured
    after: Measured
    speedup: float


def quantize(
    model: Path,
    calibration: Sequence[DataSpec],
    out: Path,
    *,
    images: int = 200,
    val_fraction: float | None = None,
    seed: int | None = None,
    max_drop: float = 0.5,
    reduce_range: bool | None = None,
    console: Console | None = None,
) -> Quantized:
    """Quantises a model, evaluates both versions, and writes the file.

    Args:
        model: An ONNX model of `ppe-yolo export`.
        calibration: The data sets of the training. Ranges are found on some of their training images; both versions are
            evaluated on the images that the model was validated on. The split `test` is not used.
        out: The file to write.
        images: Number of training images to find the ranges on, from all data sets together.
        val_fraction: See `validation_images`.
        seed: See `validation_images`; also the seed of the choice of images.
        max_drop: Points that may be lost, of mAP@0.5 and of mAP@0.5:0.95.
        reduce_range: Weights of 7 bits, for processors without VNNI. None: what this processor needs.
        console: Shows progress; none when None.

    Raises:
        UserError: Not a model that can be quantised, or too much is lost; then nothing is written.
    """
    require_output(out, ".onnx", model)
    content = read_onnx(model)
    before = OnnxDetector(content, str(model), "cpu")
    proto = onnx.load_model_from_string(content)
    _require_float32(proto, model)
    data = open_calibration(calibration, before.contract, str(model), val_fraction, seed)
    chosen = choose_images(data.training, images, seed or 0)
    reason = "as requested"
    if reduce_range is None:
        reduce_range, reason = needs_reduced_range()
    contract = _describe(before.contract, len(chosen), seed or 0, reduce_range, max_drop)
    with atomic_path(out) as temporary:
        # a console of its own, bound to the present output: onnxruntime's is redirected meanwhile
        shown = Console(file=console.file) if console is not None else None
        with Progress(console=shown, transient=True, disable=shown is None) as progress:
            task = progress.add_task("finding ranges", total=len(chosen))
            quantized = quantize_graph(
                proto, contract, chosen, reduce_range=reduce_range, on_image=partial(progress.advance, task)
            )
        temporary.write_bytes(quantized.SerializeToString())
        after = load_onnx_detector(temporary, device="cpu")
        maps = [_maps(d, data.validation) for d in (before, after)]
        for name, old in maps[0].items():
            drop = 100 * (old - maps[1][name])
            if not drop <= max_drop:  # "not <=": NaN is refused, too
                raise UserError(
                    f"quantised, {name} falls by {drop:.2f} points ({100 * old:.2f} to {100 * maps[1][name]:.2f} % on "
                    f"{len(data.validation)} images), allowed are {max_drop:g}: nothing is written",
                    file=model,
                    hint="try more --images",
                )
        canvas = np.full((1, *before.contract.input_size, 3), before.contract.pad_value, dtype=np.uint8)
        times = time_interleaved({"before": partial(before.run, canvas), "after": partial(after.run, canvas)}, TIMED_ROUNDS)
    measured = [
        Measured(maps=m, size=file.stat().st_size, seconds=statistics.median(t))
        for m, file, t in zip(maps, (model, out), times.values(), strict=True)
    ]
    return Quantized(
        path=out,
        bits=7 if reduce_range else 8,
        reason=reason,
        calibration=len(chosen),
        validation=len(data.validation),
        before=measured[0],
        after=measured[1],
        speedup=statistics.median(a / b for a, b in zip(*times.values(), strict=True)),
    )


def needs_reduced_range(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[bool, str]:
    """Whether products of 8-bit weights may overflow on this processor, and the reason."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return False, f"{machine} accumulates in 32 bits"
    if not cpuinfo.is_file():
        return True, f"{machine}, without {cpuinfo} to look for VNNI in"
    instructions = sorted(set(cpuinfo.read_text().split()) & set(VNNI))
    return not instructions, f"this processor has {', '.join(instructions)}" if instructions else "this processor has no VNNI"


def _describe(contract: ModelContract, images: int, seed: int, reduce_range: bool, max_drop: float) -> ModelContract:
    """The contract with what was done, in its provenance."""
    # "photos": existing models have this key in their provenance
    quantization = {"photos": images, "seed": seed, "reduce_range": reduce_range, "max_drop": max_drop}
    return replace(contract, provenance={**contract.provenance, "precision": "int8", "quantization": quantization})


def _require_float32(model: ModelProto, path: Path) -> None:
    if any(n.op_type == "QuantizeLinear" for n in model.graph.node):
        raise UserError(file=path, expected="a model in float32", got="one that is quantised already")
    if any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer):
        raise UserError(file=path, expected="a model in float32", got="one in float16", hint="export it again without --half")


def _maps(detector: OnnxDetector, images: Sequence[AnnotatedImage]) -> dict[str, float]:
    detections: list[Detections] = []
    for image in images:
        detections += detector.detect([read_image(image.image)])
    return average_precision_of(images, detections, detector.contract)
