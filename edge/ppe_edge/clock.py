"""Two clocks: a steady one for the rules, and the wall clock, which may be set at any time, for messages.

A box without a battery-backed clock starts with a wrong time and gets the right one from the network, minutes later or never.
"""

import time

SET_AFTER = 1_735_689_600.0  # 2025-01-01; an earlier time means that the clock was never set
STEP = 1.0  # seconds; a larger change of the correction is a clock that was set, not one that is being adjusted

_ANCHOR = time.time() - time.monotonic()  # of this process


def steady_time(monotonic: float) -> float:
    """Returns the time at a monotonic time: epoch seconds by the wall clock as it was set when the process started."""
    return _ANCHOR + monotonic


def steady_now() -> float:
    """Returns the steady time now; unlike `time.time`, it neither jumps nor runs backwards while the process runs."""
    return steady_time(time.monotonic())


def current_correction() -> float:
    """Returns the seconds to be added to a steady time to get the time by the wall clock as it is set now."""
    return time.time() - steady_now()


def is_set(wall: float) -> bool:
    """Whether a time by the wall clock is possible."""
    return wall >= SET_AFTER
