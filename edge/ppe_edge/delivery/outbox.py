"""The durable outbox in front of all sinks: a message is on the disk before `put` returns."""

import fcntl
import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from ppe_edge.clock import steady_now
from ppe_edge.delivery.held import DeliveryState, Entry, HeldMessages
from ppe_edge.delivery.messages import Alert, AlertClosed, Message, SnapshotReference, close_unseen, parse_message
from ppe_edge.delivery.outbox_config import OutboxConfig
from ppe_edge.delivery.outbox_database import OutboxDatabase
from ppe_edge.delivery.records import Delivery, OutboxStats
from ppe_edge.delivery.retention import Retention
from ppe_edge.delivery.snapshot_folder import SnapshotFolder
from ppe_edge.delivery.storage_report import StorageReport
from ppe_edge.errors import EdgeError
from ppe_yolo.core.words import plural

# After a restart, messages that were set aside are tried again one at a time, since others wait during a failed attempt.
_RETRY_AFTER_RESTART_S = 10.0
_TICK_S = 10.0  # interval at which limits, held messages and reports are checked
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}  # the latter if there is no room for the index of the write-ahead log
_NOT_DURABLE = (
    "the disk is full or broken: alerts are kept in memory only, and a restart loses those that are not delivered yet: "
    "free disk space"
)

_log = logging.getLogger(__name__)


