"""Positions of frames that only ever increase, from timestamps that may jump back, repeat or be missing."""

MAX_GAP_S = 60.0  # a longer gap is a false timestamp, unless frames are this rare ...
MAX_GAP_INTERVALS = 10.0  # ... which this many usual intervals tell
MIN_STEP_S = 1e-3  # timestamps that are closer than this are equal


class Timeline:
    """Turns the timestamps of a video file into positions. Every position is larger than the one before.

    After a jump back (files that were joined) or far ahead (a counter that wrapped), the video continues one interval after the
    last frame. A frame without a timestamp, or with that of the last frame, comes one interval after it too.

    Args:
        interval: Expected seconds between frames, until the first timestamps tell.

    Attributes:
        is_certain: Whether all timestamps so far were usable. Afterwards, positions are estimates.
    """

    def __init__(self, interval: float) -> None:
        self.is_certain = True
        self._interval = interval
        self._last: float | None = None  # the last timestamp
        self._offset = 0.0  # from timestamp to position
        self._position: float | None = None

    def position(self, timestamp: float | None) -> float:
        """Returns the position of the next frame, seconds from the first one."""
        if self._position is None:
            self._position = 0.0
            self._last, self._offset = timestamp, -(timestamp or 0.0)
            self.is_certain = timestamp is not None
            return 0.0
        step = None if timestamp is None or self._last is None else timestamp - self._last
        self._last = self._last if timestamp is None else timestamp
        if (
            timestamp is not None
            and step is not None
            and MIN_STEP_S <= step <= max(MAX_GAP_S, MAX_GAP_INTERVALS * self._interval)
        ):
            self._interval = step
            position = timestamp + self._offset
            # repeated and missing timestamps may have been spread beyond this one
            self._position = position if position > self._position else self._position + step / 2
            return self._position
        self.is_certain = False
        self._position += self._interval
        if timestamp is not None and (step is None or abs(step) >= MIN_STEP_S):
            self._offset = self._position - timestamp
        return self._position
