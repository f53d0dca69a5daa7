"""`ppe-yolo quantize`: 8-bit integers instead of floats, written only if the model finds as much as before."""

import contextlib
import io
import logging
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.timing import time_interleaved
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.images import read_image
from ppe_yolo.data.validation import VALIDATION_KEY, training_split, validation_images
from ppe_yolo.evaluation.evaluate import average_precision_of
from ppe_yolo.export.graph import stamp
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector, read_onnx

QUANTIZED = ("Conv", "MaxPool", "LeakyRelu", "Concat", "Resize", "Pad", "Add")
# instructions that add products of bytes in 32 bits; without them two products meet in 16 bits and may overflow, unless
# weights keep to 7 bits
VNNI = ("avx512_vnni", "avx_vnni", "avx_vnni_int8")
TIMED_RUNS = 30
PERCENTILE = 99.999  # of what a tensor holds: the rest would stretch the steps of all others, which moves boxes
CHUNK = 8  # photos whose tensors are in memory at the same time


def quantize(
    model: Path,
    calibration: str,
    out: Path,
    *,
    class_map: str | None = None,
    photos: int = 200,
    val_fraction: float | None = None,
    seed: int | None = None,
    max_drop: float = 0.5,
    reduce_range: bool | None = None,
    console: Console,
) -> None:
    """Quantises, measures before and after, writes.

    Args:
        model: An ONNX model of `ppe-yolo export`.
        calibration: Training data, see `open_source`: ranges are found on some of the training photos, the measurement is
            done on the photos that the model was validated on. The test split is not touched.
        out: The file to write.
        class_map: Name or file.
        photos: How many training photos to find ranges on.
        val_fraction: See `validation_images`.
        seed: See `validation_images`; also of the choice of photos.
        max_drop: Points that may be lost, of mAP@0.5 and of mAP@0.5:0.95.
        reduce_range: Weights of 7 bits, for processors without VNNI; as this processor needs it when None.
        console: Where to print.

    Raises:
        UserError: Not a model that can be quantised, or too much is lost; then nothing is written.
    """
    if out.suffix != ".onnx" or out.resolve() == model.resolve():
        raise UserError(f"--out: expected another name that ends in .onnx, got {out}")
    content = read_onnx(model)
    before = OnnxDetector(content, str(model), "cpu")
    proto = onnx.load_model_from_string(content)
    _refuse_reduced(proto, model)
    mapping = load_class_map(class_map).require_classes(before.contract.class_names, model)
    dataset = AnnotatedDataset.open(calibration, mapping)
    remembered = before.contract.provenance.get(VALIDATION_KEY)
    validation = validation_images(dataset, str(model), remembered, val_fraction, seed)
    if not any(not o.difficult for image in validation for o in image.objects):
        raise UserError(f"{calibration}: no validation photo has an object to measure on: use the data of the training")
    held_out = {image.image for image in validation}
    training = [image for image in dataset.split(training_split(dataset)) if image.image not in held_out]
    chosen = choose_photos(training, photos, seed or 0)
    reason = "as asked for"
    if reduce_range is None:
        reduce_range, reason = needs_reduced_range()
    console.print(f"weights of {7 if reduce_range else 8} bits ({reason}); ranges found on {len(chosen)} training photos")
    contract = replace(
        before.contract,
        provenance={
            **before.contract.provenance,
            "precision": "int8",
            "quantization": {"photos": len(chosen), "seed": seed or 0, "reduce_range": reduce_range, "max_drop": max_drop},
        },
    )
    with atomic_path(out) as temporary:
        quantized = quantize_graph(proto, contract, chosen, reduce_range=reduce_range, console=console)
        temporary.write_bytes(quantized.SerializeToString())
        after = load_onnx_detector(temporary, device="cpu")
        maps = [_maps(d, validation) for d in (before, after)]
        _print_table(console, (model, temporary), maps, (before, after))
        for name, old in maps[0].items():
            drop = 100 * (old - maps[1][name])
            if not drop <= max_drop:
                raise UserError(
                    f"{model}: quantised, {name} falls by {drop:.2f} points ({100 * old:.2f} to {100 * maps[1][name]:.2f} % on "
                    f"{len(validation)} photos), allowed are {max_drop:g}: nothing is written; try more --photos"
                )
    changes = ", ".join(f"{name} {100 * (maps[1][name] - old):+.2f}" for name, old in maps[0].items())
    console.print(f"{out}: {changes} points on {len(validation)} validation photos", soft_wrap=True)


