"""The tables of the outbox. A change survives a power cut as soon as the method returns. Not thread-safe."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ppe_edge.common.clock import SET_AFTER
from ppe_edge.common.damaged import require_intact

_SIZE = "length(CAST(body AS BLOB))"  # bytes, not characters
_ONE_DELIVERY = "sink = ? AND sequence = (SELECT sequence FROM messages WHERE id = ?)"
_DELIVERED = "NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.sequence = m.sequence)"
_EVENTS = ("camera_event", "storage_event", "compliance_report")  # kinds that are not about an alert
_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    sink TEXT NOT NULL, sequence INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE,
    attempts INTEGER NOT NULL DEFAULT 0, uncertain INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sink, sequence)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS messages_by_time ON messages (created);
CREATE INDEX IF NOT EXISTS messages_by_kind ON messages (json_extract(body, '$.kind'));
CREATE INDEX IF NOT EXISTS messages_of_alert ON messages (json_extract(body, '$.alert'), json_extract(body, '$.kind'));
CREATE INDEX IF NOT EXISTS deliveries_of_message ON deliveries (sequence);
CREATE TABLE IF NOT EXISTS snapshots (
    file TEXT PRIMARY KEY, created REAL NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS snapshots_by_time ON snapshots (created);
CREATE TABLE IF NOT EXISTS set_aside (
    sink TEXT, sequence INTEGER REFERENCES messages ON DELETE CASCADE, PRIMARY KEY (sink, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS open_alerts (
    violation TEXT PRIMARY KEY, body TEXT NOT NULL, last_seen REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clock (now REAL NOT NULL, certain_until REAL NOT NULL);
"""


