"""Recognises damaged SQLite files and moves them aside, so that the box can continue with a new one."""

import contextlib
import itertools
import sqlite3
from pathlib import Path


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is damaged, or no database. A disk that cannot be read for a moment says so too."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def require_intact(database: sqlite3.Connection, thorough: bool) -> None:
    """Reads the whole file, and compares its indexes with its tables if `thorough`.

    Raises:
        sqlite3.DatabaseError: It is damaged.
    """
    [problem] = database.execute(f"PRAGMA {'integrity' if thorough else 'quick'}_check(1)").fetchone()
    if problem != "ok":
        error = sqlite3.DatabaseError(problem.splitlines()[-1])
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def put_away(file: Path) -> Path:
    """Renames a database that is closed, with the files of its log, to a free name such as outbox.damaged-1; returns it.

    Raises:
        OSError: It cannot be renamed.
    """
    number = next(n for n in itertools.count(1) if not file.with_suffix(f".damaged-{n}").exists())
    kept = file.with_suffix(f".damaged-{number}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{file}{suffix}").rename(f"{kept}{suffix}")
    return kept
