"""Records what the rules count, in a thread of its own, so that a slow disk does not delay the cameras."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ppe_edge.common.clock import DAY_S, is_set
from ppe_edge.common.damaged import is_damaged
from ppe_edge.compliance.config import ComplianceConfig
from ppe_edge.compliance.store import BUCKET, UNKNOWN, ComplianceStore, Count, Key
from ppe_edge.rules.tally import CountedTrack

WRITE_INTERVAL = 30.0  # seconds; what was counted since the last write is lost with the process

_log = logging.getLogger(__name__)


class ComplianceRecorder:
    """Collects counted tracks in memory, and writes them to `state_dir`/compliance.db.

    Args:
        config: The settings.
        state_dir: The state folder.
        now: Returns the time by which figures are deleted as too old, UTC epoch seconds; see `Outbox.age_time`.
        after_write: Called in the recorder's thread after each successful write.

    Attributes:
        store: The figures on the disk.
        trouble: Why figures are in memory only, in one line; empty if they are on the disk.
    """

    def __init__(
        self,
        config: ComplianceConfig,
        state_dir: Path,
        now: Callable[[], float] = time.time,
        after_write: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = ComplianceStore(state_dir / "compliance.db")
        self.trouble = ""
        self._config, self._now, self._after_write = config, now, after_write
        self._lock = threading.Lock()  # of `_ended` and `_tracked`; not held while the disk is written
        self._ended: dict[Key, Count] = {}
        self._tracked: dict[Key, Count] = {}
        self._wanted = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="compliance", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        if self._config.enabled:
            self._thread.start()

    def add(self, camera: str, counted: Iterable[CountedTrack], correction: float) -> None:
        """Adds tracks that have ended. `correction` turns their times into those of the wall clock, seconds."""
        if self._config.enabled:
            with self._lock:
                _add(self._ended, camera, counted, correction)

    def write_soon(self, tracked: Iterable[tuple[str, list[CountedTrack], float]]) -> None:
        """Asks the thread to write; returns at once.

        Args:
            tracked: All tracks that have not ended: camera, tracks, correction.
        """
        with self._lock:
            self._tracked = {}
            for camera, counted, correction in tracked:
                _add(self._tracked, camera, counted, correction)
        self._wanted.set()

    def stop(self, timeout_s: float) -> None:
        """Writes what is left and ends the thread; gives up after `timeout_s`."""
        self._stopping = True
        self.write_soon(())
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._wanted.wait()
            self._wanted.clear()
            stopping = self._stopping  # before the last write, not after it
            if self._write():
                try:
                    self._after_write()
                except Exception:  # a report that fails must not end the figures
                    _log.exception("compliance: the report failed")
        self.store.close()

    def _write(self, is_new: bool = False) -> bool:
        """Writes the figures; returns whether they are on the disk. `is_new`: the file has just replaced a damaged one."""
        with self._lock:
            ended, tracked = self._ended, self._tracked
            self._ended = {}
        try:
            self.store.write(ended, tracked, self._now() - self._config.keep_days * DAY_S)
        except sqlite3.Error as error:
            with self._lock:
                for key, count in ended.items():
                    self._ended[key] = self._ended.get(key, Count()).plus(count)
            if is_damaged(error) and not is_new and self._is_put_away(error):
                return self._write(is_new=True)
            if not self.trouble:
                _log.error("compliance figures cannot be stored (%s): they are kept in memory until they can", error)
            self.trouble = f"compliance figures are in memory only, and a restart loses them ({error})"
            return False
        if self.trouble:
            _log.info("compliance figures are stored again")
        self.trouble = ""
        return True

    def _is_put_away(self, damage: sqlite3.Error) -> bool:
        """Puts the file away if it is damaged; returns whether it was, and could be."""
        try:
            kept = self.store.put_away_if_damaged()
        except (sqlite3.Error, OSError):
            return False
        if kept is not None:
            _log.critical(
                "compliance.db is damaged (%s), is kept as %s, and a new one begins without its figures", damage, kept
            )
        return kept is not None


def _add(figures: dict[Key, Count], camera: str, counted: Iterable[CountedTrack], correction: float) -> None:
    for track in counted:
        wall = track.first_seen + correction
        key = Key(int(wall // BUCKET * BUCKET) if is_set(wall) else UNKNOWN, camera, track.rule, track.zone or "")
        figures[key] = figures.get(key, Count()).plus(Count(not track.is_violation, track.is_violation))
