"""What the outbox returns."""

from dataclasses import dataclass
from pathlib import Path

from ppe_edge.delivery.messages import Message, StorageProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message on its way to one sink.

    Attributes:
        sink: Name of the sink.
        message: The message; `redelivered` and `snapshot` are up to date.
        attempts: Number of earlier attempts.
        snapshot: File of the snapshot or clip, None if there is none.
    """

    sink: str
    message: Message
    attempts: int
    snapshot: Path | None

    @property
    def id(self) -> str:
        """Id of the message."""
        return self.message.id

    @property
    def redelivered(self) -> bool:
        """Whether the outcome of an earlier attempt is unknown, so that the sink may have the message already."""
        return self.message.redelivered


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStats:
    """Content of the outbox, for health checks and metrics.

    Attributes:
        pending: Sink -> number of messages that it has not confirmed.
        set_aside: Sink -> number of these that it does not take; see `Outbox.set_aside`.
        held: Messages in memory only, because the disk is full.
        stored: Messages on the disk, including delivered ones.
        snapshots: Snapshots on the disk.
        bytes: Size of messages and snapshots on the disk.
        dropped: Number of each storage problem since the start.
    """

    pending: dict[str, int]
    set_aside: dict[str, int]
    held: int
    stored: int
    snapshots: int
    bytes: int
    dropped: dict[StorageProblem, int]
