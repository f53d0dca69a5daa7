"""How far the scores of a camera's last day are from those of the validation images."""

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.score_histogram import BINS, population_stability_index, score_histogram

SAMPLE_S = 3.0  # seconds between two frames whose scores are counted: neighbouring frames show the same heads
HOUR, HOURS = 3600.0, 24
MIN_DETECTIONS = 200  # with fewer in the last day, chance alone moves the index


class DriftMeter:
    """Counts the scores of one camera over the last day. `add` is called by one thread, `index` by any.

    Args:
        expected: Histogram of the validation images' scores, from the model contract.
    """

    def __init__(self, expected: Sequence[int]) -> None:
        self.expected = tuple(expected)
        self._hours: deque[NDArray[np.int64]] = deque(maxlen=HOURS)
        self._hour = -1  # number of the newest hour
        self._next = 0.0
        self._lock = threading.Lock()

    def add(self, scores: NDArray[np.float32], now: float) -> None:
        """Counts the scores of a frame if the last one was long enough ago; `now` is its time, seconds, steady."""
        if 0 < self._next - now <= SAMPLE_S:
            return
        self._next = now + SAMPLE_S
        hour = int(now // HOUR)
        with self._lock:
            passed = hour - self._hour if self._hours and hour >= self._hour else HOURS
            for _ in range(min(passed, HOURS)):  # hours without frames count, too
                self._hours.append(np.zeros(BINS, dtype=np.int64))
            self._hour = hour
            self._hours[-1] += score_histogram(scores)

    def index(self) -> float | None:
        """Returns the population stability index of the last day; None with fewer than `MIN_DETECTIONS`."""
        with self._lock:
            counts = [int(count) for count in sum(self._hours, start=np.zeros(BINS, dtype=np.int64))]
        return population_stability_index(self.expected, counts) if sum(counts) >= MIN_DETECTIONS else None
