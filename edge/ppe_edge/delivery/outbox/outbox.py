"""The durable outbox in front of all sinks: a message is on the disk before `put` returns."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from ppe_edge.common.clock import steady_now
from ppe_edge.delivery.messages import Message
from ppe_edge.delivery.outbox.age_clock import AgeClock
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.message_store import MessageStore
from ppe_edge.delivery.outbox.records import Delivery, OutboxStats

# After a restart, messages that were set aside are tried again one at a time, since others wait during a failed attempt.
_RETRY_AFTER_RESTART_S = 10.0
_TICK_S = 10.0  # interval at which limits, held messages and reports are checked


class Outbox:
    """Keeps messages on the disk until every sink has confirmed them. All methods are thread-safe.

    Args:
        config: Limits.
        state_dir: Folder of the database and of snapshots/.
        sinks: Names of the sinks; each gets every message. Messages for a sink that is no longer named are kept.
        clock: Returns UTC epoch seconds; must not jump, so that setting the wall clock delays no message.
        server_time: Returns UTC epoch seconds while a time server sets the wall clock, else None; see `AgeClock`.

    Raises:
        EdgeError: The folder is not writable, is used by another runtime, or holds a database that cannot be opened.
    """

    def __init__(
        self,
        config: OutboxConfig,
        state_dir: Path,
        sinks: Sequence[str],
        clock: Callable[[], float] = steady_now,
        server_time: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._clock, self._ages = clock, AgeClock(clock, server_time)
        self._lock = threading.RLock()  # guards everything below; its holder takes no other lock
        self._changed = threading.Condition(self._lock)  # notified when `version` changes
        self._not_before: dict[tuple[str, str], float] = {}  # (sink, id) -> time; not kept over a restart
        self._set_aside: set[tuple[str, str]] = set()  # (sink, id)
        self._next_tick = 0.0
        self.version = 0
        self._store = MessageStore(config, state_dir, sinks, self._ages)
        self._restore_set_aside()

    @property
    def trouble(self) -> str:
        """Why messages are in memory only, in one line; empty if they are on the disk."""
        with self._lock:
            return self._store.trouble

    def put(self, message: Message, snapshot: bytes | None = None) -> str:
        """Stores a message for every sink. When this returns, the message is on the disk, unless the disk is full.

        A full disk raises no exception: the snapshot is left out, and the message is kept in memory
        (`OutboxConfig.max_held`) until there is room. Meanwhile it is delivered from memory.

        Args:
            message: The message.
            snapshot: The snapshot of an `Alert` as JPEG, or the video of an `AlertClip` as MP4.

        Returns:
            The id of the message.
        """
        with self._lock:
            self._store.put(message, snapshot)
            self._tick(self._clock())
            self.wake()
        return message.id

    def claim(self, sink: str, skip: Collection[str] = ()) -> Delivery | None:
        """Returns the oldest message that the sink has not confirmed, or None; marks it on the disk as being tried.

        Args:
            sink: Name of the sink.
            skip: Ids of messages to pass over.
        """
        now = self._clock()
        with self._lock:
            self._tick(now)
            return self._store.claim(
                sink, lambda message_id: message_id not in skip and self._not_before.get((sink, message_id), 0.0) <= now
            )

    def ack(self, delivery: Delivery) -> None:
        """Notes that the sink has confirmed the message."""
        with self._lock:
            key = (delivery.sink, delivery.id)
            self._not_before.pop(key, None)
            self._set_aside.discard(key)
            self._store.confirm(*key)

    def nack(self, delivery: Delivery, outcome_unknown: bool, delay_s: float = 0.0) -> None:
        """Notes that the sink has not confirmed the message.

        Args:
            delivery: The result of `claim`.
            outcome_unknown: Whether the sink may have the message; then the next attempt is marked as redelivered.
            delay_s: Seconds until the next attempt; later messages overtake it meanwhile.
        """
        with self._lock:
            if delay_s > 0:
                self._not_before[(delivery.sink, delivery.id)] = self._clock() + delay_s
            self._store.set_uncertain(delivery.sink, delivery.id, outcome_unknown or delivery.redelivered)

    def set_aside(self, delivery: Delivery, reason: str, outcome_unknown: bool, delay_s: float) -> None:
        """Notes that the sink does not take this message, so that it does not delay the others.

        The message stays on the disk and counts as waiting. It is tried again after `delay_s`, and after a restart, which may
        have changed the sink's settings. A storage event reports it to every sink.

        Args:
            delivery: The result of `claim`.
            reason: Why the sink does not take it, in one line.
            outcome_unknown: See `nack`.
            delay_s: Seconds until the next attempt.
        """
        key = (delivery.sink, delivery.id)
        with self._lock:
            self.nack(delivery, outcome_unknown, delay_s)
            if key not in self._set_aside:
                self._set_aside.add(key)
                self._store.note_set_aside(*key)
                self._store.report.count(
                    "message_set_aside", detail=f"{delivery.sink}: {delivery.message.kind} {delivery.id}: {reason}"
                )

    def set_aside_messages(self, sink: str) -> set[str]:
        """Returns the ids of the messages that the sink does not take."""
        with self._lock:
            return {message for name, message in self._set_aside if name == sink}

    def note_seen(self, violations: Mapping[str, float]) -> None:
        """Stores when open violations were last seen (id -> UTC epoch seconds), for the closing message after a crash."""
        with self._lock:
            self._store.note_seen(violations)

    def wake(self) -> None:
        """Ends every `wait`."""
        with self._changed:
            self.version += 1
            self._changed.notify_all()

    def wait(self, version: int, timeout_s: float) -> None:
        """Waits until `version` has changed, by `put` or `wake`; at most `timeout_s` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, timeout_s)

    def recent(self, count: int) -> list[Message]:
        """Returns the latest messages, newest first, including delivered ones."""
        with self._lock:
            return self._store.recent(count)

    def resumed_at(self) -> float:
        """Returns the last time that an earlier process has noted, UTC epoch seconds; 0 without any."""
        return self._ages.resumed_at

    def age_time(self) -> float:
        """Returns the time by which ages are measured, UTC epoch seconds; see `AgeClock`."""
        with self._lock:
            return self._ages.now()

    def snapshot_path(self, file: str) -> Path | None:
        """Returns the path of a snapshot or clip that a message refers to; None if it is unknown or was dropped."""
        with self._lock:
            return self._store.snapshot_path(file)

    def stats(self) -> OutboxStats:
        """Returns what the outbox holds now."""
        with self._lock:
            return self._store.stats(Counter(sink for sink, _ in self._set_aside))

    def close(self) -> None:
        """Stores the messages that are still in memory, if there is room now, and closes the database."""
        with self._lock:
            self._next_tick = 0.0
            self._tick(self._clock())
            self._store.close()

    def _tick(self, now: float) -> None:
        """Maintains the store from time to time, and whenever it is too large."""
        if now < self._next_tick and not self._store.is_too_large:
            return
        self._next_tick = now + _TICK_S
        was_open = self._store.is_open
        self._store.maintain(now)
        if not was_open:
            self._restore_set_aside()
        self._set_aside = {key for key in self._set_aside if self._store.is_waiting(*key)}

    def _restore_set_aside(self) -> None:
        for number, key in enumerate(self._store.set_aside_before):
            self._set_aside.add(key)
            self._not_before[key] = self._clock() + (number + 1) * _RETRY_AFTER_RESTART_S
