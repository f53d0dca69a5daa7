"""The durable outbox that stands before every sink: what was put is on the disk before `put` returns."""

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppe_edge.alerts import Alert, Message, SnapshotReference, StorageEvent, StorageTrouble, utc
from ppe_edge.errors import EdgeError

_LOG = logging.getLogger(__name__)
_DAY_S = 86400.0
_TICK_S = 10.0  # limits, held messages and reports are looked after this often
_REPORT_S = 60.0  # a lasting trouble is not reported more often
_FILL_AFTER_DROPPING = 0.9  # a little room each time, so that a full outbox does not report with every alert
_SIZE = "length(CAST(body AS BLOB))"  # bytes, not characters
_ONE_DELIVERY = "sink = ? AND sequence = (SELECT sequence FROM messages WHERE id = ?)"
_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    sink TEXT NOT NULL, sequence INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE,
    attempts INTEGER NOT NULL DEFAULT 0, uncertain INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sink, sequence)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_of_message ON deliveries (sequence);
CREATE TABLE IF NOT EXISTS snapshots (
    file TEXT PRIMARY KEY, created REAL NOT NULL, size INTEGER NOT NULL);
"""


class OutboxConfig(BaseModel):
    """How much the outbox may keep. The oldest snapshots go first, alerts only when no snapshot is left."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_mb: float = Field(default=1000.0, gt=0, description="Snapshots and messages together, megabytes.")
    max_snapshot_days: float = Field(default=30.0, gt=0, description="Older snapshots are deleted.")
    max_message_days: float = Field(default=90.0, gt=0, description="Older messages are given up, delivered or not.")
    keep_delivered: int = Field(default=200, ge=0, description="Delivered messages that the web page still shows.")
    max_held: int = Field(default=1000, ge=1, description="Messages kept in memory while the disk is full.")

    @model_validator(mode="after")
    def _snapshots_go_first(self) -> "OutboxConfig":
        if self.max_snapshot_days > self.max_message_days:
            raise ValueError("max_snapshot_days must not exceed max_message_days: snapshots go before alerts")
        return self


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way to one sink.

    Attributes:
        sink: The sink's name.
        id: The message's id.
        body: The message as JSON values; `redelivered` and `snapshot` are as they are now.
        attempts: How often it was tried before.
        redelivered: The end of an earlier attempt is unknown, so the sink may have it already.
        snapshot: The picture's file, None when there is none.
    """

    sink: str
    id: str
    body: dict[str, Any]
    attempts: int
    redelivered: bool
    snapshot: Path | None


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """What the outbox holds, for health and metrics."""

    pending: dict[str, int]  # sink -> messages that it has not confirmed
    held: int  # in memory only, since the disk is full
    stored: int  # messages on the disk, delivered ones included
    snapshots: int
    bytes: int  # messages and snapshots on the disk
    dropped: dict[StorageTrouble, int]  # event of StorageEvent -> how many since the start


@dataclass(slots=True)
class _Held:
    """A message that the disk did not take."""

    message: Message
    created: float
    size: int  # of the snapshot that the disk did take, 0 without
    waiting: dict[str, list[int]]  # sink -> [attempts, uncertain]


class Outbox:
    """Messages on the disk until every sink has confirmed them. All methods may be called from any thread.

    Args:
        config: Its limits.
        state_dir: Folder of its database and of snapshots/.
        sinks: Names of the sinks; each gets every message. What waits for a sink that is no longer named stays.
        clock: UTC epoch seconds.

    Raises:
        EdgeError: The folder cannot be written, is used by another runtime, or holds something else.
    """

    def __init__(
        self, config: OutboxConfig, state_dir: Path, sinks: Sequence[str], clock: Callable[[], float] = time.time
    ) -> None:
        self._config, self._sinks, self._clock = config, tuple(sinks), clock
        self._folder = state_dir / "snapshots"
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._held: deque[_Held] = deque()
        self._confirmed: set[tuple[str, str]] = set()  # (sink, id) whose row a full disk did not let us delete
        self._not_before: dict[tuple[str, str], float] = {}  # (sink, id) -> time; a restart may try at once
        self._dropped: Counter[StorageTrouble] = Counter()
        self._unreported: Counter[StorageTrouble] = Counter()
        self._next_tick = self._next_report = 0.0
        self._complaint = ""
        self.version = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._guard = (state_dir / "outbox.lock").open("w")
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._guard.close()
            raise EdgeError(
                f"{state_dir}: another runtime uses this state folder: stop it, or give this one its own"
            ) from error
        except OSError as error:
            raise EdgeError(f"{state_dir}: expected a folder that can be written, got {error.strerror}") from error
        file = state_dir / "outbox.db"
        try:
            self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # a commit survives a power cut, not only a crash
            self._db.execute("PRAGMA foreign_keys=ON")
            # a short log; it is written over, not shortened, so that a full disk leaves room in it for a while
            self._db.execute("PRAGMA wal_autocheckpoint=64")
            self._db.executescript(_TABLES)
            self._bytes = self._count(f"SELECT (SELECT total({_SIZE}) FROM messages) + (SELECT total(size) FROM snapshots)")
            known = {row[0] for row in self._db.execute("SELECT file FROM snapshots")}
        except sqlite3.Error as error:
            self._guard.close()
            raise EdgeError(f"{file}: expected an outbox with room to write, got {error}: make room or move it away") from error
        for stray in self._folder.iterdir():  # of a message that a crash kept from being stored
            if stray.name not in known:
                stray.unlink(missing_ok=True)

    def put(self, message: Message, snapshot: bytes | None = None) -> str:
        """Stores a message for every sink; it is on the disk when this returns, unless the disk is full.

        A full disk never raises: the picture is left out, and the message is kept in memory (`OutboxConfig.max_held`)
        until there is room, delivered from there meanwhile.

        Args:
            message: The message.
            snapshot: JPEG, for an `Alert`.

        Returns:
            The message's id.
        """
        now = self._clock()
        with self._lock:
            size = 0
            if snapshot is not None and isinstance(message, Alert):
                reference = self._write_snapshot(f"{message.id}.jpg", snapshot)
                message = message.model_copy(update={"snapshot": reference})
                size = len(snapshot) if reference else 0
            self._store(_Held(message, now, size, {sink: [0, 0] for sink in self._sinks}))
            self._tick(now)
            self.wake()
        return message.id

    def claim(self, sink: str) -> Delivery | None:
        """The oldest message that the sink has not confirmed, marked on the disk as being tried; None when there is none."""
        now = self._clock()
        with self._lock:
            self._tick(now)
            rows = self._db.execute(
                "SELECT sequence, id, attempts, uncertain FROM deliveries JOIN messages USING (sequence) "
                "WHERE sink = ? ORDER BY sequence",
                (sink,),
            )
            for sequence, message_id, attempts, uncertain in rows:
                if (sink, message_id) in self._confirmed or self._not_before.get((sink, message_id), 0.0) > now:
                    continue
                rows.close()
                try:
                    self._db.execute(
                        "UPDATE deliveries SET attempts = attempts + 1, uncertain = 1 WHERE sink = ? AND sequence = ?",
                        (sink, sequence),
                    )
                except sqlite3.Error:
                    uncertain = 1  # nothing on the disk would tell a later process of this attempt, so it is marked now
                body = self._db.execute("SELECT body FROM messages WHERE sequence = ?", (sequence,)).fetchone()[0]
                return self._delivery(sink, json.loads(body), attempts, bool(uncertain))
            for held in self._held:
                state = held.waiting.get(sink)
                if state is not None and self._not_before.get((sink, held.message.id), 0.0) <= now:
                    attempts, uncertain = state
                    held.waiting[sink] = [attempts + 1, 1]
                    return self._delivery(sink, json.loads(held.message.to_json()), attempts, bool(uncertain))
        return None

    def ack(self, delivery: Delivery) -> None:
        """The sink has confirmed the message."""
        with self._lock:
            key = (delivery.sink, delivery.id)
            self._not_before.pop(key, None)
            for held in self._held:
                if held.message.id == delivery.id:
                    held.waiting.pop(delivery.sink, None)
                    if not held.waiting:
                        self._held.remove(held)
                    return
            self._confirmed.add(key)
            self._forget_confirmed()

    def nack(self, delivery: Delivery, outcome_unknown: bool, delay_s: float = 0.0) -> None:
        """The sink has not confirmed the message.

        Args:
            delivery: What `claim` gave.
            outcome_unknown: The sink may have it nevertheless; the next attempt is marked as redelivered.
            delay_s: Not before so many seconds; later messages go ahead meanwhile.
        """
        uncertain = int(outcome_unknown or delivery.redelivered)
        with self._lock:
            if delay_s > 0:
                self._not_before[(delivery.sink, delivery.id)] = self._clock() + delay_s
            for held in self._held:
                if held.message.id == delivery.id and delivery.sink in held.waiting:
                    held.waiting[delivery.sink][1] = uncertain
            try:
                self._db.execute(
                    f"UPDATE deliveries SET uncertain = ? WHERE {_ONE_DELIVERY}",
                    (uncertain, delivery.sink, delivery.id),
                )
            except sqlite3.Error as error:  # then it stays marked, which is the safe side
                self._complain(error)

    def wake(self) -> None:
        """Ends every `wait`."""
        with self._changed:
            self.version += 1
            self._changed.notify_all()

    def wait(self, version: int, timeout_s: float) -> None:
        """Waits until something was put, or `wake` called, after `version` was read; at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, timeout_s)

    def recent(self, count: int) -> list[dict[str, Any]]:
        """The last messages as JSON values, newest first, delivered ones included."""
        with self._lock:
            rows = self._db.execute("SELECT body FROM messages ORDER BY sequence DESC LIMIT ?", (count,)).fetchall()
            bodies = [json.loads(held.message.to_json()) for held in reversed(self._held)]
        return (bodies + [json.loads(row[0]) for row in rows])[:count]

    def snapshot_path(self, file: str) -> Path | None:
        """The file of a snapshot by the name that its alert gives; None when it is unknown or was dropped."""
        with self._lock:
            known = self._db.execute("SELECT 1 FROM snapshots WHERE file = ?", (file,)).fetchone() is not None
            known = known or any(held.size and file == f"{held.message.id}.jpg" for held in self._held)
        return self._folder / file if known else None

    def stats(self) -> OutboxStats:
        """What it holds now."""
        with self._lock:
            pending = dict.fromkeys(self._sinks, 0)
            pending |= dict(self._db.execute("SELECT sink, count(*) FROM deliveries GROUP BY sink").fetchall())
            for sink in (sink for held in self._held for sink in held.waiting):
                pending[sink] = pending.get(sink, 0) + 1
            for sink, _ in self._confirmed:
                pending[sink] -= 1
            return OutboxStats(
                pending=pending,
                held=len(self._held),
                stored=self._count("SELECT count(*) FROM messages"),
                snapshots=self._count("SELECT count(*) FROM snapshots"),
                bytes=self._bytes,
                dropped=dict(self._dropped),
            )

    def close(self) -> None:
        """Stores what is still held, if there is room now, and closes the database."""
        with self._lock:
            self._next_tick = 0.0
            self._tick(self._clock())
            if self._held:
                _LOG.error("outbox: %d messages were in memory only and are lost: the disk is full", len(self._held))
            self._db.close()
            self._guard.close()

    def _delivery(self, sink: str, body: dict[str, Any], attempts: int, redelivered: bool) -> Delivery:
        snapshot = self.snapshot_path(body["snapshot"]["file"]) if body.get("snapshot") else None
        if "snapshot" in body and snapshot is None:
            body["snapshot"] = None
        body["redelivered"] = redelivered
        return Delivery(sink, body["id"], body, attempts, redelivered, snapshot)

    def _store(self, entry: _Held) -> None:
        """Onto the disk; if it is full, without the oldest snapshots; if that does not help, into memory."""
        if not self._held:  # else the order would be lost
            for last_try in (False, True):
                try:
                    self._insert(entry)
                    return
                except sqlite3.Error as error:
                    self._complain(error)
                    if last_try or error.sqlite_errorcode != sqlite3.SQLITE_FULL or not self._drop_snapshots(self._bytes // 10):
                        break
        if not self._held:
            self._note("messages_held")
        self._held.append(entry)
        while len(self._held) > self._config.max_held:
            gone = self._held.popleft()
            _LOG.error("outbox: message %s is lost: the disk is full and memory holds no more", gone.message.id)
            self._note("alerts_dropped")

    def _insert(self, entry: _Held) -> None:
        body = entry.message.to_json()
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO messages (id, created, body) VALUES (?, ?, ?)", (entry.message.id, entry.created, body)
            )
            rows = [(sink, cursor.lastrowid, *state) for sink, state in entry.waiting.items()]
            self._db.executemany("INSERT INTO deliveries (sink, sequence, attempts, uncertain) VALUES (?, ?, ?, ?)", rows)
            if entry.size:
                row = (f"{entry.message.id}.jpg", entry.created, entry.size)
                self._db.execute("INSERT INTO snapshots (file, created, size) VALUES (?, ?, ?)", row)
        self._bytes += len(body.encode()) + entry.size
        self._complaint = ""

    def _write_snapshot(self, file: str, snapshot: bytes) -> SnapshotReference | None:
        path = self._folder / file
        try:
            with path.open("xb") as stream:
                stream.write(snapshot)
                stream.flush()
                os.fsync(stream.fileno())
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            self._complain(error)
            path.unlink(missing_ok=True)
            self._note("snapshot_not_stored")
            return None
        return SnapshotReference(file=file, sha256=hashlib.sha256(snapshot).hexdigest())

    def _tick(self, now: float) -> None:
        """Keeps the limits, brings held messages to the disk and reports what was given up."""
        limit = self._config.max_mb * 1e6
        if self._bytes <= limit and now < self._next_tick:
            return
        self._next_tick = now + _TICK_S
        try:
            while self._held:
                self._insert(self._held[0])
                self._held.popleft()
            self._forget_confirmed()
            self._keep_limits(now, limit)
            if self._unreported and now >= self._next_report:
                self._next_report = now + _REPORT_S
                self._report(now)
        except sqlite3.Error as error:
            self._complain(error)

    def _report(self, now: float) -> None:
        for event, count in list(self._unreported.items()):
            message = StorageEvent(time=utc(now), event=event, count=count)
            self._insert(_Held(message, now, 0, {sink: [0, 0] for sink in self._sinks}))
            del self._unreported[event]
            _LOG.warning("outbox: %s: %d", event, count)

    def _keep_limits(self, now: float, limit: float) -> None:
        oldest = now - self._config.max_snapshot_days * _DAY_S
        excess = self._bytes - _FILL_AFTER_DROPPING * limit if self._bytes > limit else 0.0
        self._drop_snapshots(excess, oldest)
        delivered = (
            "SELECT sequence FROM messages m WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.sequence = m.sequence)"
        )
        self._drop_messages(f"{delivered} ORDER BY sequence DESC LIMIT -1 OFFSET ?", (self._config.keep_delivered,))
        if self._bytes > limit:
            self._drop_messages(delivered, ())
        oldest = now - self._config.max_message_days * _DAY_S
        lost = self._drop_messages("SELECT sequence FROM messages WHERE created < ?", (oldest,))
        if self._bytes > limit:
            excess = self._bytes - _FILL_AFTER_DROPPING * limit
            sizes = f"SELECT sequence, sum({_SIZE}) OVER (ORDER BY sequence) - {_SIZE} AS before FROM messages"
            lost += self._drop_messages(f"SELECT sequence FROM ({sizes}) WHERE before < ?", (excess,))
        self._note("alerts_dropped", lost)

    def _drop_snapshots(self, size: float, before: float = 0.0) -> bool:
        """Deletes the oldest snapshots: all from before the time `before`, and until `size` bytes are free."""
        freed, files = 0, []
        for file, created, bytes_ in self._db.execute("SELECT file, created, size FROM snapshots ORDER BY created, rowid"):
            if created >= before and freed >= size:
                break
            freed += bytes_
            files.append((file,))
        for (file,) in files:  # first the files: that makes room, and a row without a file is harmless
            (self._folder / file).unlink(missing_ok=True)
        if files:
            self._bytes -= freed
            self._note("snapshots_dropped", len(files))
            with self._transaction():
                self._db.executemany("DELETE FROM snapshots WHERE file = ?", files)
        return bool(files)

    def _drop_messages(self, selection: str, values: tuple[Any, ...]) -> int:
        """Deletes messages; returns how many of them some sink has not confirmed."""
        chosen = self._db.execute(f"SELECT sequence, {_SIZE} FROM messages WHERE sequence IN ({selection})", values)
        rows = chosen.fetchall()
        if not rows:
            return 0
        sequences = [(row[0],) for row in rows]
        with self._transaction():
            waiting = "SELECT count(DISTINCT sequence) FROM deliveries WHERE sequence = ?"
            lost = sum(self._db.execute(waiting, key).fetchone()[0] for key in sequences)
            self._db.executemany("DELETE FROM messages WHERE sequence = ?", sequences)
        self._bytes -= sum(row[1] for row in rows)
        return lost

    def _forget_confirmed(self) -> None:
        """Deletes the deliveries that were confirmed; those that a full disk keeps are only remembered."""
        if not self._confirmed:
            return
        rows = list(self._confirmed)
        try:
            with self._transaction():
                self._db.executemany(f"DELETE FROM deliveries WHERE {_ONE_DELIVERY}", rows)
            self._confirmed.clear()
        except sqlite3.Error as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if str(error) != self._complaint:  # a lasting trouble is logged once
            _LOG.warning("outbox: %s", error)
        self._complaint = str(error)

    def _note(self, event: StorageTrouble, count: int = 1) -> None:
        if count:
            self._dropped[event] += count
            self._unreported[event] += count

    def _count(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
