"""Messages that are in memory only, because the disk is full."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ppe_edge.delivery.messages import Message, attachment_name


@dataclass(slots=True)
class DeliveryState:
    """State of a message's delivery to one sink.

    Attributes:
        attempts: Number of attempts so far.
        uncertain: Whether one of them may have succeeded.
    """

    attempts: int = 0
    uncertain: bool = False


@dataclass(slots=True, kw_only=True)
class HeldMessage:
    """A message and the sinks that have not confirmed it.

    Attributes:
        message: The message.
        created: When it was put, UTC epoch seconds.
        snapshot_bytes: Size of its snapshot or clip, 0 if it has none.
        waiting: Sink -> state of the delivery.
    """

    message: Message
    created: float
    snapshot_bytes: int = 0
    waiting: dict[str, DeliveryState] = field(default_factory=dict)

    @property
    def snapshot_file(self) -> str:
        """File name of the snapshot or clip; meaningful only if there is one."""
        return attachment_name(self.message)


class HeldMessages:
    """A queue of entries, oldest first. Not thread-safe."""

    def __init__(self) -> None:
        self._entries: deque[HeldMessage] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[HeldMessage]:
        return iter(self._entries)

    def add(self, entry: HeldMessage, limit: int) -> list[HeldMessage]:
        """Appends an entry; returns the oldest ones, which no longer fit into `limit`."""
        self._entries.append(entry)
        return [self._entries.popleft() for _ in range(len(self._entries) - limit)]

    def store(self, insert: Callable[[HeldMessage], None]) -> int:
        """Moves all entries to the disk, oldest first; stops at the first error of `insert`.

        Returns:
            The number of entries moved.
        """
        moved = 0
        while self._entries:
            insert(self._entries[0])
            self._entries.popleft()
            moved += 1
        return moved

    def find(self, message_id: str) -> HeldMessage | None:
        """Returns the entry with this id."""
        return next((entry for entry in self._entries if entry.message.id == message_id), None)

    def first_waiting(self, sink: str, is_due: Callable[[str], bool]) -> HeldMessage | None:
        """Returns the oldest entry that waits for a sink and whose id `is_due`."""
        return next((entry for entry in self._entries if sink in entry.waiting and is_due(entry.message.id)), None)

    def confirm(self, sink: str, message_id: str) -> bool:
        """Notes that a sink has confirmed a message; returns False if the message is not held."""
        entry = self.find(message_id)
        if entry is None:
            return False
        entry.waiting.pop(sink, None)
        if not entry.waiting:
            self._entries.remove(entry)
        return True

    def sinks(self) -> Iterable[str]:
        """Yields a sink's name for each message that it has not confirmed."""
        return (sink for entry in self._entries for sink in entry.waiting)
