"""`ppe-yolo benchmark onnx`: what a frame costs, and how much of it is the network."""

import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.timing import time_interleaved
from ppe_yolo.data.synthetic import draw_site
from ppe_yolo.export.onnx import build_model
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector
from ppe_yolo.model.yolov3 import ANCHORS_PER_LEVEL, Architecture, YoloV3

FRAMES = ((720, 1280), (1080, 1920))  # (height, width)
GEMM_SIDE = 2048


def benchmark_onnx(model: Path, int8: Path | None, rounds: int, console: Console) -> dict[str, float]:
    """Times everything by turns in one process, on as many threads as this process may use, and prints a table.

    Args:
        model: An ONNX model of `ppe-yolo export`.
        int8: The same one, quantised.
        rounds: How often each is timed.
        console: Where to print.

    Returns:
        Median seconds of each case, and `gemm_flops`, floating-point operations a second.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    detectors = {"model": load_onnx_detector(model, device="cpu", threads=threads)}
    if int8 is not None:
        detectors["int8"] = load_onnx_detector(int8, device="cpu", threads=threads)
    first = next(iter(detectors.values()))
    frames = {f"{w}x{h}": draw_site(np.random.default_rng(5), (h, w))[0] for h, w in FRAMES}
    # the same picture alone as in the frames, since suppression takes longer where more is found
    canvas = letterbox(next(iter(frames.values())), first.contract.input_size, first.contract.pad_value)[0][None]
    cases: dict[str, Callable[[], Any]] = {}
    for name, detector in detectors.items():
        cases[f"{name}: run alone"] = partial(detector.run, canvas)
        for size, frame in frames.items():
            cases[f"{name}: frame {size}"] = partial(detector.detect, [frame])
    nothing = null_detector(first.contract, threads)
    for size, frame in frames.items():
        cases[f"no network: frame {size}"] = partial(nothing.detect, [frame])
    a, b = (np.random.default_rng(i).standard_normal((GEMM_SIDE, GEMM_SIDE), dtype=np.float32) for i in (0, 1))
    product = np.empty_like(a)
    cases["gemm"] = partial(np.matmul, a, b, out=product)
    times = time_interleaved(cases, rounds)

    medians = {name: statistics.median(t) for name, t in times.items()}
    peak = 2 * GEMM_SIDE**3 / min(times.pop("gemm"))
    table = Table("", "median", "fastest", "")
    for name, values in times.items():
        base = times.get(name.split(":")[0] + ": run alone")
        note = f"{_ratio(values, base):.3f} x the run alone" if base is not None and base is not values else ""
        if base is values and values is not next(iter(times.values())):
            note = f"{_ratio(next(iter(times.values())), values):.2f} x faster"
        table.add_row(name, f"{1e3 * medians[name]:.2f} ms", f"{1e3 * min(values):.2f} ms", note)
    console.print(table)
    flops = convolution_flops(onnx.load(model))
    alone = times[f"{next(iter(detectors))}: run alone"]
    console.print(
        f"{flops / 1e9:.2f} GFLOP a picture: {flops / statistics.median(alone) / 1e9:.0f} GFLOP/s, "
        f"{100 * flops / min(alone) / peak:.0f} % (fastest run) of numpy's float32 product of "
        f"{GEMM_SIDE}x{GEMM_SIDE} matrices, {peak / 1e9:.0f} GFLOP/s"
    )
    console.print(f"onnxruntime {ort.__version__}, {first.provider}, {threads} threads, {rounds} rounds")
    return {**medians, "gemm_flops": peak}


def _ratio(a: list[float], b: list[float]) -> float:
    """Median of a / b, round by round."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


class NullBody(nn.Module):
    """Raw maps of the right sizes from one pixel of each cell: everything but the network."""

    def __init__(self, outputs: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(3, outputs, 1, stride=s) for s in strides)
        for parameters in self.parameters():
            nn.init.normal_(parameters, mean=-1.5, std=1.0)  # few detections, as on a site

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> [B, outputs, H/s, W/s] each."""
        return [head(images) for head in self.heads]


def null_detector(contract: ModelContract, threads: int) -> OnnxDetector:
    """A detector with the same input, decoding and suppression, and no network between them."""
    architecture: Architecture | None = contract.provenance.get("architecture")
    if architecture is None:
        raise UserError("model contract: expected the architecture in provenance, got none: export the model again")
    torch.manual_seed(0)
    network = YoloV3(architecture, len(contract.class_names))
    network.body = NullBody(ANCHORS_PER_LEVEL * (5 + len(contract.class_names)), network.strides)
    return OnnxDetector(build_model(network, contract).SerializeToString(), "no network", "cpu", threads)


def convolution_flops(model: ModelProto) -> int:
    """Multiplications and additions of all convolutions for one picture."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    shapes |= {t.name: list(t.dims) for t in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            height, width = shapes[node.output[0]][2:]
            total += 2 * int(np.prod(shapes[node.input[1]])) * height * width
    return total
