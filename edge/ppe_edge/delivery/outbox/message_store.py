"""Messages, snapshots and clips on the disk, or messages in memory while the disk is full or broken."""

import fcntl
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from ppe_edge.common.clock import STEP
from ppe_edge.common.damaged import is_damaged, put_away
from ppe_edge.delivery.messages import (
    Alert,
    AlertClip,
    AlertClosed,
    ClipReference,
    Message,
    SnapshotReference,
    attachment_name,
    close_unseen,
    parse_message,
)
from ppe_edge.delivery.outbox.age_clock import AgeClock
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.database import OutboxDatabase, Waiting
from ppe_edge.delivery.outbox.held import DeliveryState, HeldMessage, HeldMessages
from ppe_edge.delivery.outbox.records import Delivery, OutboxStats
from ppe_edge.delivery.outbox.retention import Retention
from ppe_edge.delivery.outbox.snapshot_folder import SnapshotFolder
from ppe_edge.delivery.outbox.storage_report import StorageReport
from ppe_edge.errors import EdgeError
from ppe_yolo.core.words import plural

_NOTE_INTERVAL_S = 3600.0  # between notes of the time, by which a process that was killed was behind at most
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}  # the latter if there is no room for the index of the write-ahead log
_NOT_DURABLE = (
    "the disk is full or broken: alerts are kept in memory only, and a restart loses those that are not delivered yet: "
    "free disk space"
)

_log = logging.getLogger(__name__)


