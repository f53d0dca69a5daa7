"""Results of image checks that were kept: in the user's cache folder, and next to a prepared data set.

A result belongs to the content of a file. It is found by the path, without reading the file, if size, time of modification,
time of the last change of the inode, and inode are the same; all four, since a program can restore the first two. A file that
changed less than two seconds before it was read is read again the next time, since a later edit may get the same time stamps
(git's index has the same rule). Otherwise the file is read, and the result is found by the hash of its content.
"""

import json
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from ppe_yolo.core.files import write_json
from ppe_yolo.data.audit.image_check import VERSION, ImageCheck

KEPT_FILE = "image_checks.json"  # in the folder of a prepared data set
MAX_ROWS = 2_000_000  # about 700 MB
TIME_STEP = 2.0  # seconds: the coarsest time stamps, those of FAT
_BUSY = 60.0  # seconds to wait for another process that writes
_DAY = 86400
_AT_ONCE = 500  # paths in one query; old builds of SQLite accept 999 parameters
_SCHEMA = """
CREATE TABLE IF NOT EXISTS checks (
    path TEXT PRIMARY KEY, version TEXT, state TEXT, content TEXT, value TEXT, crc INTEGER, day INTEGER
);
CREATE INDEX IF NOT EXISTS by_content ON checks (content);
"""

T = TypeVar("T")
_Value = tuple[str, str, int]  # state, value, crc
_Row = tuple[str, str, str, int]  # path, state, value, crc
_log = logging.getLogger(__name__)


class KeptCheck(NamedTuple):
    """A result with the state of the file that it was computed from, see `file_state`."""

    state: str
    check: ImageCheck


def file_state(path: str | Path) -> str:
    """Identifies the state of a file, in one line; empty if the file is missing, or may still change without a new time stamp.

    Call it before the file is read, so that a change in between is noticed the next time.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (100,000 Path objects take a second)
    except OSError:
        return ""
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < TIME_STEP * 1e9:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


class CheckCache:
    """The user's cache, a SQLite file. Several processes and threads may use it at once.

    It never fails: a damaged file is replaced by an empty one, and a file that cannot be used is left alone; both are logged.

    Args:
        file: The file; missing folders are created.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._run(lambda c: None, None, is_first=True)

    def find(self, paths: Iterable[str]) -> dict[str, KeptCheck]:
        """The results of files, whatever their present state; without the damaged ones."""
        rows: list[_Row] = self._run(lambda c: _select(c, list(paths)), [])
        found = {path: kept for path, state, value, crc in rows if (kept := _parse(state, value, crc)) is not None}
        if len(found) < len(rows):
            _log.warning("%s: %d damaged entries: these images are checked again", self.file, len(rows) - len(found))
        return found

    def find_content(self, content: str) -> ImageCheck | None:
        """The result of any file with this content."""
        query = "SELECT state, value, crc FROM checks WHERE content = ? AND version = ? LIMIT 1"
        rows: list[_Value] = self._run(lambda c: c.execute(query, (content, VERSION)).fetchall(), [])
        kept = _parse(*rows[0]) if rows else None
        return kept.check if kept is not None and kept.check.content_hash == content else None

    def store(self, results: Mapping[str, KeptCheck]) -> None:
        """Adds or replaces the results of files."""
        rows = []
        for path, kept in results.items():
            value = json.dumps(kept.check.to_dict(), separators=(",", ":"))
            rows.append((path, VERSION, kept.state, kept.check.content_hash, value, _crc(kept.state, value), _today()))

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO checks VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            excess = connection.execute("SELECT count(*) FROM checks").fetchone()[0] - MAX_ROWS
            if excess > 0:
                oldest = "SELECT path FROM checks ORDER BY day LIMIT ?"
                connection.execute(f"DELETE FROM checks WHERE path IN ({oldest})", (excess,))

        self._run(write, None)

    def mark_used(self, paths: Iterable[str]) -> None:
        """Notes that results were used today: those that were not used for the longest time are removed first."""
        today = _today()
        rows = [(today, path, today) for path in paths]
        self._run(lambda c: c.executemany("UPDATE checks SET day = ? WHERE path = ? AND day < ?", rows), None)

    def close(self) -> None:
        """Closes the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, action: Callable[[sqlite3.Connection], T], default: T, *, is_first: bool = False) -> T:
        """Runs an action in a transaction; returns the default if the file cannot be used."""
        with self._lock:
            try:
                if is_first:
                    self._connection = self._open()
                if self._connection is None:
                    return default
                with self._connection:
                    return action(self._connection)
            except (OSError, sqlite3.OperationalError) as error:  # not writable, full, or locked by another process
                _log.warning("%s: the cache of image checks cannot be used (%s)", self.file, error)
                self.close()
            except sqlite3.DatabaseError as error:
                _log.warning("%s: the cache of image checks is damaged (%s): it starts empty", self.file, error)
                self.close()
                try:
                    self.file.unlink(missing_ok=True)
                    self._connection = self._open()
                except (OSError, sqlite3.Error) as failure:
                    _log.warning("%s: cannot be replaced (%s)", self.file, failure)
            return default

    def _open(self) -> sqlite3.Connection:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.file, timeout=_BUSY, check_same_thread=False)
        try:
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection


def _select(connection: sqlite3.Connection, paths: Sequence[str]) -> list[_Row]:
    rows: list[_Row] = []
    for start in range(0, len(paths), _AT_ONCE):
        part = paths[start : start + _AT_ONCE]
        marks = ",".join("?" * len(part))
        query = f"SELECT path, state, value, crc FROM checks WHERE version = ? AND path IN ({marks})"
        rows += connection.execute(query, (VERSION, *part)).fetchall()
    return rows


def _parse(state: str, value: str, crc: int) -> KeptCheck | None:
    try:
        return KeptCheck(state, ImageCheck.from_dict(json.loads(value))) if crc == _crc(state, value) else None
    except (ValueError, TypeError):
        return None


def _crc(state: str, value: str) -> int:
    return zlib.crc32(f"{state}\n{value}".encode())


def _today() -> int:
    return int(time.time()) // _DAY


def write_kept(path: Path, checks: Iterable[ImageCheck]) -> None:
    """Writes results for others who read the same images, see `read_kept`."""
    rows = [check.to_dict() for check in sorted(checks, key=lambda c: c.content_hash)]
    write_json(path, {"version": VERSION, "checks": rows})


def read_kept(path: Path) -> dict[str, ImageCheck]:
    """Reads the results next to a data set: hash of the content -> result. It is untrusted input.

    Returns:
        Nothing if there is no such file, if it is damaged, or if it was written with other versions of the decoders.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            _log.warning("%s: written by other versions (%s): the images are checked again", path, content["version"])
            return {}
        checks = [ImageCheck.from_dict(row) for row in content["checks"]]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("%s: cannot be used (%s): the images are checked again", path, error)
        return {}
    return {check.content_hash: check for check in checks}
