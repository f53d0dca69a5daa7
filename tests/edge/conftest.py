"""Fixtures for the tests of the box: a model that detects colours, and clips for it. No torch."""

import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.parser import parse_model

from ppe_yolo.core.contract import ONNX_METADATA_KEY, ModelContract

RED, GREEN, GREY = (230, 20, 20), (20, 230, 20), (90, 90, 90)  # a bare head, a helmet, nobody
HEAD_XYXY = (24.0, 16.0, 72.0, 48.0)  # box of every detection, in the model input of 64 x 96
CONTRACT = ModelContract(
    ("helmet", "none"),
    (64, 96),
    max_detections=2,
    alarm_thresholds={"helmet": 0.5, "none": 0.5},
    display_names={"none": "bare head"},
    provenance={"made_by": "test"},
)

# The score of `none` is the mean of red minus blue, that of `helmet` the mean of green minus blue; below the floor it is 0.
_GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
colours (uint8[batch, 64, 96, 3] images) => (float[batch, 2, 4] boxes_xyxy, float[batch, 2] scores, int64[batch, 2] labels)
<int64[2] area = {{1, 2}}, float white = {{255}}, int64[2] green_red = {{1, 0}}, int64[1] blue = {{2}}, int64[1] two = {{2}},
 float floor = {{0.1}}, float nothing = {{0}}, float[1, 1, 4] place = {{{place}}}, int64[1] columns = {{2}}>
{{
  pixels = Cast <to = 1> (images)
  mean = ReduceMean <keepdims = 0> (pixels, area)
  parts = Div (mean, white)
  wanted = Gather <axis = 1> (parts, green_red)
  other = Gather <axis = 1> (parts, blue)
  beyond = Sub (wanted, other)
  is_there = Greater (beyond, floor)
  clean = Where (is_there, beyond, nothing)
  scores, labels = TopK <axis = 1> (clean, two)
  column = Unsqueeze (scores, columns)
  none_of_it = Mul (column, nothing)
  boxes_xyxy = Add (none_of_it, place)
}}
"""


def write_tiny_model(path: Path) -> Path:
    """Writes a model that detects a bare head in red images, a helmet in green ones, nothing in grey ones; see HEAD_XYXY."""
    return write_model(path, _GRAPH.format(place=", ".join(map(str, HEAD_XYXY))))


def write_model(path: Path, graph: str) -> Path:
    """Writes a model with the contract CONTRACT from its graph in ONNX's text form."""
    model = parse_model(graph)
    helper.set_model_props(model, {ONNX_METADATA_KEY: CONTRACT.to_json()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_tiny_model`."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


def grainy(colour: tuple[int, int, int], rng: np.random.Generator, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Returns an image uint8 [H, W, 3] of one RGB colour, with some noise like that of a camera."""
    return np.clip(np.array(colour) + rng.integers(-12, 13, (*size, 1)), 0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    scenes: Sequence[tuple[tuple[int, int, int], int]],
    *,
    fps: int = 10,
    size: tuple[int, int] = (64, 96),
    codec: str = "libx264",
    key_frames: int = 250,
) -> Path:
    """Writes a video of scenes, each (RGB colour, number of frames), with some noise like that of a camera.

    Every `key_frames` frames, there is a key frame.
    """
    path.write_bytes(_encoded(path.suffix, tuple(scenes), fps, size, codec, key_frames))
    return path


@cache
def _encoded(
    suffix: str,
    scenes: tuple[tuple[tuple[int, int, int], int], ...],
    fps: int,
    size: tuple[int, int],
    codec: str,
    key_frames: int,
) -> bytes:
    """Many tests need the same clip."""
    rng = np.random.default_rng(0)
    data = io.BytesIO()
    data.name = f"clip{suffix}"  # from which libav takes the format
    with av.open(data, "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec != "mjpeg":
            stream.gop_size = key_frames
            stream.options = {"preset": "ultrafast", "crf": "18", "bf": "0", "x265-params": "log-level=none:bframes=0"}
        for colour, count in scenes:
            for _ in range(count):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grainy(colour, rng, size), format="rgb24")))
        container.mux(stream.encode())
    return data.getvalue()


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Path]:
    """`make_clip(path, [(RED, 20), (GREEN, 20)], fps=10, size=(64, 96))`."""
    return write_clip


@pytest.fixture
def endless(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """A video that is longer than any test."""
    return make_clip(tmp_path / "endless.mp4", [(GREY, 1500)])
