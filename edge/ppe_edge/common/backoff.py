"""Delays between attempts."""

import random
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter, so that many boxes do not reconnect at the same moment.

    Args:
        first_s: Upper bound of the first delay in seconds; doubled with each failure.
        cap_s: Upper bound of all delays in seconds.
        uniform: Draws a number between two bounds.
    """

    def __init__(self, first_s: float, cap_s: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._first_s, self._cap_s, self._uniform = first_s, cap_s, uniform
        self._failures = 0

    def next(self) -> float:
        """Returns the delay after one more failure, in seconds."""
        longest = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._uniform(0.0, longest)

    def reset(self) -> None:
        """Notes a success: the next failure starts with a short delay again."""
        self._failures = 0
