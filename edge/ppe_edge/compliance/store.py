"""The figures on the disk: SQLite, a row per quarter of an hour, camera, rule and zone. Thread-safe.

Objects that are still tracked are kept apart, and replaced as a whole each time. If the process is killed, the next one adds
them to the figures once. So nothing counts twice, and what was counted since the last write is lost.
"""

import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ppe_edge.common.damaged import is_damaged, put_away, require_intact

BUCKET = 900  # seconds: all time zones differ by whole quarters of an hour
UNKNOWN = 0  # bucket of what was counted while the clock was not set
_KEY = "bucket INTEGER NOT NULL, camera TEXT NOT NULL, rule TEXT NOT NULL, zone TEXT NOT NULL"
_ROW = f"{_KEY}, compliant INTEGER NOT NULL, violations INTEGER NOT NULL, PRIMARY KEY (bucket, camera, rule, zone)"
_TABLES = f"""
CREATE TABLE IF NOT EXISTS figures ({_ROW}) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tracked ({_ROW}) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reported (start INTEGER NOT NULL);
"""
_ADD = "ON CONFLICT DO UPDATE SET compliant = compliant + excluded.compliant, violations = violations + excluded.violations"


class Key(NamedTuple):
    """What a figure is about; `zone` is empty without zones."""

    bucket: int
    camera: str
    rule: str
    zone: str


class Count(NamedTuple):
    """Tracked objects without and with violation."""

    compliant: int = 0
    violations: int = 0

    def plus(self, other: "Count") -> "Count":
        """Returns the sum of both."""
        return Count(self.compliant + other.compliant, self.violations + other.violations)


Figures = Mapping[Key, Count]


class ComplianceStore:
    """The file. It is opened when it is first needed, and again after a failure.

    Every method may raise `sqlite3.Error`.

    Args:
        file: Created if it does not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def write(self, ended: Figures, tracked: Figures, keep_from: float) -> None:
        """Adds figures, replaces those of what is still tracked, and deletes those before `keep_from`, UTC epoch seconds."""
        with self._lock, self._open() as db:
            db.executemany(f"INSERT INTO figures VALUES (?, ?, ?, ?, ?, ?) {_ADD}", [(*k, *c) for k, c in ended.items()])
            db.execute("DELETE FROM tracked")
            db.executemany("INSERT INTO tracked VALUES (?, ?, ?, ?, ?, ?)", [(*k, *c) for k, c in tracked.items()])
            db.execute("DELETE FROM figures WHERE bucket > 0 AND bucket < ?", (keep_from,))

    def read(self, start: float, end: float) -> dict[Key, Count]:
        """Returns the figures of the time from `start` to `end`, UTC epoch seconds, with those of what is still tracked."""
        both = "SELECT * FROM figures UNION ALL SELECT * FROM tracked"
        query = f"SELECT * FROM ({both}) WHERE bucket >= ? AND bucket < ? ORDER BY bucket, camera, rule, zone"
        with self._lock, self._open() as db:
            rows = db.execute(query, (start, end)).fetchall()
        figures: dict[Key, Count] = {}
        for *key, compliant, violations in rows:
            figures[Key(*key)] = figures.get(Key(*key), Count()).plus(Count(compliant, violations))
        return figures

    def last_report(self) -> int:
        """Returns the start of the latest period that was reported, UTC epoch seconds; 0 if there is none."""
        with self._lock, self._open() as db:
            return int(db.execute("SELECT max(start) FROM reported").fetchone()[0] or 0)

    def note_report(self, start: int) -> None:
        """Notes that the period from `start` on was reported."""
        with self._lock, self._open() as db:
            db.execute("DELETE FROM reported")
            db.execute("INSERT INTO reported VALUES (?)", (start,))

    def put_away_if_damaged(self) -> Path | None:
        """Renames the file if it is damaged, and not only unreadable for a moment; returns its new name.

        Raises:
            OSError: It cannot be renamed.
        """
        with self._lock:
            self._close()
            try:
                require_intact(self._open(), thorough=True)
                return None
            except sqlite3.Error as error:
                if not is_damaged(error):
                    raise
            self._close()
            return put_away(self._file)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        """Returns the connection; as a context, it commits, or rolls back if there is an exception."""
        if self._db is None:
            db = sqlite3.connect(self._file, check_same_thread=False)
            try:
                require_intact(db, thorough=False)
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(_TABLES)
                with db:  # what a process that was killed tracked
                    db.execute(f"INSERT INTO figures SELECT * FROM tracked WHERE true {_ADD}")
                    db.execute("DELETE FROM tracked")
            except sqlite3.Error:
                db.close()
                raise
            self._db = db
        return self._db
