"""What every sink promises, and how it says that it could not."""

from pathlib import Path
from typing import Any, Protocol


class SinkFailed(Exception):  # noqa: N818 - named by what happened
    """The sink cannot be reached or does not confirm; the same message is tried again before any other.

    Args:
        reason: One line, without passwords.
        outcome_unknown: The message may have arrived nevertheless.
    """

    def __init__(self, reason: str, outcome_unknown: bool) -> None:
        super().__init__(reason)
        self.outcome_unknown = outcome_unknown


class SinkRefused(Exception):  # noqa: N818
    """The sink works and does not want this message: others go ahead, it is tried again later."""


class Sink(Protocol):
    """Somewhere that messages go. Used by one thread only."""

    def send(self, body: dict[str, Any], snapshot: Path | None) -> None:
        """Returns when the other side has confirmed the message; always returns or raises within a time limit.

        Args:
            body: The message as JSON values.
            snapshot: Its picture, which most sinks leave where it is.

        Raises:
            SinkFailed: Not confirmed.
            SinkRefused: Refused for what is in it.
        """

    def close(self) -> None:
        """Lets go of connections and files; returns quickly."""
