"""The rate at which a camera's frames are really processed, and whether the box keeps up with the camera."""

import threading
from collections import deque

WINDOW, MIN_FRAMES = 10.0, 4  # the rate is that of the last 10 s, or of the last frames if there are fewer
CONFIRM = WINDOW  # seconds; a change is reported after it has lasted this long, with no frame from before in the rate ...
CONFIRM_FRAMES = 3.0  # ... or for this many frames at the required rate, if that is longer
RECOVERED = 1.1  # the rate must exceed the required one by this factor to count as sufficient again
# A reader that waits for data for less than this share of its time decodes no faster than the camera sends. Timestamps do not
# tell: some cameras send fewer frames at night, and count as if they sent all.
MIN_IDLE, RECOVERED_IDLE = 0.05, 0.1


class RateMeter:
    """Measures the processed frames of one camera. `add` is called by one thread, `rate` by any."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def add(self, now: float) -> None:
        """Counts a frame, processed at `now` (monotonic)."""
        with self._lock:
            self._times.append(now)
            while len(self._times) > MIN_FRAMES and now - self._times[0] > WINDOW:
                self._times.popleft()

    def reset(self) -> None:
        """Forgets all frames: the camera was lost, and the pause says nothing about its rate."""
        with self._lock:
            self._times.clear()

    def rate(self, now: float) -> float | None:
        """Returns frames per second at `now` (monotonic); None before the second frame."""
        with self._lock:
            if len(self._times) < 2:
                return None
            first, last, count = self._times[0], self._times[-1], len(self._times) - 1
        rate = count / max(last - first, 1e-3)
        return min(rate, 1.0 / (now - last)) if now > last else rate


class RateWatch:
    """Decides when a rate is too low, and when it is sufficient again. A rate near the limit does not flap.

    Args:
        required: Frames per second that are required.

    Attributes:
        is_low: Whether the rate was too low for long enough, and has not recovered since.
    """

    def __init__(self, required: float) -> None:
        self.required = required
        self.is_low = False
        self._changing_since: float | None = None

    def update(self, rate: float | None, now: float) -> bool:
        """Takes the rate at `now` (monotonic; None if unknown); returns whether `is_low` has changed."""
        limit = self.required * (RECOVERED if self.is_low else 1.0)
        if rate is None or (rate < limit) == self.is_low:
            self._changing_since = None
            return False
        if self._changing_since is None:
            self._changing_since = now
        if now - self._changing_since < max(CONFIRM, CONFIRM_FRAMES / self.required):
            return False
        self.is_low, self._changing_since = not self.is_low, None
        return True


class LagWatch:
    """Decides whether a reader falls behind its camera, so that its frames become ever later, or are lost.

    Attributes:
        is_behind: Whether it has waited too little for data for long enough, and has not recovered since.
    """

    def __init__(self) -> None:
        self.is_behind = False
        self._waited: deque[tuple[float, float]] = deque()  # (when, seconds waited by then) in the last `WINDOW`
        self._changing_since: float | None = None

    def reset(self) -> None:
        """Forgets the last `WINDOW`: the camera was lost."""
        self._waited.clear()
        self._changing_since = None

    def update(self, waited: float, now: float) -> bool:
        """Takes the seconds waited so far at `now` (monotonic); returns whether `is_behind` has changed."""
        if self._waited and waited < self._waited[-1][1]:  # another reader
            self.reset()
        self._waited.append((now, waited))
        first, waited_first = self._waited[0]
        if now - first < WINDOW:
            return False
        self._waited.popleft()
        if waited == waited_first:  # no data at all, for which it still waits
            self.reset()
            return False
        idle = (waited - waited_first) / (now - first)
        if (idle < (RECOVERED_IDLE if self.is_behind else MIN_IDLE)) == self.is_behind:
            self._changing_since = None
            return False
        if self._changing_since is None:
            self._changing_since = now
        if now - self._changing_since < CONFIRM:
            return False
        self.is_behind, self._changing_since = not self.is_behind, None
        return True