def choose_photos(images: Sequence[AnnotatedImage], count: int, seed: int) -> list[AnnotatedImage]:
    """Some of the photos, the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    return [images[i] for i in sorted(rng.choice(len(images), min(count, len(images)), replace=False))]


def needs_reduced_range(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[bool, str]:
    """Whether products of bytes may overflow on this processor, and how that is known."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return False, f"{machine} adds in 32 bits"
    if not cpuinfo.is_file():
        return True, f"{machine}, and no {cpuinfo} to look for VNNI in"
    found = sorted(set(cpuinfo.read_text().split()) & set(VNNI))
    return not found, f"this processor has {', '.join(found)}" if found else "this processor has no VNNI"


def quantize_graph(
    model: ModelProto,
    contract: ModelContract,
    photos: Sequence[AnnotatedImage],
    *,
    reduce_range: bool,
    console: Console | None = None,
) -> ModelProto:
    """Puts QuantizeLinear and DequantizeLinear around the body of the network, and stamps the contract into it.

    The last convolution of each head, decoding and suppression stay in float: they cost next to nothing, and a step of
    1/255 in a logit would move boxes.
    """
    pixels = next(n.output[0] for n in model.graph.node if n.op_type == "Cast")
    body = body_nodes(model)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "quantized.onnx"
        logging.disable(logging.WARNING)  # advice about steps that were taken in another way
        # it prints its settings, which go nowhere; progress goes to where the output was before
        shown = Console(file=console.file) if console is not None else None
        try:
            with (
                Progress(console=shown, transient=True, disable=shown is None) as progress,
                contextlib.redirect_stdout(io.StringIO()),
            ):
                task = progress.add_task("ranges", total=len(photos))
                quantize_static(
                    pool_first(model),  # it takes the weights out of what it is given
                    target,
                    _Photos(photos, contract, partial(progress.advance, task)),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(QUANTIZED),
                    nodes_to_quantize=body,
                    per_channel=True,
                    reduce_range=reduce_range,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.Percentile,
                    extra_options={
                        "CalibPercentile": PERCENTILE,
                        "CalibStridedMinMax": CHUNK,  # for every method, in spite of its name
                        # a byte of a pixel is a byte
                        "TensorQuantOverrides": {
                            pixels: [
                                {
                                    "quant_type": QuantType.QUInt8,
                                    "scale": np.array(1, np.float32),
                                    "zero_point": np.array(0, np.uint8),
                                }
                            ]
                        },
                    },
                )
        finally:
            logging.disable(logging.NOTSET)
        quantized = onnx.load_model(target)
    _take_bytes(quantized, pixels)
    stamp(quantized, contract)
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _take_bytes(model: ModelProto, pixels: str) -> None:
    """Leaves out bytes to floats to bytes: the scale is 1, and they are the same bytes."""
    nodes = model.graph.node
    cast = next(n for n in nodes if n.output[0] == pixels)
    quantize = next(n for n in nodes if n.op_type == "QuantizeLinear" and n.input[0] == pixels)
    for node in nodes:
        node.input[:] = [cast.input[0] if name == quantize.output[0] else name for name in node.input]
    nodes.remove(cast)
    nodes.remove(quantize)


