from collections.abc import Callable
from pathlib import Path

from example_messages import NOON
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.database import OutboxDatabase
from ppe_edge.delivery.outbox.retention import Retention
from ppe_edge.delivery.outbox.snapshot_folder import SnapshotFolder
from ppe_edge.delivery.outbox.storage_report import StorageReport


def filled(count: int) -> OutboxDatabase:
    """A database in memory with delivered alerts, one snapshot of 1,000 bytes each."""
    database = OutboxDatabase(None)
    for n in range(count):
        body = '{"kind": "alert"}'
        database.insert(message_id=str(n), created=NOON + n, body=body, waiting={}, snapshot=(f"{n}.jpg", 1000))
    return database


def steps_of(database: OutboxDatabase, work: Callable[[], object]) -> int:
    """Number of instructions of SQLite's virtual machine."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    database._db.set_progress_handler(count, 1)
    work()
    database._db.set_progress_handler(None, 1)
    return steps


def test_retention_with_nothing_to_drop_takes_as_many_steps_whatever_is_stored(tmp_path: Path) -> None:
    def steps(count: int) -> int:
        database = filled(count)
        retention = Retention(OutboxConfig(), SnapshotFolder(tmp_path), StorageReport(), lambda error: None)
        return steps_of(database, lambda: retention.enforce(database, NOON))

    assert steps(20) == steps(500)


def test_forget_snapshots_unknown_and_repeated_files_free_nothing() -> None:
    database = filled(3)
    before = database.bytes
    database.forget_snapshots(["1.jpg", "nowhere.jpg"])
    assert database.count_snapshots() == 2 and database.bytes == before - 1000
    database.forget_snapshots(["1.jpg"])
    assert database.bytes == before - 1000
    assert [file for file, _, _ in database.snapshots()] == ["0.jpg", "2.jpg"]
