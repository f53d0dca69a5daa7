"""Prints the results of exports, comparisons and quantisation."""

from rich.console import Console
from rich.table import Table

from ppe_yolo.export.graph import OPSET
from ppe_yolo.export.onnx import Exported
from ppe_yolo.export.pack import Packed
from ppe_yolo.export.quantize import Quantized
from ppe_yolo.export.verify import IN_IMAGE, Verification


def print_export(result: Exported, console: Console) -> None:
    """Prints the parity report, and the file."""
    for line in result.parity.lines():
        console.print(line, soft_wrap=True)
    height, width = result.contract.input_size
    if result.has_dropped_thresholds:
        console.print(
            f"the checkpoint's alarm thresholds were chosen at another input size and are not in the file: evaluate it on the "
            f"validation images, report, and export again with --input-size {height} {width} --operating-point FILE",
            soft_wrap=True,
        )
    size = result.path.stat().st_size / 1e6
    console.print(
        f"{result.path}: input {height} x {width}, opset {OPSET}, {result.nodes} nodes, {size:.1f} MB", soft_wrap=True
    )


def print_verification(result: Verification, split: str, console: Console) -> None:
    """Prints mAP of both models, and how far their detections differ."""
    table = Table("", "checkpoint", "onnx", "points")
    for name, gain in result.gain.items():
        table.add_row(name, f"{100 * result.checkpoint[name]:.3f} %", f"{100 * result.onnx[name]:.3f} %", f"{gain:+.4f}")
    console.print(table)
    difference = result.difference
    console.print(
        f"{result.images} images of {split}: {difference.unmatched} of {difference.detections} detections without a "
        f"counterpart ({IN_IMAGE.boxes:g} px, score {IN_IMAGE.scores:g}); the others within {difference.boxes:.2g} px, "
        f"score {difference.scores:.2g}",
        soft_wrap=True,
    )


def print_quantization(result: Quantized, console: Console) -> None:
    """Prints mAP, size and speed before and after."""
    before, after = result.before, result.after
    console.print(
        f"weights of {result.bits} bits ({result.reason}); ranges found on {result.calibration} training images", soft_wrap=True
    )
    table = Table("", "before", "after", "")
    for name, old in before.maps.items():
        new = after.maps[name]
        table.add_row(name, f"{100 * old:.2f} %", f"{100 * new:.2f} %", f"{100 * (new - old):+.2f} points")
    sizes = [m.size / 1e6 for m in (before, after)]
    table.add_row("file", *(f"{s:.1f} MB" for s in sizes), f"{sizes[0] / sizes[1]:.2f} x smaller")
    table.add_row("run, batch 1", *(f"{1e3 * m.seconds:.1f} ms" for m in (before, after)), f"{result.speedup:.2f} x faster")
    console.print(table)
    changes = ", ".join(f"{name} {100 * (after.maps[name] - old):+.2f}" for name, old in before.maps.items())
    console.print(f"{result.path}: {changes} points on {result.validation} validation images", soft_wrap=True)


def print_packed(result: Packed, console: Console) -> None:
    """Prints the quantisation, and the two files."""
    print_quantization(result.quantized, console)
    for file in (result.checkpoint, result.onnx):
        console.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True)