def field_of(message: str, name: str) -> str:
    """Returns SQL for a field of a message; `kind` and `alert` have an index.

    Args:
        message: How the query calls the table.
        name: Name of the field.
    """
    return f"json_extract({message}.body, '$.{name}')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A message that a sink has not confirmed.

    Attributes:
        sequence: Key of its row.
        message_id: Its id.
        attempts: Number of attempts so far.
        uncertain: Whether one of them may have succeeded.
        body: The message as JSON.
    """

    sequence: int
    message_id: str
    attempts: int
    uncertain: bool
    body: str


class OutboxDatabase:
    """Messages, the sinks that they wait for, the snapshots on the disk, and the alerts that are still open.

    Every method may raise `sqlite3.Error`.

    Attributes:
        bytes: Size of messages and snapshots together.

    Args:
        file: Created if it does not exist; None for a database in memory.
    """

    def __init__(self, file: Path | None) -> None:
        self._db = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.Error:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # a commit survives a power cut, not only a crash
        self._db.execute("PRAGMA foreign_keys=ON")
        # keeps the log short; its file is reused, not truncated, so that some commits still fit when the disk is full
        self._db.execute("PRAGMA wal_autocheckpoint=64")
        self._db.executescript(_TABLES)
        total = f"SELECT (SELECT total({_SIZE}) FROM messages) + (SELECT total(size) FROM snapshots)"
        self.bytes = int(self._db.execute(total).fetchone()[0])

    def check(self, thorough: bool) -> None:
        """See `require_intact`."""
        require_intact(self._db, thorough)

    def insert(
        self,
        *,
        message_id: str,
        created: float,
        body: str,
        waiting: Mapping[str, tuple[int, bool]],
        snapshot: tuple[str, int] | None,
        opens: tuple[str, float] | None = None,
        closes: str | None = None,
    ) -> None:
        """Adds a message in one transaction.

        Args:
            message_id: Its id.
            created: When, by the clock that measures ages, UTC epoch seconds.
            body: The message as JSON.
            waiting: Sink -> number of attempts so far, and whether one of them may have succeeded.
            snapshot: File name and size in bytes.
            opens: The violation that this message opens, and when it was seen, UTC epoch seconds.
            closes: The violation that this message closes.
        """
        with self._transaction():
            values = (message_id, created, body)
            sequence = self._db.execute("INSERT INTO messages (id, created, body) VALUES (?, ?, ?)", values).lastrowid
            rows = [(sink, sequence, *state) for sink, state in waiting.items()]
            self._db.executemany("INSERT INTO deliveries (sink, sequence, attempts, uncertain) VALUES (?, ?, ?, ?)", rows)
            if snapshot is not None:
                file, size = snapshot
                self._db.execute("INSERT INTO snapshots (file, created, size) VALUES (?, ?, ?)", (file, created, size))
            if opens is not None:
                violation, seen = opens
                entry = "INSERT OR REPLACE INTO open_alerts (violation, body, last_seen) VALUES (?, ?, ?)"
                self._db.execute(entry, (violation, body, seen))
            if closes is not None:
                self._db.execute("DELETE FROM open_alerts WHERE violation = ?", (closes,))
        self.bytes += len(body.encode()) + (snapshot[1] if snapshot else 0)

    def first_waiting(self, sink: str, wanted: Callable[[str], bool]) -> Waiting | None:
        """Returns the oldest message that waits for the sink and whose id is `wanted`."""
        query = "SELECT sequence, id, attempts, uncertain FROM deliveries JOIN messages USING (sequence) WHERE sink = ?"
        for sequence, message_id, attempts, uncertain in self._db.execute(f"{query} ORDER BY sequence", (sink,)):
            if wanted(message_id):
                body = self._db.execute("SELECT body FROM messages WHERE sequence = ?", (sequence,)).fetchone()[0]
                return Waiting(
                    sequence=sequence, message_id=message_id, attempts=attempts, uncertain=bool(uncertain), body=body
                )
        return None

    def is_waiting(self, sink: str, message_id: str) -> bool:
        """Whether a message waits for the sink."""
        return self._db.execute(f"SELECT 1 FROM deliveries WHERE {_ONE_DELIVERY}", (sink, message_id)).fetchone() is not None

    def mark_tried(self, sink: str, sequence: int) -> None:
        """Notes that an attempt begins; its outcome is unknown for now."""
        update = "UPDATE deliveries SET attempts = attempts + 1, uncertain = 1 WHERE sink = ? AND sequence = ?"
        self._db.execute(update, (sink, sequence))

    def set_uncertain(self, sink: str, message_id: str, uncertain: bool) -> None:
        """Notes whether the last attempt may have succeeded."""
        self._db.execute(f"UPDATE deliveries SET uncertain = ? WHERE {_ONE_DELIVERY}", (uncertain, sink, message_id))

    def note_set_aside(self, sink: str, message_id: str) -> None:
        """Notes that the sink does not take a message."""
        insert = "INSERT OR IGNORE INTO set_aside SELECT ?, sequence FROM messages WHERE id = ?"
        self._db.execute(insert, (sink, message_id))

    def set_aside(self) -> list[tuple[str, str]]:
        """Returns (sink, message id) of the messages that were set aside and still wait for their sink, oldest first."""
        query = "SELECT sink, id FROM set_aside JOIN deliveries USING (sink, sequence) JOIN messages USING (sequence)"
        return self._db.execute(f"{query} ORDER BY sequence").fetchall()

    def confirm(self, deliveries: Iterable[tuple[str, str]]) -> None:
        """Deletes deliveries, given as (sink, message id)."""
        with self._transaction():
            self._db.executemany(f"DELETE FROM deliveries WHERE {_ONE_DELIVERY}", deliveries)

    def open_alerts(self) -> list[tuple[str, float]]:
        """Returns (body of the alert, when its violation was last seen) of the alerts that are not closed, oldest first."""
        return self._db.execute("SELECT body, last_seen FROM open_alerts ORDER BY last_seen, violation").fetchall()

    def note_seen(self, seen: Mapping[str, float]) -> None:
        """Stores when violations were last seen, UTC epoch seconds; ignores those that are not open."""
        with self._transaction():
            rows = [(last, violation) for violation, last in seen.items()]
            self._db.executemany("UPDATE open_alerts SET last_seen = ? WHERE violation = ?", rows)

    def recent(self, count: int) -> list[str]:
        """Returns the bodies of the latest messages, newest first."""
        return [row[0] for row in self._db.execute("SELECT body FROM messages ORDER BY sequence DESC LIMIT ?", (count,))]

    def pending(self) -> dict[str, int]:
        """Returns the number of waiting messages per sink."""
        return dict(self._db.execute("SELECT sink, count(*) FROM deliveries GROUP BY sink").fetchall())

    def count_waiting(self) -> int:
        """Returns the number of messages that wait for a sink."""
        return int(self._db.execute("SELECT count(DISTINCT sequence) FROM deliveries").fetchone()[0])

    def note_time(self, now: float, certain_until: float) -> None:
        """Stores the time of `AgeClock`, for the next process."""
        with self._transaction():
            self._db.execute("DELETE FROM clock")
            self._db.execute("INSERT INTO clock VALUES (?, ?)", (now, certain_until))

    def noted_time(self) -> tuple[float, float] | None:
        """Returns what `note_time` stored, or the time of the newest message if that is later; None if there is neither."""
        newest = self._db.execute("SELECT max(created) FROM messages").fetchone()[0]
        noted = self._db.execute("SELECT now, certain_until FROM clock").fetchone()
        if noted is None:
            return None if newest is None else (newest, newest)
        return max(noted[0], newest or 0.0), noted[1]

    def shift(self, since: float, seconds: float) -> None:
        """Adds seconds to the times of messages and snapshots that were created after `since`."""
        with self._transaction():
            for table in ("messages", "snapshots"):
                self._db.execute(f"UPDATE {table} SET created = created + ? WHERE created > ?", (seconds, since))

    def count_messages(self) -> int:
        """Returns the number of all messages, including delivered ones."""
        return int(self._db.execute("SELECT count(*) FROM messages").fetchone()[0])

    def snapshots(self) -> Iterator[tuple[str, float, int]]:
        """Yields (file, created, size) of all snapshots, oldest first. There may be very many: read no more than needed."""
        yield from self._db.execute("SELECT file, created, size FROM snapshots ORDER BY created, rowid")

    def add_snapshots(self, sizes: Mapping[str, int], created: float) -> None:
        """Adds files without a message, so that the limits hold for them: file -> bytes."""
        with self._transaction():
            rows = [(file, created, size) for file, size in sizes.items()]
            self._db.executemany("INSERT INTO snapshots (file, created, size) VALUES (?, ?, ?)", rows)
        self.bytes += sum(sizes.values())

    def count_snapshots(self) -> int:
        """Returns the number of snapshots on the disk."""
        return int(self._db.execute("SELECT count(*) FROM snapshots").fetchone()[0])

    def has_snapshot(self, file: str) -> bool:
        """Whether a snapshot is on the disk."""
        return self._db.execute("SELECT 1 FROM snapshots WHERE file = ?", (file,)).fetchone() is not None

    def forget_snapshots(self, files: Sequence[str]) -> None:
        """Deletes the rows of snapshots whose files were deleted."""
        if not files:
            return
        sizes = [self._db.execute("SELECT total(size) FROM snapshots WHERE file = ?", (file,)).fetchone()[0] for file in files]
        with self._transaction():
            self._db.executemany("DELETE FROM snapshots WHERE file = ?", [(file,) for file in files])
        self.bytes -= int(sum(sizes))

    def drop_delivered(self, keep: int) -> None:
        """Deletes the messages that wait for no sink, except the `keep` newest and those about alerts; all if `keep` is 0."""
        kinds = f"{field_of('m', 'kind')} IN {_EVENTS} AND" if keep else ""
        self._drop(f"SELECT sequence FROM messages m WHERE {kinds} {_DELIVERED} ORDER BY sequence DESC LIMIT -1 OFFSET ?", keep)

    def drop_before(self, created: float) -> int:
        """Deletes messages older than `created`; returns how many of them were not delivered to every sink.

        The age of messages from a time when the clock was not set is unknown: they stay.
        """
        return self._drop(f"SELECT sequence FROM messages WHERE created >= {SET_AFTER} AND created < ?", created)

    def drop_oldest(self, size: float, only_delivered: bool = False) -> int:
        """Deletes the oldest messages, `size` bytes in total; returns how many of them were not delivered to every sink."""
        older = f"SELECT sequence, sum({_SIZE}) OVER (ORDER BY sequence) - {_SIZE} AS before FROM messages m"
        if only_delivered:
            older += f" WHERE {_DELIVERED}"
        return self._drop(f"SELECT sequence FROM ({older}) WHERE before < ?", size)

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def _drop(self, selection: str, value: float) -> int:
        rows = self._db.execute(f"SELECT sequence, {_SIZE} FROM messages WHERE sequence IN ({selection})", (value,)).fetchall()
        if not rows:
            return 0
        waiting = "SELECT count(DISTINCT sequence) FROM deliveries WHERE sequence = ?"
        with self._transaction():
            lost = sum(self._db.execute(waiting, (sequence,)).fetchone()[0] for sequence, _ in rows)
            self._db.executemany("DELETE FROM messages WHERE sequence = ?", [(sequence,) for sequence, _ in rows])
        self.bytes -= sum(size for _, size in rows)
        return int(lost)

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
