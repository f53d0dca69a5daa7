"""Writes small videos with the marks and faults that real recordings have."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def corner(height: int, width: int) -> np.ndarray:
    """Returns a blue image with a red upper left quarter, which tells how it is turned."""
    image = np.full((height, width, 3), (20, 20, 230), np.uint8)
    image[: height // 2, : width // 2] = (230, 20, 20)
    return image


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    fps: int | Fraction = 10,
    codec: str = "libx264",
    timestamps: Sequence[int] | None = None,
    rotation: int | None = None,
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes images uint8 [H, W, 3] as a video.

    Args:
        path: The file; its suffix chooses the container.
        images: The frames, all of one size.
        fps: Frames per second.
        codec: Name of the encoder.
        timestamps: Time of each frame in units of 1 / fps; by default 0, 1, ...
        rotation: Degrees by which players turn the video, counter-clockwise.
        pixel_aspect: Sample aspect ratio.
        options: Options of the encoder.
    """
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = {"bf": "0", **(options or {})}
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        packets = []
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, 1 / Fraction(fps)
            packets += stream.encode(frame)
        for packet, timestamp in zip([*packets, *stream.encode()], timestamps or range(len(images)), strict=True):
            if timestamps is not None:
                packet.time_base = 1 / Fraction(fps)
                packet.pts = packet.dts = timestamp
            container.mux(packet)
    return path


def set_display_matrix(video: Path, turns: int, mirror: bool) -> Path:
    """Sets the display matrix of an MP4 video: mirror left to right, then turn by quarters clockwise."""
    matrix = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns) @ np.diag([-1 if mirror else 1, 1])
    (a, c), (b, d) = matrix.tolist()
    one = 1 << 16
    data = bytearray(video.read_bytes())
    box = data.index(b"tkhd")
    at = box + 8 + (32 if data[box + 4] == 1 else 20) + 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    video.write_bytes(data)
    return video


def join(path: Path, *parts: Path) -> Path:
    """Joins MPEG-TS videos by their bytes, as `cat` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
