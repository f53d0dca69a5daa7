"""The mailbox between the camera readers and the processing thread: it holds only the newest frame of each camera."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame of a camera.

    Attributes:
        camera: Name of the camera.
        number: Counts the frames of the camera from 0, dropped ones included.
        time: Capture time by the steady clock (`steady_time`), seconds; never runs backwards within a camera. For a file: the
            time at which it was opened plus the position in the file.
        monotonic: `time.monotonic()` when the frame was decoded.
        image: uint8 [H, W, 3], RGB.
        correction: Seconds to be added to `time` to get the time by the wall clock.
        is_time_certain: Whether the wall clock was set, and the timestamps of a video file are intact.
    """

    camera: str
    number: int
    time: float
    monotonic: float
    image: NDArray[np.uint8]
    correction: float = 0.0
    is_time_certain: bool = True

    @property
    def wall_time(self) -> float:
        """Capture time by the wall clock, UTC epoch seconds."""
        return self.time + self.correction


class FrameMailbox:
    """Takes frames from any number of readers and hands them to one thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, Frame] = {}  # in the order in which the cameras began to wait
        self._closed = False

    def put(self, frame: Frame, wait: bool = False, unless: Callable[[], bool] = lambda: False) -> bool:
        """Adds a frame. It replaces a waiting frame of the same camera, but keeps its turn.

        Args:
            frame: The frame.
            wait: Return only after the frame was taken, or discarded, or the mailbox was closed. For files, whose frames must
                not be replaced.
            unless: Checked under the lock; if true, nothing is added. A caller that makes it true and then calls `discard` can
                rely on no frame being added later.

        Returns:
            Whether an older frame was dropped.
        """
        with self._changed:
            if self._closed or unless():
                return False
            dropped = frame.camera in self._waiting
            self._waiting[frame.camera] = frame
            self._changed.notify_all()
            while wait and not self._closed and self._waiting.get(frame.camera) is frame:
                self._changed.wait()
            return dropped

    def take(self, max_frames: int, timeout: float) -> list[Frame]:
        """Takes at most one frame per camera, longest waiting first. Returns none if none arrives within `timeout` seconds."""
        end = time.monotonic() + timeout
        with self._changed:
            while not self._waiting and not self._closed:
                remaining = end - time.monotonic()
                if remaining <= 0:
                    return []
                self._changed.wait(remaining)
            taken = [self._waiting.pop(camera) for camera in list(self._waiting)[:max_frames]]
            if taken:
                self._changed.notify_all()
            return taken

    def discard(self, camera: str) -> None:
        """Drops the waiting frame of a camera, and releases its reader."""
        with self._changed:
            self._waiting.pop(camera, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Rejects further frames, and releases all readers. Waiting frames can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
