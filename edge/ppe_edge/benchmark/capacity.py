"""How many frames this machine processes, estimated from short measurements of its parts."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppe_edge.model.detector import EdgeDetector
from ppe_yolo.core.words import plural

HEADROOM = 0.85  # share of the machine that may be planned for: alerts and the page take the rest


@dataclass(frozen=True)
class CameraLoad:
    """What a camera asks for.

    Attributes:
        rate: Frames per second to be processed.
        reading: Cores that reading and decoding take, at the stream's own rate.
    """

    rate: float
    reading: float


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What this machine can do.

    Attributes:
        detect_s: Seconds per frame to resize it and run the model.
        threads: Cores that the model uses meanwhile.
        cores: Cores of this machine that the box may use.
    """

    detect_s: float
    threads: int
    cores: int

    def load(self, cameras: Sequence[CameraLoad]) -> float:
        """Returns the share of the machine that cameras need; above 1, it is too slow for them.

        The model runs on one batch at a time, so it is a limit of its own where cores are plentiful.
        """
        detecting = sum(camera.rate for camera in cameras) * self.detect_s
        reading = sum(camera.reading for camera in cameras)
        return max(detecting, (detecting * min(self.threads, self.cores) + reading) / self.cores)

    def rate_each(self, cameras: int, reading: float) -> float:
        """Returns how many frames per second of each camera can be processed, with `HEADROOM`.

        Args:
            cameras: Number of cameras.
            reading: Cores that reading one of them takes.
        """
        for_model = HEADROOM * self.cores - cameras * reading
        share = min(HEADROOM, for_model / min(self.threads, self.cores))
        return max(0.0, share / (cameras * self.detect_s))


def measure_detection(detector: EdgeDetector, images: Sequence[NDArray[np.uint8]], seconds: float) -> float:
    """Returns the seconds per frame that a batch of images takes; measures for about `seconds`."""
    detector.detect(images)  # the first run of a batch size allocates memory
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        detector.detect(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / len(images)


def describe(capacity: Capacity, cameras: Sequence[CameraLoad]) -> str:
    """Returns one line about what the cameras ask for and what the machine can do; it warns if that is not enough."""
    asked = sum(camera.rate for camera in cameras)
    reading = sum(camera.reading for camera in cameras)
    load = capacity.load(cameras)
    possible = HEADROOM * asked / load if load > 0 else 0.0
    text = (
        f"{plural(len(cameras), 'camera')} {'asks' if len(cameras) == 1 else 'ask'} for "
        f"{plural(_short(asked), 'frame')} per second, this machine processes about {_short(possible)} "
        f"(detection {1e3 * capacity.detect_s:.3g} ms per frame on {plural(capacity.threads, 'thread')}, "
        f"reading {reading:.2g} of {plural(capacity.cores, 'core')})"
    )
    if load <= HEADROOM:
        return text
    if reading >= HEADROOM * capacity.cores:
        return f"{text}: WARNING, too many to decode: choose sub-streams of lower resolution or frame rate"
    each = _short(possible / len(cameras))
    return f"{text}: WARNING, too slow: set fps to at most {each} per camera, use fewer cameras or a faster model"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
