"""The outbox's tables: what is in them survives a power cut as soon as a method returns. Not for several threads at once."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SIZE = "length(CAST(body AS BLOB))"  # bytes, not characters
_ONE_DELIVERY = "sink = ? AND sequence = (SELECT sequence FROM messages WHERE id = ?)"
_DELIVERED = "SELECT sequence FROM messages m WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.sequence = m.sequence)"
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
CREATE TABLE IF NOT EXISTS open_alerts (
    violation TEXT PRIMARY KEY, body TEXT NOT NULL, last_seen REAL NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that a sink has not confirmed."""

    sequence: int
    attempts: int
    uncertain: bool  # an earlier attempt may have succeeded
    body: str


class OutboxDatabase:
    """Messages, which sinks they wait for, which snapshots are kept, and which alerts are not closed yet.

    Every method may raise `sqlite3.Error`.

    Attributes:
        bytes: Of messages and snapshots together.

    Args:
        file: Made if it is not there; None for one in memory.
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
        # a short log; it is written over, not shortened, so that a full disk leaves room in it for a while
        self._db.execute("PRAGMA wal_autocheckpoint=64")
        self._db.executescript(_TABLES)
        total = f"SELECT (SELECT total({_SIZE}) FROM messages) + (SELECT total(size) FROM snapshots)"
        self.bytes = int(self._db.execute(total).fetchone()[0])

    def insert(
        self,
        message_id: str,
        created: float,
        body: str,
        waiting: Mapping[str, Sequence[int]],
        snapshot: tuple[str, int] | None,
        opens: tuple[str, float] | None = None,
        closes: str | None = None,
    ) -> None:
        """Adds a message, all of it or nothing.

        Args:
            message_id: Its id.
            created: UTC epoch seconds.
            body: JSON.
            waiting: Sink -> attempts so far, and whether one of them may have succeeded (0 or 1).
            snapshot: File name and size in bytes.
            opens: The violation of which this message is the alert, and when it was seen, UTC epoch seconds.
            closes: The violation of which this message is the end.
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
        """The sink's oldest message whose id is `wanted`."""
        query = "SELECT sequence, id, attempts, uncertain FROM deliveries JOIN messages USING (sequence) WHERE sink = ?"
        for sequence, message_id, attempts, uncertain in self._db.execute(f"{query} ORDER BY sequence", (sink,)):
            if wanted(message_id):
                body = self._db.execute("SELECT body FROM messages WHERE sequence = ?", (sequence,)).fetchone()[0]
                return Waiting(sequence, attempts, bool(uncertain), body)
        return None

    def mark_tried(self, sink: str, sequence: int) -> None:
        """An attempt begins, of which nobody knows yet how it ends."""
        update = "UPDATE deliveries SET attempts = attempts + 1, uncertain = 1 WHERE sink = ? AND sequence = ?"
        self._db.execute(update, (sink, sequence))

    def set_uncertain(self, sink: str, message_id: str, uncertain: bool) -> None:
        """How the last attempt ended, as far as is known."""
        self._db.execute(f"UPDATE deliveries SET uncertain = ? WHERE {_ONE_DELIVERY}", (uncertain, sink, message_id))

    def confirm(self, deliveries: Iterable[tuple[str, str]]) -> None:
        """These (sink, message id) wait no more."""
        with self._transaction():
            self._db.executemany(f"DELETE FROM deliveries WHERE {_ONE_DELIVERY}", deliveries)

    def open_alerts(self) -> list[tuple[str, float]]:
        """(the alert, when its violation was last seen) of those whose end has not been put, oldest first."""
        return self._db.execute("SELECT body, last_seen FROM open_alerts ORDER BY last_seen, violation").fetchall()

    def note_seen(self, seen: Mapping[str, float]) -> None:
        """Violation -> when it was last seen, UTC epoch seconds; those that are not open are left out."""
        with self._transaction():
            rows = [(last, violation) for violation, last in seen.items()]
            self._db.executemany("UPDATE open_alerts SET last_seen = ? WHERE violation = ?", rows)

    def recent(self, count: int) -> list[str]:
        """The last messages, newest first."""
        return [row[0] for row in self._db.execute("SELECT body FROM messages ORDER BY sequence DESC LIMIT ?", (count,))]

    def pending(self) -> dict[str, int]:
        """Sink -> how many messages wait for it."""
        return dict(self._db.execute("SELECT sink, count(*) FROM deliveries GROUP BY sink").fetchall())

    def count_messages(self) -> int:
        """All, delivered ones too."""
        return int(self._db.execute("SELECT count(*) FROM messages").fetchone()[0])

    def snapshots(self) -> list[tuple[str, float, int]]:
        """(file, created, size), oldest first."""
        return self._db.execute("SELECT file, created, size FROM snapshots ORDER BY created, rowid").fetchall()

    def has_snapshot(self, file: str) -> bool:
        """Whether it is kept."""
        return self._db.execute("SELECT 1 FROM snapshots WHERE file = ?", (file,)).fetchone() is not None

    def forget_snapshots(self, files: Sequence[str]) -> None:
        """Their files are gone."""
        if not files:
            return
        self.bytes -= sum(size for file, _, size in self.snapshots() if file in set(files))
        with self._transaction():
            self._db.executemany("DELETE FROM snapshots WHERE file = ?", [(file,) for file in files])

    def drop_delivered(self, keep: int) -> None:
        """Deletes the messages that wait for no sink, except for the `keep` newest of them."""
        self._drop(f"{_DELIVERED} ORDER BY sequence DESC LIMIT -1 OFFSET ?", keep)

    def drop_before(self, created: float) -> int:
        """Deletes older messages; returns how many of them some sink has not confirmed."""
        return self._drop("SELECT sequence FROM messages WHERE created < ?", created)

    def drop_oldest(self, size: float) -> int:
        """Deletes the oldest messages of `size` bytes together; returns how many of them some sink has not confirmed."""
        older = f"SELECT sequence, sum({_SIZE}) OVER (ORDER BY sequence) - {_SIZE} AS before FROM messages"
        return self._drop(f"SELECT sequence FROM ({older}) WHERE before < ?", size)

    def close(self) -> None:
        """Ends it."""
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
