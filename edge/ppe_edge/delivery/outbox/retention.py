"""Which snapshots and messages the outbox drops when it becomes too large or they become too old."""

import sqlite3
from collections.abc import Callable

from ppe_edge.common.clock import DAY_S
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.database import OutboxDatabase
from ppe_edge.delivery.outbox.snapshot_folder import SnapshotFolder
from ppe_edge.delivery.outbox.storage_report import StorageReport

_FILL_AFTER_DROPPING = 0.9  # makes some room each time, so that a full outbox does not report with every alert


class Retention:
    """Drops the oldest snapshots first, then delivered messages, then the oldest messages.

    Args:
        config: Limits.
        snapshots: The files.
        report: Counts what is dropped.
        on_error: Called with an error of the disk that prevents dropping.
    """

    def __init__(
        self, config: OutboxConfig, snapshots: SnapshotFolder, report: StorageReport, on_error: Callable[[Exception], None]
    ) -> None:
        self._config, self._snapshots, self._report, self._on_error = config, snapshots, report, on_error

    def is_exceeded(self, database: OutboxDatabase) -> bool:
        """Whether snapshots and messages together exceed `max_mb`."""
        return database.bytes > self._config.max_mb * 1e6

    def enforce(self, database: OutboxDatabase, now: float) -> None:
        """Drops what exceeds the limits at the time `now`, UTC epoch seconds.

        Raises:
            sqlite3.Error: The messages cannot be deleted.
        """
        self.drop_snapshots(database, self._excess(database), now - self._config.max_snapshot_days * DAY_S)
        database.drop_delivered(self._config.keep_delivered)
        if excess := self._excess(database):
            database.drop_oldest(excess, only_delivered=True)
        lost = database.drop_before(now - self._config.max_message_days * DAY_S)
        if excess := self._excess(database):
            lost += database.drop_oldest(excess)
        self._report.count("alerts_dropped", lost)

    def drop_snapshots(self, database: OutboxDatabase, size: float, before: float = 0.0) -> bool:
        """Deletes the oldest snapshots: all that are older than `before`, and more until `size` bytes are free.

        Returns:
            Whether any was deleted.
        """
        freed, files = 0, []
        for file, created, bytes_ in database.snapshots():
            if created >= before and freed >= size:
                break
            freed += bytes_
            files.append(file)
        try:
            self._snapshots.delete(files)  # files first: that makes room, and a row without a file does no harm
            self._report.count("snapshots_dropped", len(files))
            database.forget_snapshots(files)
        except (sqlite3.Error, OSError) as error:
            self._on_error(error)
        return bool(files)

    def _excess(self, database: OutboxDatabase) -> float:
        """Bytes to free; 0 if the limit is not exceeded."""
        return database.bytes - _FILL_AFTER_DROPPING * self._config.max_mb * 1e6 if self.is_exceeded(database) else 0.0
