"""Alerts are stored in order, by a thread that never delays the frames, and survive failures of their snapshots."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from example_messages import a_clip, a_closing, an_alert
from helpers import child_environment, wait_until
from ppe_edge.delivery.alert_writer import CAPACITY, AlertWriter
from ppe_edge.delivery.messages import Alert
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.monitoring.telemetry import Collected, Telemetry


class Parts:
    """An alert writer with a real outbox."""

    def __init__(self, folder: Path, capacity: int = CAPACITY, start: bool = True) -> None:
        self.outbox = Outbox(OutboxConfig(), folder, ["hub"])
        self.telemetry = Telemetry(Collected(dict, dict, lambda: True))
        self.writer = AlertWriter(self.outbox, self.telemetry, capacity)
        self.released = threading.Event()
        if start:
            self.writer.start()

    def hangs(self) -> None:
        """Renders no snapshot before `released` is set."""
        self.released.wait(30)

    def stored(self) -> list[tuple[str, bool]]:
        """Kind, and whether there is a snapshot, of all stored messages, oldest first."""
        messages = reversed(self.outbox.recent(100))
        return [(message.kind, isinstance(message, Alert) and message.snapshot is not None) for message in messages]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path)
    yield parts
    parts.writer.close(10)
    parts.outbox.close()


def test_submit_returns_while_snapshot_is_rendered_and_keeps_order(parts: Parts) -> None:
    release = threading.Event()

    def slow() -> bytes:
        release.wait(30)
        return b"jpeg"

    start = time.monotonic()
    parts.writer.submit(an_alert(1), slow)
    parts.writer.submit(a_closing(1))
    parts.writer.submit(an_alert(2), lambda: b"jpeg")
    assert time.monotonic() - start < 5 and not release.is_set()
    assert parts.stored() == []
    release.set()
    wait_until(lambda: len(parts.stored()) == 3)
    assert parts.stored() == [("alert", True), ("alert_closed", False), ("alert", True)]


def test_alert_is_stored_before_it_is_logged_and_counted(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ppe_edge.delivery.alert_writer")
    parts.writer.submit(an_alert(1), lambda: None, "bare head")
    wait_until(lambda: "gate: alert: bare head, track 1, score 0.75" in caplog.text)
    assert parts.stored() == [("alert", False)]
    assert b'ppe_edge_alerts_total{camera="gate",kind="alert"} 1.0' in parts.telemetry.text()


def test_failed_snapshot_or_clip_is_named_and_does_not_lose_its_message(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> bytes:
        raise RuntimeError("no memory for the image")

    parts.writer.submit(an_alert(1), fails)
    parts.writer.submit(a_clip(1), fails)
    parts.writer.submit(an_alert(2), lambda: b"jpeg")
    wait_until(lambda: len(parts.stored()) == 3)
    assert parts.stored() == [("alert", False), ("alert_clip", False), ("alert", True)]
    assert b'ppe_edge_faults_total{where="alert"} 2.0' in parts.telemetry.text()
    outcome = "could not be made (see below): its message is sent without it"
    assert caplog.messages == [f"gate: the {what} of track 1 {outcome}" for what in ("snapshot", "clip")]


def test_failed_store_is_counted_and_next_message_is_stored(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put = parts.outbox.put
    monkeypatch.setattr(parts.outbox, "put", lambda message, jpeg: put(message, jpeg) if message.track > 1 else 1 / 0)
    parts.writer.submit(an_alert(1))
    parts.writer.submit(an_alert(2))
    wait_until(parts.stored)
    assert parts.stored() == [("alert", False)] and "gate: the alert of track 1 could not be stored" in caplog.messages
    assert b'ppe_edge_faults_total{where="alert"} 1.0' in parts.telemetry.text()


def test_submit_with_full_queue_waits_for_room(tmp_path: Path) -> None:
    parts = Parts(tmp_path, capacity=1)
    submitting = threading.Thread(target=lambda: [parts.writer.submit(an_alert(n), parts.hangs) for n in range(4)])
    submitting.start()
    submitting.join(0.2)
    assert submitting.is_alive() and not parts.stored()
    parts.released.set()
    submitting.join(30)
    assert parts.writer.close(30) and parts.stored() == [("alert", False)] * 4
    parts.writer.submit(an_alert(4))  # fills the queue, and nobody takes it any more
    assert parts.writer.close(0.05)
    parts.outbox.close()


def test_spare_work_is_done_in_order_and_dropped_before_alerts_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts(tmp_path, capacity=4, start=False)
    done: list[int] = []
    for number in range(4):
        parts.writer.submit_spare(lambda number=number: done.append(number), "a sample")  # type: ignore[misc]
    parts.writer.submit(an_alert(1))
    assert caplog.messages == ["a sample is dropped: the disk does not keep up"] * 2
    assert parts.writer.close(30) and done == [0, 1] and parts.stored() == [("alert", False)]
    parts.outbox.close()


def test_close_before_start_stores_submitted_messages(tmp_path: Path) -> None:
    parts = Parts(tmp_path, start=False)
    parts.writer.submit(an_alert(1))
    assert parts.writer.close(30) and parts.stored() == [("alert", False)]
    parts.outbox.close()


def test_writer_that_hangs_is_stuck(parts: Parts) -> None:
    assert not parts.writer.is_stuck(0.05)
    parts.writer.submit(an_alert(1), parts.hangs)
    wait_until(lambda: parts.writer.is_stuck(0.05))
    parts.released.set()
    wait_until(lambda: not parts.writer.is_stuck(0.05))


def test_close_stores_what_is_queued(parts: Parts) -> None:
    for number in range(10):
        parts.writer.submit(an_alert(number), lambda: b"jpeg")
        parts.writer.submit(a_closing(number))
    assert parts.writer.close(30)
    assert parts.stored() == [("alert", True), ("alert_closed", False)] * 10


def test_close_reports_alerts_that_cannot_be_stored_in_time(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    parts.writer.submit(an_alert(1), parts.hangs)
    assert not parts.writer.close(0.1)
    assert "the disk does not respond" in caplog.text
    parts.released.set()


def test_note_seen_waits_for_alert_of_violation(parts: Parts, tmp_path: Path) -> None:
    parts.writer.submit(an_alert(1), lambda: b"jpeg")
    parts.writer.note_seen({"gate-1": an_alert(1).time.timestamp() + 60})
    assert parts.writer.close(30)
    parts.outbox.close()
    parts.outbox = Outbox(OutboxConfig(), tmp_path, ["hub"])
    [closing, _] = parts.outbox.recent(2)
    assert closing.kind == "alert_closed" and closing.duration_s == 60.0


KILLED = """
import sys
from pathlib import Path
from example_messages import a_closing, an_alert
from ppe_edge.delivery.alert_writer import AlertWriter
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.monitoring.telemetry import Collected, Telemetry
import logging
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
outbox = Outbox(OutboxConfig(), Path(sys.argv[1]), ["hub"])
writer = AlertWriter(outbox, Telemetry(Collected(dict, dict, lambda: True)))
writer.start()
for number in range(10**9):
    writer.submit(an_alert(number), lambda: b"jpeg")
    if number % 2:
        writer.submit(a_closing(number))
"""


def test_kill_loses_no_alert_that_was_logged(tmp_path: Path) -> None:
    environment = child_environment()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.wait()
    logged = {int(line.split("track ")[1].split(",")[0]) for line in lines if line.endswith("\n") and "alert:" in line}
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"])
    messages = list(reversed(outbox.recent(10**6)))
    outbox.close()
    alerts = [message for message in messages if isinstance(message, Alert)]
    assert len(logged) > 10 and logged <= {alert.track for alert in alerts}
    assert [alert.track for alert in alerts] == list(range(len(alerts)))  # in order, without gaps
    assert all(alert.snapshot is not None for alert in alerts)
    positions = {(message.kind, message.track): place for place, message in enumerate(messages)}  # type: ignore[union-attr]
    for alert in alerts:
        assert positions["alert", alert.track] < positions["alert_closed", alert.track]
