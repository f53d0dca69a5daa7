"""Decides when a camera has failed for so long that somebody must look after it."""

from typing import Literal, NamedTuple

WORKS_AFTER = 60.0  # seconds; a camera that fails again sooner has not worked meanwhile


class Attention(NamedTuple):
    """What must be reported of a camera, and for how many seconds it has not worked reliably."""

    kind: Literal["needs_attention", "works_again"]
    failed_s: float


class AttentionWatch:
    """Watches whether a camera works. One that fails again and again is reported once, not each time."""

    def __init__(self) -> None:
        self._failed_since: float | None = None
        self._works_since: float | None = None
        self._is_reported = False

    def update(self, works: bool, now: float, after_s: float) -> Attention | None:
        """Takes the state of the camera; returns what must be reported.

        Args:
            works: Whether it shows its scene at the moment.
            now: Monotonic time.
            after_s: Seconds of failure after which it needs attention. Once that is reported, it must work for as long.
        """
        if not works:
            self._works_since = None
            if self._failed_since is None:
                self._failed_since = now
            failed_s = now - self._failed_since
            if self._is_reported or failed_s < after_s:
                return None
            self._is_reported = True
            return Attention("needs_attention", failed_s)
        if self._works_since is None:
            self._works_since = now
        steady_s = max(WORKS_AFTER, after_s) if self._is_reported else WORKS_AFTER
        if self._failed_since is None or now - self._works_since < steady_s:
            return None
        failed_s, was_reported = self._works_since - self._failed_since, self._is_reported
        self._failed_since, self._is_reported = None, False
        return Attention("works_again", failed_s) if was_reported else None