class MessageStore:
    """Keeps messages until every sink has confirmed them. Not thread-safe.

    If an earlier process was killed while an alert was open, the alert is closed when the database is opened. If the disk is
    already full at that time, the store starts empty and keeps messages in memory until there is room, as it does when the
    disk fills up later. A database that is damaged is put away, and replaced by an empty one. Apart from that, an error of the
    disk is logged, and raised by reading only.

    Args:
        config: Limits.
        state_dir: Folder of the database and of snapshots/.
        sinks: Names of the sinks; each gets every message. Messages for a sink that is no longer named are kept.
        ages: The time by which they are dropped as too old.

    Attributes:
        report: Counts what is dropped or cannot be stored.
        is_open: Whether the database is open.
        set_aside_before: (sink, id) of the messages that a sink did not take when the database was opened, oldest first.

    Raises:
        EdgeError: The folder is not writable, is used by another runtime, or holds a database that cannot be opened.
    """

    def __init__(self, config: OutboxConfig, state_dir: Path, sinks: Sequence[str], ages: AgeClock) -> None:
        self._config, self._sinks, self._ages = config, tuple(sinks), ages
        self._next_note = 0.0  # by `ages`
        self._snapshots = SnapshotFolder(state_dir / "snapshots")
        self._held = HeldMessages()
        self.report = StorageReport()
        self._retention = Retention(config, self._snapshots, self.report, self._handle_error)
        self._confirmed: set[tuple[str, str]] = set()  # (sink, id) of rows that could not be deleted on a full disk
        self._unreadable: set[str] = set()  # ids of messages that stay in the database, and count as waiting
        self._last_error = ""
        self._file = state_dir / "outbox.db"
        self._db = OutboxDatabase(None)  # an empty one, until the file can be opened
        self.is_open = False
        self._was_open = False  # by this process
        self.set_aside_before: list[tuple[str, str]] = []
        self._guard = self._lock_folder(state_dir)
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
        return "" if self.is_open and not len(self._held) else _NOT_DURABLE

    @property
    def is_too_large(self) -> bool:
        """Whether the limit of the size is exceeded."""
        return self._retention.is_exceeded(self._db)

    def put(self, message: Message, snapshot: bytes | None = None) -> None:
        """Stores a message for every sink; see `Outbox.put`."""
        size = 0
        if snapshot is not None and isinstance(message, Alert | AlertClip):
            file = attachment_name(message)
            sha256 = self._write_snapshot(file, snapshot)
            if sha256 is not None:
                size = len(snapshot)
                if isinstance(message, Alert):
                    message = message.model_copy(update={"snapshot": SnapshotReference(file=file, sha256=sha256)})
                else:
                    message = message.model_copy(update={"clip": ClipReference(file=file, sha256=sha256)})
        self._store(self._entry(message, size))

    def claim(self, sink: str, is_due: Callable[[str], bool]) -> Delivery | None:
        """Returns the oldest message that waits for a sink and whose id is due; marks it as being tried."""

        def is_possible(message_id: str) -> bool:
            return (sink, message_id) not in self._confirmed and message_id not in self._unreadable and is_due(message_id)

        while (row := self._first_waiting(sink, is_possible)) is not None:
            message = self._parse(row.body)
            if message is None:
                self._unreadable.add(row.message_id)
                continue
            uncertain = row.uncertain
            try:
                self._db.mark_tried(sink, row.sequence)
            except sqlite3.Error as error:
                uncertain = True  # a later process would not know of this attempt, so the message is marked now
                self._handle_error(error)
            return self._delivery(sink, message, DeliveryState(row.attempts, uncertain))
        entry = self._held.first_waiting(sink, is_possible)
        if entry is None:
            return None
        state = entry.waiting[sink]
        entry.waiting[sink] = DeliveryState(state.attempts + 1, True)
        return self._delivery(sink, entry.message, state)

    def _delivery(self, sink: str, message: Message, before: DeliveryState) -> Delivery:
        """Brings a message up to date: after attempts whose outcome is unknown, and if its snapshot or clip was dropped."""
        changes: dict[str, object] = {"redelivered": before.uncertain}
        snapshot = None
        name = "clip" if isinstance(message, AlertClip) else "snapshot"
        reference = getattr(message, name, None)
        if reference is not None:
            snapshot = self.snapshot_path(reference.file)
            if snapshot is None:
                changes[name] = None
        return Delivery(sink=sink, message=message.model_copy(update=changes), attempts=before.attempts, snapshot=snapshot)

    def _first_waiting(self, sink: str, is_possible: Callable[[str], bool]) -> Waiting | None:
        try:
            return self._db.first_waiting(sink, is_possible)
        except sqlite3.Error as error:
            self._handle_error(error)
            raise

    def confirm(self, sink: str, message_id: str) -> None:
        """Notes that a sink has a message."""
        if not self._held.confirm(sink, message_id):
            self._confirmed.add((sink, message_id))
            self._delete_confirmed()

    def set_uncertain(self, sink: str, message_id: str, uncertain: bool) -> None:
        """Notes whether the last attempt may have succeeded."""
        entry = self._held.find(message_id)
        if entry is not None and sink in entry.waiting:
            entry.waiting[sink].uncertain = uncertain
        try:
            self._db.set_uncertain(sink, message_id, uncertain)
        except sqlite3.Error as error:  # then it stays marked, which is safe
            self._handle_error(error)

    def note_set_aside(self, sink: str, message_id: str) -> None:
        """Notes that a sink does not take a message."""
        try:
            self._db.note_set_aside(sink, message_id)
        except sqlite3.Error as error:  # then it is tried once more after a restart
            self._handle_error(error)

    def is_waiting(self, sink: str, message_id: str) -> bool:
        """Whether a message waits for a sink; true if the disk does not tell."""
        try:
            return self._held.find(message_id) is not None or self._db.is_waiting(sink, message_id)
        except sqlite3.Error as error:
            self._handle_error(error)
            return True

    def note_seen(self, violations: Mapping[str, float]) -> None:
        """Stores when open violations were last seen; see `Outbox.note_seen`."""
        try:
            self._db.note_seen(violations)
        except sqlite3.Error as error:
            self._handle_error(error)

    def maintain(self, now: float) -> None:
        """Enforces the limits, moves held messages to the disk and reports storage problems.

        Args:
            now: Seconds; must not jump.
        """
        try:
            if not self.is_open:
                self._open()
            if self._held.store(self._insert):
                _log.warning("%s: there is room again, all messages are on the disk", self._file)
            self._delete_confirmed()
            self._retention.enforce(self._db, self._ages.now())
            for event in self.report.due(now):
                self._insert(self._entry(event))
                self.report.mark_reported(event)
                _log.warning("storage: %s: %d%s", event.event, event.count, f" ({event.detail})" if event.detail else "")
            self._follow_time_server()  # now no message is held; on a full disk, this may fail
            if self._ages.now() >= self._next_note:
                self._note_time()
        except sqlite3.Error as error:
            self._handle_error(error)

    def recent(self, count: int) -> list[Message]:
        """Returns the latest messages, newest first, including delivered ones."""
        held = [entry.message for entry in reversed(list(self._held))]
        stored = [self._parse(body) for body in self._db.recent(count)]
        return [*held, *(message for message in stored if message is not None)][:count]

    def snapshot_path(self, file: str) -> Path | None:
        """Returns the path of a snapshot that an alert refers to; None if it is unknown or was dropped."""
        held = any(entry.snapshot_bytes and file == entry.snapshot_file for entry in self._held)
        return self._snapshots.path / file if held or self._db.has_snapshot(file) else None

    def stats(self, set_aside: Mapping[str, int]) -> OutboxStats:
        """Returns what the store holds now.

        Args:
            set_aside: Sink -> number of messages that it does not take.
        """
        pending = Counter(self._db.pending())
        pending.update(self._held.sinks())
        pending.subtract(sink for sink, _ in self._confirmed)
        return OutboxStats(
            pending={**dict.fromkeys(self._sinks, 0), **pending},
            set_aside={**dict.fromkeys(self._sinks, 0), **set_aside},
            held=len(self._held),
            stored=self._db.count_messages(),
            snapshots=self._db.count_snapshots(),
            bytes=self._db.bytes,
            dropped=dict(self.report.totals),
        )

    def close(self) -> None:
        """Closes the database, and leaves the folder to another runtime."""
        if len(self._held):
            _log.error("%s in memory only, lost: the disk is full", plural(len(self._held), "message"))
        try:
            self._note_time()
        except sqlite3.Error as error:
            self._handle_error(error)
        self._db.close()
        self._guard.close()

    def _lock_folder(self, state_dir: Path) -> IO[str]:
        """Makes sure that no other runtime uses the folder until the returned file is closed."""
        try:
            self._snapshots.create()
            guard = (state_dir / "outbox.lock").open("w")
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            guard.close()
            raise EdgeError(
                file=state_dir,
                problem="another runtime uses this state folder",
                hint="stop it, or give each runtime its own state_dir",
            ) from error
        except OSError as error:
            raise EdgeError(file=state_dir, expected="a writable folder", got=error.strerror) from error
        return guard

    def _open(self) -> None:
        """Opens the database file; fails if there is still no room."""
        try:
            database = self._opened()
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            try:
                self._put_away(error)
            except OSError:
                raise error from None
            database = self._checked()
        self.set_aside_before = [key for key in database.set_aside() if key[0] in self._sinks]
        self._db.close()
        self._db, self.is_open = database, True
        self._next_note = 0.0
        is_new = database.count_messages() == 0
        if not self._was_open:
            self._resume()
            self._was_open = True
        self._sort_out_unknown_snapshots(is_new)

    def _resume(self) -> None:
        """Continues where an earlier process has stopped."""
        if (noted := self._db.noted_time()) is not None:
            step = noted[0] - self._ages.now()
            self._ages.resume(*noted)
            for entry in self._held:
                entry.created += step
        self._close_open_alerts()

    def _sort_out_unknown_snapshots(self, is_new: bool) -> None:
        """Deletes files whose message was never stored, because the process was killed in between.

        If the database is new, it replaces one that was damaged: then the files are evidence, and are kept until too old.
        """
        try:
            known = {file for file, _, _ in self._db.snapshots()} | {entry.snapshot_file for entry in self._held}
            unknown = {file: size for file, size in self._snapshots.sizes().items() if file not in known}
            if is_new:
                self._db.add_snapshots(unknown, self._ages.now())
            else:
                self._snapshots.delete(unknown)
        except (sqlite3.Error, OSError) as error:  # then the limits do not hold for them until the next start
            self._handle_error(error)

    def _opened(self) -> OutboxDatabase:
        try:
            return self._checked()
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            return self._checked()  # a disk that cannot be read for a moment makes it look damaged

    def _checked(self) -> OutboxDatabase:
        database = OutboxDatabase(self._file)
        try:
            database.check(thorough=self._was_open)  # SQLite has already found damage then
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _put_away(self, error: sqlite3.DatabaseError) -> None:
        """Renames a database that is damaged, so that the box can continue; logs and reports it."""
        waiting = self._count_waiting()
        kept = put_away(self._file)
        lost = "an unknown number of messages" if waiting is None else plural(waiting, "message")
        problem = f"outbox.db is damaged ({error}), and is kept as {kept.name}, with {lost} not sent"
        _log.critical("%s: %s", self._file.parent, problem)
        self.report.count("alerts_dropped", max(1, waiting or 0), detail=problem)

    def _count_waiting(self) -> int | None:
        """Returns the number of messages that wait in the file; None if it is too damaged to tell."""
        try:
            database = OutboxDatabase(self._file)
            try:
                return database.count_waiting()
            finally:
                database.close()
        except sqlite3.Error:
            return None

    def _close_open_alerts(self) -> None:
        """Closes the alerts that an earlier process left open."""
        for body, last_seen in self._db.open_alerts():
            alert = self._parse(body)
            if not isinstance(alert, Alert):
                continue
            _log.warning("%s: closing the alert of track %d, which was open when the box was killed", alert.camera, alert.track)
            self._store(self._entry(close_unseen(alert, last_seen)))

    def _follow_time_server(self) -> None:
        """Corrects the clock of ages by that of a time server, and what was stored while it was wrong."""
        error = self._ages.error()
        if error is not None:
            if abs(error) > STEP:
                self._db.shift(self._ages.certain_until, error)
                self._next_note = 0.0
            self._ages.correct(error)

    def _note_time(self) -> None:
        now = self._ages.now()
        self._db.note_time(now, self._ages.certain_until)
        self._next_note = now + _NOTE_INTERVAL_S

    def _entry(self, message: Message, snapshot_bytes: int = 0) -> HeldMessage:
        waiting = {sink: DeliveryState() for sink in self._sinks}
        return HeldMessage(message=message, created=self._ages.now(), snapshot_bytes=snapshot_bytes, waiting=waiting)

    def _parse(self, body: str) -> Message | None:
        try:
            return parse_message(body)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]["msg"]
            self._log_once(f"{self._file}: a stored message cannot be read, and stays where it is: {problem}: {body[:100]}")
            return None

    def _store(self, entry: HeldMessage) -> None:
        """Writes to the disk. On a full disk, drops the oldest snapshots and tries again; then keeps the message in memory."""
        if self.is_open and not len(self._held):  # otherwise the message would overtake those in memory
            for last_try in (False, True):
                try:
                    self._insert(entry)
                    return
                except sqlite3.Error as error:
                    self._handle_error(error)
                    is_full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
                    if last_try or not is_full or not self._retention.drop_snapshots(self._db, self._db.bytes // 10):
                        break
        if not len(self._held):
            self.report.count("messages_held")
            if self.is_open:
                _log.critical("%s: %s", self._file, _NOT_DURABLE)
        for lost in self._held.add(entry, self._config.max_held):
            _log.error("message %s is lost: the disk is full, and so is the memory of the outbox", lost.message.id)
            self.report.count("alerts_dropped")

    def _insert(self, entry: HeldMessage) -> None:
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

    def _write_snapshot(self, file: str, content: bytes) -> str | None:
        try:
            return self._snapshots.write(file, content)
        except OSError as error:
            self._handle_error(error)
            self.report.count("snapshot_not_stored")
            return None

    def _delete_confirmed(self) -> None:
        """Deletes confirmed deliveries; if the disk is too full for that, they stay in `_confirmed`."""
        if not self._confirmed:
            return
        try:
            self._db.confirm(self._confirmed)
            self._confirmed.clear()
        except sqlite3.Error as error:
            self._handle_error(error)

    def _handle_error(self, error: Exception) -> None:
        """Logs an error of the disk, and closes a database that is damaged, which `maintain` then replaces."""
        if isinstance(error, sqlite3.Error) and is_damaged(error) and self.is_open:
            self._db.close()
            self._db, self.is_open = OutboxDatabase(None), False  # what is in memory is delivered meanwhile
        self._log_once(str(error))

    def _log_once(self, problem: str) -> None:
        """Logs a problem, unless it is the same as the last one."""
        if problem != self._last_error:
            _log.warning("outbox: %s", problem)
        self._last_error = problem
