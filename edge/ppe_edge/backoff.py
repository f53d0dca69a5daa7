"""How long to wait before the next attempt."""

import random
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter: many boxes do not come back at one moment.

    Args:
        first_s: The longest first wait, seconds; doubled with each failure.
        cap_s: Never longer than this.
        uniform: Draws between two numbers.
    """

    def __init__(self, first_s: float, cap_s: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._first_s, self._cap_s, self._uniform = first_s, cap_s, uniform
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        longest = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._uniform(0.0, longest)

    def reset(self) -> None:
        """It has worked: the next failure waits shortly again."""
        self._failures = 0
