"""Two clocks: a steady one for the rules, and the wall clock, which may be set at any time, for messages.

A box without a battery-backed clock starts with a wrong time and gets the right one from the network, minutes later or never.
"""

import ctypes
import time

DAY_S = 86400.0
SET_AFTER = 1_735_689_600.0  # 2025-01-01; an earlier time means that the clock was never set
STEP = 1.0  # seconds; a larger change of the correction is a clock that was set, not one that is being adjusted

_ANCHOR = time.time() - time.monotonic()  # of this process
_TIMEX_BYTES = 256  # more than any `struct timex`
_UNSYNCHRONISED = 5  # TIME_ERROR, see adjtimex(2)
_passed = 0.0  # a time by the wall clock that has passed, as an earlier process recorded it


def steady_time(monotonic: float) -> float:
    """Returns the time at a monotonic time: epoch seconds by the wall clock as it was set when the process started."""
    return _ANCHOR + monotonic


def steady_now() -> float:
    """Returns the steady time now; unlike `time.time`, it neither jumps nor runs backwards while the process runs."""
    return steady_time(time.monotonic())


def current_correction() -> float:
    """Returns the seconds to be added to a steady time to get the time by the wall clock as it is set now."""
    return time.time() - steady_now()


def server_now() -> float | None:
    """Returns the time by the wall clock, UTC epoch seconds, while a time server sets it; None without one."""
    return time.time() if _is_synchronised() else None


def note_passed(wall: float) -> None:
    """Notes a time that has passed, in UTC epoch seconds. A clock that shows an earlier one has lost its time."""
    global _passed
    _passed = max(_passed, wall)


def is_set(wall: float) -> bool:
    """Whether a time by the wall clock can be right.

    It cannot be before `SET_AFTER`. A time before `note_passed` counts only if the kernel says that the clock follows a time
    server: then the clock was wrong earlier, when that time was recorded.
    """
    return wall >= SET_AFTER and (wall >= _passed - STEP or _is_synchronised())


def _is_synchronised() -> bool:
    """Whether the kernel says that a time server sets the clock; False where that is unknown."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    return 0 <= state < _UNSYNCHRONISED
