"""`--record`: what a camera saw, with what was found drawn into it, as a video."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ppe_edge.errors import EdgeError

TICKS = 1000  # a second
BIT_RATE = 4_000_000


class Recorder:
    """Writes one camera's pictures, at the times at which they were taken, into DIR/CAMERA.mp4.

    A picture of another size begins another file, CAMERA.2.mp4. The files are written in fragments: one that is cut off can be
    played up to there.

    Args:
        folder: Exists.
        camera: The camera's name.

    Raises:
        EdgeError: By `add`: the file cannot be written.
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
        """Appends a picture uint8 [H, W, 3] that was taken at `seconds`; one that is not later than the last is left out."""
        height, width = (side - side % 2 for side in image.shape[:2])  # the colours have half the resolution
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
        except OSError as error:  # PyAV's errors are of this kind too
            raise EdgeError(f"{self._path()}: cannot be written ({error.strerror or error})") from error

    def close(self) -> None:
        """Ends the file."""
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
