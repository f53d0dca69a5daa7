"""Between the readers and the one who looks: only the newest picture of each camera waits."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a camera.

    Attributes:
        camera: The camera's name.
        number: Counts the camera's pictures from 0, those that were dropped too.
        time: When it was taken, UTC epoch seconds; of a file, when it was opened plus the place in it.
        monotonic: `time.monotonic()` when it was decoded.
        image: uint8 [H, W, 3], RGB.
    """

    camera: str
    number: int
    time: float
    monotonic: float
    image: NDArray[np.uint8]


class FrameMailbox:
    """Any number of readers put, one thread takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, Frame] = {}  # in the order in which the cameras began to wait
        self._closed = False

    def put(self, frame: Frame, wait: bool = False, unless: Callable[[], bool] = lambda: False) -> bool:
        """Leaves a picture; the one of the same camera that still waits gives way, but its place in the order is kept.

        Args:
            frame: The picture.
            wait: Return only when it has been taken (files: nothing gives way), or will never be (closed, discarded).
            unless: Asked at the last moment; if so, nothing is left. Whoever has it say so and then calls `discard` can be
                sure that no picture comes after.

        Returns:
            Whether an older picture was dropped.
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

    def take(self, most: int, timeout: float) -> list[Frame]:
        """At most one picture a camera, the longest waiting first; none if none came within `timeout` seconds."""
        end = time.monotonic() + timeout
        with self._changed:
            while not self._waiting and not self._closed:
                left = end - time.monotonic()
                if left <= 0:
                    return []
                self._changed.wait(left)
            taken = [self._waiting.pop(camera) for camera in list(self._waiting)[:most]]
            if taken:
                self._changed.notify_all()
            return taken

    def discard(self, camera: str) -> None:
        """Throws away what waits of a camera, and lets its reader go."""
        with self._changed:
            self._waiting.pop(camera, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is taken in any more, and nobody waits; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
