"""Times a frame on this machine, and the share of it that the network takes."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.cores import available_cores
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.timing import time_interleaved
from ppe_yolo.data.synthetic import draw_site
from ppe_yolo.export.onnx import build_model
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector
from ppe_yolo.model.names import Architecture
from ppe_yolo.model.yolov3 import ANCHORS_PER_LEVEL, YoloV3

FRAMES = ((720, 1280), (1080, 1920))  # (height, width)
GEMM_SIDE = 2048
_ALONE = ": run alone"


@dataclass(frozen=True, kw_only=True)
class OnnxBenchmark:
    """Times of an ONNX model, and of its quantised version if given.

    Attributes:
        seconds: Case (`model: run alone`, `model: frame 1280x720`, ...) -> seconds in each round.
        flops: Floating-point operations of the convolutions per image.
        peak_flops: Floating-point operations per second of numpy's float32 matrix product.
        provider: The execution provider.
        threads: Threads per operator.
    """

    seconds: Mapping[str, list[float]]
    flops: int
    peak_flops: float
    provider: str
    threads: int


def benchmark_onnx(model: Path, int8: Path | None, rounds: int) -> OnnxBenchmark:
    """Times all cases in turn in one process, with as many threads as this process may use.

    Args:
        model: An ONNX model of `ppe-yolo export`.
        int8: The same model, quantised.
        rounds: Number of rounds.

    Raises:
        UserError: Not such a model.
    """
    threads = available_cores()
    detectors = {"model": load_onnx_detector(model, device="cpu", threads=threads)}
    if int8 is not None:
        detectors["int8"] = load_onnx_detector(int8, device="cpu", threads=threads)
    first = detectors["model"]
    for detector in detectors.values():
        (height, width), (own_height, own_width) = first.contract.input_size, detector.contract.input_size
        if (height, width) != (own_height, own_width):
            got = f"{own_height} x {own_width}"
            raise UserError(setting="int8", file=int8, expected=f"the input size of {model}, {height} x {width}", got=got)
    frames = {f"{w}x{h}": draw_site(np.random.default_rng(5), (h, w))[0] for h, w in FRAMES}
    # the run alone gets the image of the frames, since suppression takes longer with more detections
    canvas = letterbox(next(iter(frames.values())), first.contract.input_size, first.contract.pad_value)[0][None]
    cases: dict[str, Callable[[], object]] = {}
    for name, detector in detectors.items():
        cases[f"{name}{_ALONE}"] = partial(detector.run, canvas)
        for size, frame in frames.items():
            cases[f"{name}: frame {size}"] = partial(detector.detect, [frame])
    without_network = null_detector(first.contract, threads)
    for size, frame in frames.items():
        cases[f"no network: frame {size}"] = partial(without_network.detect, [frame])
    a, b = (np.random.default_rng(i).standard_normal((GEMM_SIDE, GEMM_SIDE), dtype=np.float32) for i in (0, 1))
    cases["gemm"] = partial(np.matmul, a, b, out=np.empty_like(a))
    seconds = time_interleaved(cases, rounds)
    return OnnxBenchmark(
        peak_flops=2 * GEMM_SIDE**3 / min(seconds.pop("gemm")),
        seconds=seconds,
        flops=convolution_flops(onnx.load(model)),
        provider=first.provider,
        threads=threads,
    )


def print_benchmark(result: OnnxBenchmark, console: Console) -> None:
    """Prints the times as a table."""
    table = Table("", "median", "fastest", "")
    alone = result.seconds[f"model{_ALONE}"]
    for name, values in result.seconds.items():
        base = result.seconds.get(name.split(":")[0] + _ALONE)
        note = ""
        if base is not None and base is not values:
            note = f"{_ratio(values, base):.3f} x the run alone"
        elif base is values and values is not alone:
            note = f"{_ratio(alone, values):.2f} x faster"
        table.add_row(name, f"{1e3 * statistics.median(values):.2f} ms", f"{1e3 * min(values):.2f} ms", note)
    console.print(table)
    console.print(
        f"{result.flops / 1e9:.2f} GFLOP per image: {result.flops / statistics.median(alone) / 1e9:.0f} GFLOP/s, "
        f"{100 * result.flops / min(alone) / result.peak_flops:.0f} % (fastest run) of numpy's float32 product of "
        f"{GEMM_SIDE}x{GEMM_SIDE} matrices, {result.peak_flops / 1e9:.0f} GFLOP/s"
    )
    console.print(f"onnxruntime {ort.__version__}, {result.provider}, {result.threads} threads, {len(alone)} rounds")


def _ratio(a: list[float], b: list[float]) -> float:
    """Median of a / b, round by round."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


class NullBody(nn.Module):
    """Raw maps of the right sizes from one pixel of each cell, in place of a network."""

    def __init__(self, outputs: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(3, outputs, 1, stride=s) for s in strides)
        for parameters in self.parameters():
            nn.init.normal_(parameters, mean=-1.5, std=1.0)  # few detections, as on a site

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> [B, outputs, H/s, W/s] each."""
        return [head(images) for head in self.heads]


def null_detector(contract: ModelContract, threads: int) -> OnnxDetector:
    """A detector with the same input, decoding and suppression, but no network.

    Raises:
        UserError: The contract does not name the architecture.
    """
    architecture: Architecture | None = contract.provenance.get("architecture")
    if architecture is None:
        raise UserError("model contract", expected="the architecture in provenance", got="none", hint="export the model again")
    torch.manual_seed(0)
    network = YoloV3(architecture, len(contract.class_names))
    network.body = NullBody(ANCHORS_PER_LEVEL * (5 + len(contract.class_names)), network.strides)
    return OnnxDetector(build_model(network, contract).SerializeToString(), "no network", "cpu", threads)


def convolution_flops(model: ModelProto) -> int:
    """Multiplications and additions of all convolutions for one image."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    shapes |= {t.name: list(t.dims) for t in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            height, width = shapes[node.output[0]][2:]
            total += 2 * int(np.prod(shapes[node.input[1]])) * height * width
    return total
