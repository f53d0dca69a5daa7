"""The durable outbox that stands before every sink: what was put is on the disk before `put` returns."""

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppe_edge.delivery.messages import (
    Alert,
    AlertClosed,
    Message,
    SnapshotReference,
    StorageEvent,
    StorageTrouble,
    parse_message,
    utc,
)
from ppe_edge.delivery.outbox_database import OutboxDatabase
from ppe_edge.errors import EdgeError

_LOG = logging.getLogger(__name__)
_DAY_S = 86400.0
_TICK_S = 10.0  # limits, held messages and reports are looked after this often
_REPORT_S = 60.0  # a lasting trouble is not reported more often
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}  # the latter where the log's index finds no room
_NOTHING_KEPT = "the disk is full or broken: nothing can be kept, a restart loses what is not delivered yet: make room"
_FILL_AFTER_DROPPING = 0.9  # a little room each time, so that a full outbox does not report with every alert


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

    An alert that an earlier process raised and did not close, since it was killed, is closed when the outbox is opened.
    A disk that is full already then keeps nothing and shows nothing of what it holds: until there is room, messages are in
    memory, as they are when it fills up later.

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
        self._file = state_dir / "outbox.db"
        self._db = OutboxDatabase(None)  # empty: what is read from it, until the file can be opened
        self._is_open = False
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
        try:
            self._open()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in _NO_ROOM:
                self._guard.close()
                raise EdgeError(f"{self._file}: expected an outbox that can be written, got {error}: move it away") from error
            self._complaint = str(error)
            _LOG.critical("%s: %s: %s", self._file, error, _NOTHING_KEPT)

    @property
    def trouble(self) -> str:
        """Why messages are in memory only, in one line; empty when they are not."""
        with self._lock:
            return "" if self._is_open and not self._held else _NOTHING_KEPT

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

        def is_due(message_id: str) -> bool:
            return (sink, message_id) not in self._confirmed and self._not_before.get((sink, message_id), 0.0) <= now

        with self._lock:
            self._tick(now)
            if (row := self._db.first_waiting(sink, is_due)) is not None:
                uncertain = row.uncertain
                try:
                    self._db.mark_tried(sink, row.sequence)
                except sqlite3.Error as error:
                    uncertain = True  # nothing on the disk would tell a later process of this attempt, so it is marked now
                    self._complain(error)
                return self._delivery(sink, row.body, row.attempts, uncertain)
            for held in self._held:
                if sink in held.waiting and is_due(held.message.id):
                    attempts, was_uncertain = held.waiting[sink]
                    held.waiting[sink] = [attempts + 1, 1]
                    return self._delivery(sink, held.message.to_json(), attempts, bool(was_uncertain))
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
        uncertain = outcome_unknown or delivery.redelivered
        with self._lock:
            if delay_s > 0:
                self._not_before[(delivery.sink, delivery.id)] = self._clock() + delay_s
            for held in self._held:
                if held.message.id == delivery.id and delivery.sink in held.waiting:
                    held.waiting[delivery.sink][1] = int(uncertain)
            try:
                self._db.set_uncertain(delivery.sink, delivery.id, uncertain)
            except sqlite3.Error as error:  # then it stays marked, which is the safe side
                self._complain(error)

    def note_seen(self, violations: Mapping[str, float]) -> None:
        """Keeps when open violations were last seen (id -> UTC epoch seconds), for a closing message after a crash."""
        with self._lock:
            try:
                self._db.note_seen(violations)
            except sqlite3.Error as error:
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
            held = [each.message.to_json() for each in reversed(self._held)]
            return [json.loads(body) for body in [*held, *self._db.recent(count)][:count]]

    def snapshot_path(self, file: str) -> Path | None:
        """The file of a snapshot by the name that its alert gives; None when it is unknown or was dropped."""
        with self._lock:
            held = any(each.size and file == f"{each.message.id}.jpg" for each in self._held)
            return self._folder / file if held or self._db.has_snapshot(file) else None

    def stats(self) -> OutboxStats:
        """What it holds now."""
        with self._lock:
            pending = Counter(self._db.pending())
            pending.update(sink for held in self._held for sink in held.waiting)
            pending.subtract(sink for sink, _ in self._confirmed)
            return OutboxStats(
                pending={**dict.fromkeys(self._sinks, 0), **pending},
                held=len(self._held),
                stored=self._db.count_messages(),
                snapshots=len(self._db.snapshots()),
                bytes=self._db.bytes,
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

    def _open(self) -> None:
        """Opens the file, if there is room for it now."""
        database = OutboxDatabase(self._file)
        try:
            known = {name for name, _, _ in database.snapshots()}
        except sqlite3.Error:
            database.close()
            raise
        self._db.close()
        self._db, self._is_open = database, True
        known |= {f"{held.message.id}.jpg" for held in self._held}
        with suppress(OSError):
            for stray in self._folder.iterdir():  # of a message that a crash kept from being stored
                if stray.name not in known:
                    stray.unlink(missing_ok=True)
        self._close_orphans()

    def _close_orphans(self) -> None:
        """Nobody saw how these ended. The id is the same if a full disk makes this happen twice, so that it is a copy."""
        now = self._clock()
        for body, last_seen in self._db.open_alerts():
            alert = parse_message(body)
            assert isinstance(alert, Alert)
            closed = AlertClosed(
                id=str(uuid.uuid5(uuid.UUID(alert.id), "alert_closed")),
                time=utc(last_seen),
                camera=alert.camera,
                class_name=alert.class_name,
                track=alert.track,
                zone=alert.zone,
                violation=alert.violation,
                alert=alert.id,
                started=alert.time,
                duration_s=max(0.0, last_seen - alert.time.timestamp()),
                end="unknown",
                model=alert.model,
            )
            _LOG.warning(
                "%s: alert of track %d was open when the box was killed: closed, end unknown", alert.camera, alert.track
            )
            self._store(_Held(closed, now, 0, {sink: [0, 0] for sink in self._sinks}))

    def _delivery(self, sink: str, text: str, attempts: int, redelivered: bool) -> Delivery:
        body = json.loads(text)
        snapshot = self.snapshot_path(body["snapshot"]["file"]) if body.get("snapshot") else None
        if "snapshot" in body and snapshot is None:
            body["snapshot"] = None
        body["redelivered"] = redelivered
        return Delivery(sink, body["id"], body, attempts, redelivered, snapshot)

    def _store(self, entry: _Held) -> None:
        """Onto the disk; if it is full, without the oldest snapshots; if that does not help, into memory."""
        if self._is_open and not self._held:  # else the order would be lost
            for last_try in (False, True):
                try:
                    self._insert(entry)
                    return
                except sqlite3.Error as error:
                    self._complain(error)
                    if (
                        last_try
                        or error.sqlite_errorcode != sqlite3.SQLITE_FULL
                        or not self._drop_snapshots(self._db.bytes // 10)
                    ):
                        break
        if not self._held:
            self._note("messages_held")
            if self._is_open:
                _LOG.critical("%s: %s", self._file, _NOTHING_KEPT)
        self._held.append(entry)
        while len(self._held) > self._config.max_held:
            gone = self._held.popleft()
            _LOG.error("outbox: message %s is lost: the disk is full and memory holds no more", gone.message.id)
            self._note("alerts_dropped")

    def _insert(self, entry: _Held) -> None:
        snapshot = (f"{entry.message.id}.jpg", entry.size) if entry.size else None
        message = entry.message
        opens = (message.violation, message.time.timestamp()) if isinstance(message, Alert) else None
        closes = message.violation if isinstance(message, AlertClosed) else None
        self._db.insert(message.id, entry.created, message.to_json(), entry.waiting, snapshot, opens, closes)
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
            with suppress(OSError):
                path.unlink(missing_ok=True)
            self._note("snapshot_not_stored")
            return None
        return SnapshotReference(file=file, sha256=hashlib.sha256(snapshot).hexdigest())

    def _tick(self, now: float) -> None:
        """Keeps the limits, brings held messages to the disk and reports what was given up."""
        limit = self._config.max_mb * 1e6
        if self._db.bytes <= limit and now < self._next_tick:
            return
        self._next_tick = now + _TICK_S
        try:
            if not self._is_open:
                self._open()
            if self._held:
                while self._held:
                    self._insert(self._held[0])
                    self._held.popleft()
                _LOG.warning("%s: there is room again, all is kept", self._file)
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
        def excess() -> float:
            return self._db.bytes - _FILL_AFTER_DROPPING * limit if self._db.bytes > limit else 0.0

        self._drop_snapshots(excess(), now - self._config.max_snapshot_days * _DAY_S)
        self._db.drop_delivered(0 if excess() else self._config.keep_delivered)
        lost = self._db.drop_before(now - self._config.max_message_days * _DAY_S)
        if excess():
            lost += self._db.drop_oldest(excess())
        self._note("alerts_dropped", lost)

    def _drop_snapshots(self, size: float, before: float = 0.0) -> bool:
        """Deletes the oldest snapshots: all from before the time `before`, and until `size` bytes are free."""
        freed, files = 0, []
        for file, created, bytes_ in self._db.snapshots():
            if created >= before and freed >= size:
                break
            freed += bytes_
            files.append(file)
        try:
            for file in files:  # first the files: that makes room, and a row without a file is harmless
                (self._folder / file).unlink(missing_ok=True)
            self._note("snapshots_dropped", len(files))
            self._db.forget_snapshots(files)
        except (sqlite3.Error, OSError) as error:
            self._complain(error)
        return bool(files)

    def _forget_confirmed(self) -> None:
        """Deletes the deliveries that were confirmed; those that a full disk keeps are only remembered."""
        if not self._confirmed:
            return
        try:
            self._db.confirm(self._confirmed)
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