class _Photos(CalibrationDataReader):  # type: ignore[misc]
    """Letterboxed photos, one by one, in chunks so that not all their tensors are kept at once."""

    def __init__(self, photos: Sequence[AnnotatedImage], contract: ModelContract, taken: Callable[[], None]) -> None:
        self.photos, self.contract, self.taken = photos, contract, taken
        self.chosen = iter(photos)

    def __len__(self) -> int:
        return -(-len(self.photos) // CHUNK) * CHUNK  # whole chunks are asked for

    def set_range(self, start_index: int, end_index: int) -> None:
        self.chosen = iter(self.photos[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        photo = next(self.chosen, None)
        if photo is None:
            return None
        self.taken()
        return {"images": letterbox(read_image(photo.image), self.contract.input_size, self.contract.pad_value)[0][None]}


def pool_first(model: ModelProto) -> ModelProto:
    """A copy in which a maximum is taken before a leaky ReLU that feeds nothing else.

    The numbers are the same. In float the other order is faster, since convolution and ReLU are one operation; in integers
    they are not, and a ReLU after the maximum works on a quarter of the places.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.ClearField("value_info")  # the sizes between the two change
    users: dict[str, list[NodeProto]] = {}
    for node in copy.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in copy.graph.node:
        following = users.get(node.output[0], [])
        if node.op_type == "LeakyRelu" and [n.op_type for n in following] == ["MaxPool"]:
            _swap_operations(node, following[0])
    return copy


def _swap_operations(a: NodeProto, b: NodeProto) -> None:
    kept = NodeProto()
    kept.CopyFrom(a)
    for target, source in ((a, b), (b, kept)):
        target.op_type = source.op_type
        del target.attribute[:]
        target.attribute.extend(source.attribute)


def body_nodes(model: ModelProto) -> list[str]:
    """Names of the nodes that can be quantised: those before the last convolution of a head."""
    maker = {name: node.name for node in model.graph.node for name in node.output}
    before: dict[str, set[str]] = {}  # node -> all nodes before it; ONNX lists nodes in the order of computation
    for node in model.graph.node:
        earlier = {maker[name] for name in node.input if name in maker}
        before[node.name] = earlier.union(*(before[name] for name in earlier))
    convolutions = {n.name for n in model.graph.node if n.op_type == "Conv"}
    last = convolutions.difference(*(before[name] for name in convolutions))
    body = set().union(*(before[name] for name in last))
    return [n.name for n in model.graph.node if n.name in body and n.op_type in QUANTIZED]


def _refuse_reduced(model: ModelProto, path: Path) -> None:
    if any(n.op_type == "QuantizeLinear" for n in model.graph.node):
        raise UserError(f"{path}: expected a model in float32, got one that is quantised already")
    if any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer):
        raise UserError(f"{path}: expected a model in float32, got one in float16: export it again without --half")


def _maps(detector: OnnxDetector, images: Sequence[AnnotatedImage]) -> dict[str, float]:
    detections: list[Detections] = []
    for image in images:
        detections += detector.detect([read_image(image.image)])
    summary = average_precision_of(images, detections, detector.contract)
    return {"mAP@0.5": summary["map_50"] or 0.0, "mAP@0.5:0.95": summary["map"] or 0.0}


def _print_table(
    console: Console, files: Sequence[Path], maps: Sequence[dict[str, float]], detectors: Sequence[OnnxDetector]
) -> None:
    canvas = np.full((1, *detectors[0].contract.input_size, 3), 114, dtype=np.uint8)
    times = time_interleaved({str(i): partial(d.run, canvas) for i, d in enumerate(detectors)}, TIMED_RUNS)
    medians = [statistics.median(t) for t in times.values()]
    ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
    sizes = [f.stat().st_size / 1e6 for f in files]
    table = Table("", "before", "after", "")
    for name, (old, new) in {key: (maps[0][key], maps[1][key]) for key in maps[0]}.items():
        table.add_row(name, f"{100 * old:.2f} %", f"{100 * new:.2f} %", f"{100 * (new - old):+.2f} points")
    table.add_row("file", *(f"{s:.1f} MB" for s in sizes), f"{sizes[0] / sizes[1]:.2f} x smaller")
    table.add_row("run, batch 1", *(f"{1e3 * m:.1f} ms" for m in medians), f"{ratio:.2f} x faster")
    console.print(table)
