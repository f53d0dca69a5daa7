"""The interface of a sink, and its errors."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from ppe_edge.delivery.messages import Message


class SinkFailed(Exception):  # noqa: N818 - named by what happened
    """The sink is unreachable or did not confirm the message. The same message is tried again before any other.

    Args:
        reason: One line, without passwords; names the likely cause.
        outcome_unknown: Whether the message may have arrived nevertheless.
        reached: Whether the receiver was reached, so that the message itself may be the cause.
        maybe_too_large: Whether the message may pass without the snapshot that was attached to it.
        retry_after_s: Seconds to wait before the next attempt, if the receiver asks for that; None for the usual delay.
    """

    def __init__(
        self,
        reason: str,
        outcome_unknown: bool,
        *,
        reached: bool,
        maybe_too_large: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.outcome_unknown = outcome_unknown
        self.reached = reached
        self.maybe_too_large = maybe_too_large
        self.retry_after_s = retry_after_s


class SinkRefused(Exception):  # noqa: N818
    """The sink works but rejects this message. It is set aside: later messages overtake it, and it is tried again later.

    Args:
        reason: One line, without passwords; names the likely cause.
        maybe_too_large: Whether the message may pass without the snapshot that was attached to it; this is tried first.
    """

    def __init__(self, reason: str, *, maybe_too_large: bool = False) -> None:
        super().__init__(reason)
        self.maybe_too_large = maybe_too_large


class SinkLater(Exception):  # noqa: N818
    """The message is not due yet, or the receiver defers it: later messages overtake it.

    Args:
        delay_s: Seconds until the next attempt, or until the first one after the receiver deferred it; see the dispatcher.
        deferred: One line, without passwords, if the receiver defers it, which counts as a failure; None if it is not due.
    """

    def __init__(self, delay_s: float, deferred: str | None = None) -> None:
        super().__init__(deferred or f"due in {delay_s:.0f} s")
        self.delay_s, self.deferred = delay_s, deferred


class Sink(Protocol):
    """A destination of messages. Used by one thread only."""

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Sends a message; returns when the receiver has confirmed it. Always returns or raises within a time limit.

        Args:
            message: The message.
            snapshot: The file of its snapshot or clip; most sinks do not send it.

        Raises:
            SinkFailed: The message is not confirmed.
            SinkRefused: The receiver rejects the message because of its content.
            SinkLater: The message is not due yet.
        """

    def check(self) -> str:
        """Does what can be done without sending a message: connects, logs in, opens the file.

        Returns:
            What was reached, in a few words without passwords.

        Raises:
            SinkFailed: A message could not be sent now.
        """

    def close(self) -> None:
        """Closes connections and files; returns quickly."""


@runtime_checkable
class IdleSink(Protocol):
    """A sink that has work while there are no messages."""

    def idle(self) -> None:
        """Does it; called about once a second. Always returns or raises within a time limit.

        Raises:
            SinkFailed: The receiver is not reached.
        """
