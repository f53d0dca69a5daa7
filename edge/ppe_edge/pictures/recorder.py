"""`--record`: writes annotated videos of the cameras."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ppe_edge.errors import EdgeError

TICKS = 1000  # per second
BIT_RATE = 4_000_000  # bits per second


class Recorder:
    """Writes the frames of one camera, with their capture times, to FOLDER/CAMERA.mp4.

    A frame of another size starts another file, CAMERA.2.mp4. The files are fragmented: a truncated file can be played up to
    its end.

    Args:
        folder: An existing folder.
        camera: Name of the camera.
    """

    def __init__(self, folder: Path, camera: str) -> None:
        self._folder = folder
        self._camera = camera
        self._part = 0
        self._size = (0, 0)
        self._begin = 0.0
        self._last_tick = -1
        self._container: av.container.OutputContainer | None = None
        self._stream: VideoStream | None = None

    def add(self, image: NDArray[np.uint8], seconds: float) -> None:
        """Appends an image. Skips it if it is not later than the last one.

        Args:
            image: uint8 [H, W, 3], RGB.
            seconds: Capture time.

        Raises:
            EdgeError: The file cannot be written.
        """
        height, width = (side - side % 2 for side in image.shape[:2])  # yuv420p needs even sides
        if min(height, width) < 2:
            return
        try:
            if (height, width) != self._size:
                self.close()
                self._open(height, width, seconds)
            assert self._container is not None and self._stream is not None
            tick = round((seconds - self._begin) * TICKS)
            if tick <= self._last_tick:
                return
            self._last_tick = tick
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, TICKS)
            self._container.mux(self._stream.encode(frame))
        except OSError as error:  # includes the errors of PyAV
            raise EdgeError(f"cannot be written ({error.strerror or error})", file=self._path()) from error

    def close(self) -> None:
        """Finishes the current file."""
        container, stream = self._container, self._stream
        self._container = self._stream = None
        self._size = (0, 0)
        if container is not None and stream is not None:
            container.mux(stream.encode(None))
            container.close()

    def _open(self, height: int, width: int, seconds: float) -> None:
        self._part += 1
        self._container = av.open(str(self._path()), "w", options={"movflags": "frag_keyframe+empty_moov"})
        stream = self._container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        stream.bit_rate = BIT_RATE
        self._stream, self._size, self._begin, self._last_tick = stream, (height, width), seconds, -1

    def _path(self) -> Path:
        return self._folder / (f"{self._camera}.mp4" if self._part <= 1 else f"{self._camera}.{self._part}.mp4")
