import threading

import pytest
from ppe_edge.pictures.writer import SnapshotWriter


def test_writer_stores_jobs_in_order_of_submission() -> None:
    stored: list[tuple[str, bytes | None]] = []
    writer = SnapshotWriter()
    writer.start()
    writer.submit(lambda jpeg: stored.append(("alert", jpeg)), lambda: b"jpeg")
    writer.submit(lambda jpeg: stored.append(("closed", jpeg)))
    assert writer.stop(5.0)
    assert stored == [("alert", b"jpeg"), ("closed", None)]


def test_submit_with_slow_disk_returns_before_message_is_stored() -> None:
    disk, stored = threading.Event(), []

    def store(jpeg: bytes | None) -> None:
        disk.wait(10.0)
        stored.append(jpeg)

    writer = SnapshotWriter()
    writer.start()
    writer.submit(store, lambda: b"jpeg")
    assert not stored and not writer.stop(0.05)
    assert writer.busy_for() > 0
    disk.set()
    assert writer.stop(5.0) and stored == [b"jpeg"]
    assert writer.busy_for() == 0


def test_writer_with_failing_snapshot_stores_alert_without_it(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise ValueError("no JPEG")

    faults: list[int] = []
    stored: list[bytes | None] = []
    writer = SnapshotWriter(on_fault=lambda: faults.append(1))
    writer.start()
    writer.submit(stored.append, fail)
    assert writer.stop(5.0)
    assert stored == [None] and len(faults) == 1 and "its alert is sent without it" in caplog.text


def test_writer_with_failing_store_continues_and_reports_fault(caplog: pytest.LogCaptureFixture) -> None:
    def fail(jpeg: bytes | None) -> None:
        raise ValueError("no disk")

    faults: list[int] = []
    stored: list[bytes | None] = []
    writer = SnapshotWriter(on_fault=lambda: faults.append(1))
    writer.start()
    writer.submit(fail)
    writer.submit(stored.append)
    assert writer.stop(5.0)
    assert stored == [None] and len(faults) == 1 and "could not be stored" in caplog.text


def test_submit_with_full_queue_waits_for_room() -> None:
    disk = threading.Event()
    stored: list[int] = []
    writer = SnapshotWriter(capacity=1)
    writer.start()

    def submit_all() -> None:
        for i in range(4):
            writer.submit(lambda _, i=i: (disk.wait(10.0), stored.append(i)))  # type: ignore[misc]

    submitting = threading.Thread(target=submit_all)
    submitting.start()
    submitting.join(0.2)
    assert submitting.is_alive() and not stored
    disk.set()
    submitting.join(5.0)
    assert writer.stop(5.0) and stored == [0, 1, 2, 3]


def test_stop_before_start_stores_submitted_jobs() -> None:
    stored: list[bytes | None] = []
    writer = SnapshotWriter()
    writer.submit(stored.append)
    assert writer.stop(5.0) and stored == [None]


def test_stop_twice_with_full_queue_of_stopped_writer_returns_true() -> None:
    writer = SnapshotWriter(capacity=1)
    writer.start()
    assert writer.stop(5.0)
    writer.submit(lambda _: None)  # nobody takes it any more
    assert writer.stop(0.05)
