"""The time by which ages are measured."""

from collections.abc import Callable


class AgeClock:
    """A time that a wrong clock of the box never puts ahead, so that nothing is deleted too early.

    While a time server sets the clock of the box, it follows that. Otherwise it continues from the last known time,
    and stands still while the box is off.

    Args:
        steady: Returns seconds; must not jump. Its time is used until another one is known.
        server_time: Returns UTC epoch seconds while a time server sets the clock, else None.

    Attributes:
        certain_until: The last time that came from a time server; 0 without any.
        resumed_at: The time that an earlier process has noted; 0 without any.
    """

    def __init__(self, steady: Callable[[], float], server_time: Callable[[], float | None]) -> None:
        self._steady, self._server_time = steady, server_time
        self._offset = self.certain_until = self.resumed_at = 0.0

    def now(self) -> float:
        """Returns UTC epoch seconds, as far as they are known."""
        return self._steady() + self._offset

    def resume(self, now: float, certain_until: float) -> None:
        """Continues from a time that an earlier process has noted."""
        self._offset, self.certain_until, self.resumed_at = now - self._steady(), certain_until, now

    def error(self) -> float | None:
        """Returns the seconds to be added to `now` to get the time of the time server; None without one."""
        server = self._server_time()
        return None if server is None else server - self.now()

    def correct(self, error: float) -> None:
        """Adds `error`: then the time is certain."""
        self._offset += error
        self.certain_until = self.now()