class Outbox:
    """Keeps messages on the disk until every sink has confirmed them. All methods are thread-safe.

    If an earlier process was killed while an alert was open, the alert is closed when the outbox is opened. If the disk is
    already full at that time, the outbox starts empty and keeps messages in memory until there is room, as it does when the
    disk fills up later.

    Args:
        config: Limits.
        state_dir: Folder of the database and of snapshots/.
        sinks: Names of the sinks; each gets every message. Messages for a sink that is no longer named are kept.
        clock: Returns UTC epoch seconds; must not jump, so that setting the wall clock neither delays nor drops messages.

    Raises:
        EdgeError: The folder is not writable, is used by another runtime, or holds a file that is not an outbox.
    """

    def __init__(
        self, config: OutboxConfig, state_dir: Path, sinks: Sequence[str], clock: Callable[[], float] = steady_now
    ) -> None:
        self._config, self._sinks, self._clock = config, tuple(sinks), clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._snapshots = SnapshotFolder(state_dir / "snapshots")
        self._held = HeldMessages()
        self._report = StorageReport()
        self._retention = Retention(config, self._snapshots, self._report, self._log_once)
        self._confirmed: set[tuple[str, str]] = set()  # (sink, id) of rows that could not be deleted on a full disk
        self._not_before: dict[tuple[str, str], float] = {}  # (sink, id) -> time; not kept over a restart
        self._set_aside: set[tuple[str, str]] = set()  # (sink, id)
        self._next_tick = 0.0
        self._last_error = ""
        self._file = state_dir / "outbox.db"
        self._db = OutboxDatabase(None)  # an empty one, until the file can be opened
        self._is_open = False
        self.version = 0
        try:
            self._snapshots.create()
            self._guard = (state_dir / "outbox.lock").open("w")
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._guard.close()
            raise EdgeError(
                file=state_dir,
                problem="another runtime uses this state folder",
                hint="stop it, or give each runtime its own state_dir",
            ) from error
        except OSError as error:
            raise EdgeError(file=state_dir, expected="a writable folder", got=error.strerror) from error
        try:
            self._open()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in _NO_ROOM:
                self._guard.close()
                raise EdgeError(
                    file=self._file, expected="a writable outbox database", got=str(error), hint="move the file away"
                ) from error
            self._last_error = str(error)
            _log.critical("%s: %s: %s", self._file, error, _NOT_DURABLE)

    @property
    def trouble(self) -> str:
        """Why messages are in memory only, in one line; empty if they are on the disk."""
        with self._lock:
            return "" if self._is_open and not len(self._held) else _NOT_DURABLE

    def put(self, message: Message, snapshot: bytes | None = None) -> str:
        """Stores a message for every sink. When this returns, the message is on the disk, unless the disk is full.

        A full disk raises no exception: the snapshot is left out, and the message is kept in memory
        (`OutboxConfig.max_held`) until there is room. Meanwhile it is delivered from memory.

        Args:
            message: The message.
            snapshot: The snapshot of an `Alert` as JPEG.

        Returns:
            The id of the message.
        """
        now = self._clock()
        with self._lock:
            size = 0
            if snapshot is not None and isinstance(message, Alert):
                reference = self._write_snapshot(f"{message.id}.jpg", snapshot)
                message = message.model_copy(update={"snapshot": reference})
                size = len(snapshot) if reference else 0
            self._store(self._entry(message, now, size))
            self._tick(now)
            self.wake()
        return message.id

    def claim(self, sink: str, skip: Collection[str] = ()) -> Delivery | None:
        """Returns the oldest message that the sink has not confirmed, or None; marks it on the disk as being tried.

        Args:
            sink: Name of the sink.
            skip: Ids of messages to pass over.
        """
        now = self._clock()

        def is_due(message_id: str) -> bool:
            key = (sink, message_id)
            return key not in self._confirmed and message_id not in skip and self._not_before.get(key, 0.0) <= now

        with self._lock:
            self._tick(now)
            while (row := self._db.first_waiting(sink, is_due)) is not None:
                message = self._parse(row.body)
                if message is None:  # stays in the database, and is counted as waiting
                    self._not_before[(sink, row.message_id)] = float("inf")
                    continue
                uncertain = row.uncertain
                try:
                    self._db.mark_tried(sink, row.sequence)
                except sqlite3.Error as error:
                    uncertain = True  # a later process would not know of this attempt, so the message is marked now
                    self._log_once(error)
                return self._delivery(sink, message, row.attempts, uncertain)
            entry = self._held.first_waiting(sink, is_due)
            if entry is None:
                return None
            state = entry.waiting[sink]
            entry.waiting[sink] = DeliveryState(state.attempts + 1, True)
            return self._delivery(sink, entry.message, state.attempts, state.uncertain)

    def ack(self, delivery: Delivery) -> None:
        """Notes that the sink has confirmed the message."""
        with self._lock:
            key = (delivery.sink, delivery.id)
            self._not_before.pop(key, None)
            self._set_aside.discard(key)
            if not self._held.confirm(*key):
                self._confirmed.add(key)
                self._delete_confirmed()

    def nack(self, delivery: Delivery, outcome_unknown: bool, delay_s: float = 0.0) -> None:
        """Notes that the sink has not confirmed the message.

        Args:
            delivery: The result of `claim`.
            outcome_unknown: Whether the sink may have the message; then the next attempt is marked as redelivered.
            delay_s: Seconds until the next attempt; later messages overtake it meanwhile.
        """
        uncertain = outcome_unknown or delivery.redelivered
        with self._lock:
            if delay_s > 0:
                self._not_before[(delivery.sink, delivery.id)] = self._clock() + delay_s
            entry = self._held.find(delivery.id)
            if entry is not None and delivery.sink in entry.waiting:
                entry.waiting[delivery.sink].uncertain = uncertain
            try:
                self._db.set_uncertain(delivery.sink, delivery.id, uncertain)
            except sqlite3.Error as error:  # then it stays marked, which is safe
                self._log_once(error)

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
                try:
                    self._db.note_set_aside(*key)
                except sqlite3.Error as error:  # then it is tried once more after a restart
                    self._log_once(error)
                self._report.count(
                    "message_set_aside", detail=f"{delivery.sink}: {delivery.message.kind} {delivery.id}: {reason}"
                )

    def set_aside_messages(self, sink: str) -> set[str]:
        """Returns the ids of the messages that the sink does not take."""
        with self._lock:
            return {message for name, message in self._set_aside if name == sink}

    def note_seen(self, violations: Mapping[str, float]) -> None:
        """Stores when open violations were last seen (id -> UTC epoch seconds), for the closing message after a crash."""
        with self._lock:
            try:
                self._db.note_seen(violations)
            except sqlite3.Error as error:
                self._log_once(error)

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
            held = [entry.message for entry in reversed(list(self._held))]
            stored = [self._parse(body) for body in self._db.recent(count)]
        return [*held, *(message for message in stored if message is not None)][:count]

    def latest(self) -> float:
        """Returns when the newest message on the disk was created, UTC epoch seconds; 0 if there is none."""
        with self._lock:
            return self._db.latest()

    def snapshot_path(self, file: str) -> Path | None:
        """Returns the path of a snapshot that an alert refers to; None if it is unknown or was dropped."""
        with self._lock:
            held = any(entry.snapshot_bytes and file == entry.snapshot_file for entry in self._held)
            return self._snapshots.path / file if held or self._db.has_snapshot(file) else None

    def stats(self) -> OutboxStats:
        """Returns what the outbox holds now."""
        with self._lock:
            pending = Counter(self._db.pending())
            pending.update(self._held.sinks())
            pending.subtract(sink for sink, _ in self._confirmed)
            return OutboxStats(
                pending={**dict.fromkeys(self._sinks, 0), **pending},
                set_aside={**dict.fromkeys(self._sinks, 0), **Counter(sink for sink, _ in self._set_aside)},
                held=len(self._held),
                stored=self._db.count_messages(),
                snapshots=len(self._db.snapshots()),
                bytes=self._db.bytes,
                dropped=dict(self._report.totals),
            )

    def close(self) -> None:
        """Stores the messages that are still in memory, if there is room now, and closes the database."""
        with self._lock:
            self._next_tick = 0.0
            self._tick(self._clock())
            if len(self._held):
                _log.error("%s in memory only, lost: the disk is full", plural(len(self._held), "message"))
            self._db.close()
            self._guard.close()

    def _open(self) -> None:
        """Opens the database file; fails if there is still no room."""
        database = OutboxDatabase(self._file)
        try:
            known = {name for name, _, _ in database.snapshots()}
        except sqlite3.Error:
            database.close()
            raise
        self._db.close()
        self._db, self._is_open = database, True
        self._snapshots.delete_unknown(known | {entry.snapshot_file for entry in self._held})
        for number, key in enumerate(key for key in database.set_aside() if key[0] in self._sinks):
            self._set_aside.add(key)
            self._not_before[key] = self._clock() + (number + 1) * _RETRY_AFTER_RESTART_S
        self._close_open_alerts()

    def _close_open_alerts(self) -> None:
        """Closes the alerts that an earlier process left open."""
        now = self._clock()
        for body, last_seen in self._db.open_alerts():
            alert = self._parse(body)
            if not isinstance(alert, Alert):
                continue
            closed = close_unseen(alert, last_seen)
            _log.warning("%s: closing the alert of track %d, which was open when the box was killed", alert.camera, alert.track)
            self._store(self._entry(closed, now))

    def _entry(self, message: Message, now: float, snapshot_bytes: int = 0) -> Entry:
        waiting = {sink: DeliveryState() for sink in self._sinks}
        return Entry(message=message, created=now, snapshot_bytes=snapshot_bytes, waiting=waiting)

    def _parse(self, body: str) -> Message | None:
        try:
            return parse_message(body)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]["msg"]
            self._log_once(f"{self._file}: a stored message cannot be read, and stays where it is: {problem}: {body[:100]}")
            return None

    def _delivery(self, sink: str, message: Message, attempts: int, redelivered: bool) -> Delivery:
        changes: dict[str, object] = {"redelivered": redelivered}
        snapshot = None
        if isinstance(message, Alert) and message.snapshot is not None:
            snapshot = self.snapshot_path(message.snapshot.file)
            if snapshot is None:
                changes["snapshot"] = None
        return Delivery(sink=sink, message=message.model_copy(update=changes), attempts=attempts, snapshot=snapshot)

    def _store(self, entry: Entry) -> None:
        """Writes to the disk. On a full disk, drops the oldest snapshots and tries again; then keeps the message in memory."""
        if self._is_open and not len(self._held):  # otherwise the message would overtake those in memory
            for last_try in (False, True):
                try:
                    self._insert(entry)
                    return
                except sqlite3.Error as error:
                    self._log_once(error)
                    is_full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
                    if last_try or not is_full or not self._retention.drop_snapshots(self._db, self._db.bytes // 10):
                        break
        if not len(self._held):
            self._report.count("messages_held")
            if self._is_open:
                _log.critical("%s: %s", self._file, _NOT_DURABLE)
        for lost in self._held.add(entry, self._config.max_held):
            _log.error("message %s is lost: the disk is full, and so is the memory of the outbox", lost.message.id)
            self._report.count("alerts_dropped")

    def _insert(self, entry: Entry) -> None:
        message = entry.message
        self._db.insert(
            message_id=message.id,
            created=entry.created,
            body=message.to_json(),
            waiting={sink: (state.attempts, state.uncertain) for sink, state in entry.waiting.items()},
            snapshot=(entry.snapshot_file, entry.snapshot_bytes) if entry.snapshot_bytes else None,
            opens=(message.violation, message.time.timestamp()) if isinstance(message, Alert) else None,
            closes=message.violation if isinstance(message, AlertClosed) else None,
        )
        self._last_error = ""

    def _write_snapshot(self, file: str, jpeg: bytes) -> SnapshotReference | None:
        try:
            return self._snapshots.write(file, jpeg)
        except OSError as error:
            self._log_once(error)
            self._report.count("snapshot_not_stored")
            return None

    def _tick(self, now: float) -> None:
        """Enforces the limits, moves held messages to the disk and reports storage problems."""
        if now < self._next_tick and not self._retention.is_exceeded(self._db):
            return
        self._next_tick = now + _TICK_S
        try:
            if not self._is_open:
                self._open()
            if self._held.store(self._insert):
                _log.warning("%s: there is room again, all messages are on the disk", self._file)
            self._delete_confirmed()
            self._retention.enforce(self._db, now)
            self._set_aside = {key for key in self._set_aside if self._held.find(key[1]) or self._db.is_waiting(*key)}
            for event in self._report.due(now):
                self._insert(self._entry(event, now))
                self._report.mark_reported(event)
                _log.warning("storage: %s: %d%s", event.event, event.count, f" ({event.detail})" if event.detail else "")
        except sqlite3.Error as error:
            self._log_once(error)

    def _delete_confirmed(self) -> None:
        """Deletes confirmed deliveries; if the disk is too full for that, they stay in `_confirmed`."""
        if not self._confirmed:
            return
        try:
            self._db.confirm(self._confirmed)
            self._confirmed.clear()
        except sqlite3.Error as error:
            self._log_once(error)

    def _log_once(self, error: Exception | str) -> None:
        """Logs a problem, unless it is the same as the last one."""
        if str(error) != self._last_error:
            _log.warning("outbox: %s", error)
        self._last_error = str(error)
