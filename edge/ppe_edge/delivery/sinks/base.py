"""The interface of a sink, and its errors."""

from pathlib import Path
from typing import Protocol

from ppe_edge.delivery.messages import Message


class SinkFailed(Exception):  # noqa: N818 - named by what happened
    """The sink is unreachable or did not confirm the message. The same message is tried again before any other.

    Args:
        reason: One line, without passwords.
        outcome_unknown: Whether the message may have arrived nevertheless.
    """

    def __init__(self, reason: str, outcome_unknown: bool) -> None:
        super().__init__(reason)
        self.outcome_unknown = outcome_unknown


class SinkRefused(Exception):  # noqa: N818
    """The sink works but rejects this message. Later messages overtake it, and it is tried again after a while."""


class Sink(Protocol):
    """A destination of messages. Used by one thread only."""

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Sends a message; returns when the receiver has confirmed it. Always returns or raises within a time limit.

        Args:
            message: The message.
            snapshot: The JPEG of its snapshot; most sinks do not send it.

        Raises:
            SinkFailed: The message is not confirmed.
            SinkRefused: The receiver rejects the message because of its content.
        """

    def close(self) -> None:
        """Closes connections and files; returns quickly."""
