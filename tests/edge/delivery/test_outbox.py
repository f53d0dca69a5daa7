import contextlib
import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ppe_edge.common.clock as clock_module
import pytest
from example_messages import NOON, a_camera_event, a_closing, an_alert
from helpers import child_environment, wait_until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ppe_edge.delivery.alert_history import AlertHistory, AlertQuery
from ppe_edge.delivery.messages import Alert, AlertClosed, Message, StorageEvent
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.database import OutboxDatabase
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.outbox.records import Delivery
from ppe_edge.errors import EdgeError
from pydantic import ValidationError
from small_disk import run_on_small_disk

DAY = 86400.0


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    yield outbox
    outbox.close()


def test_claim_returns_every_message_once_and_in_order_to_each_sink(outbox: Outbox) -> None:
    sent = [outbox.put(an_alert(n)) for n in range(5)]
    for sink in ("hub", "file"):
        got = []
        while (delivery := outbox.claim(sink)) is not None:
            got.append(delivery.id)
            outbox.ack(delivery)
        assert got == sent
    assert outbox.stats().pending == {"hub": 0, "file": 0}


def test_claim_does_not_wait_for_other_sinks(outbox: Outbox) -> None:
    outbox.put(an_alert())
    delivery = outbox.claim("hub")
    assert delivery is not None
    outbox.ack(delivery)
    assert outbox.claim("hub") is None
    assert outbox.claim("file") is not None


def test_snapshots_of_lost_outbox_are_kept_until_too_old(tmp_path: Path) -> None:
    evidence = tmp_path / "snapshots" / "alert.jpg"
    evidence.parent.mkdir()
    evidence.write_bytes(b"jpeg")
    now = [1000.0]
    outbox = Outbox(OutboxConfig(max_snapshot_days=1), tmp_path, ["hub"], lambda: now[0])
    for days, is_kept in ((0.9, True), (0.2, False)):
        now[0] += days * 86400
        outbox.put(a_camera_event())
        assert evidence.exists() is is_kept
    outbox.close()


@pytest.mark.parametrize(("unknown", "marked"), [(False, False), (True, True)])
def test_nack_marks_next_attempt_only_if_outcome_is_unknown(outbox: Outbox, unknown: bool, marked: bool) -> None:
    outbox.put(an_alert())
    first = outbox.claim("hub")
    assert first is not None and not first.redelivered and first.message.redelivered is False
    outbox.nack(first, outcome_unknown=unknown)
    second = outbox.claim("hub")
    assert second is not None and (second.id, second.attempts) == (first.id, 1)
    assert second.redelivered is marked and second.message.redelivered is marked
    outbox.nack(second, outcome_unknown=False)
    third = outbox.claim("hub")
    assert third is not None and third.redelivered is marked  # once marked, always marked


def test_nack_with_delay_lets_later_messages_overtake(outbox: Outbox, clock: Clock) -> None:
    bad, good = outbox.put(an_alert(1)), outbox.put(an_alert(2))
    refused = outbox.claim("hub")
    assert refused is not None and refused.id == bad
    outbox.nack(refused, outcome_unknown=False, delay_s=60)
    delivery = outbox.claim("hub")
    assert delivery is not None and delivery.id == good
    outbox.ack(delivery)
    clock.now += 59
    assert outbox.claim("hub") is None
    clock.now += 2
    again = outbox.claim("hub")
    assert again is not None and again.id == bad


def test_put_writes_snapshot_file_and_refers_to_it(outbox: Outbox, tmp_path: Path) -> None:
    message = outbox.put(an_alert(), b"jpeg")
    delivery = outbox.claim("hub")
    assert delivery is not None and delivery.snapshot == tmp_path / "snapshots" / f"{message}.jpg"
    assert delivery.snapshot.read_bytes() == b"jpeg"
    assert isinstance(delivery.message, Alert) and delivery.message.snapshot is not None
    assert delivery.message.snapshot.file == f"{message}.jpg"
    assert delivery.message.snapshot.sha256 == hashlib.sha256(b"jpeg").hexdigest()
    assert outbox.snapshot_path("../outbox.db") is None


def test_restart_keeps_messages_and_marks_those_in_flight(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    first, second = outbox.put(an_alert(1)), outbox.put(a_closing(1))
    assert outbox.claim("hub") is not None  # and its outcome is never known
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    found = []
    while (delivery := outbox.claim("hub")) is not None:
        found.append((delivery.id, delivery.redelivered))
        outbox.ack(delivery)
    assert found == [(first, True), (second, False)]
    assert [message.id for message in outbox.recent(10)] == [second, first]
    outbox.close()


def test_restart_tries_messages_that_were_set_aside_later_and_one_at_a_time(tmp_path: Path, clock: Clock) -> None:
    """Each of their attempts may fail slowly, and must not hold up a new alert."""
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    bad = [outbox.put(an_alert(n)) for n in range(3)]
    for _ in bad:
        delivery = outbox.claim("hub")
        assert delivery is not None
        outbox.set_aside(delivery, "413", outcome_unknown=False, delay_s=3600)
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    assert outbox.stats().set_aside == {"hub": 3, "file": 0} and outbox.set_aside_messages("hub") == set(bad)
    new = outbox.put(an_alert(9))
    due = []
    for _ in range(5):  # now, and after 10, 20, 30 and 40 s
        while (delivery := outbox.claim("hub")) is not None and delivery.id not in due:
            if delivery.id in (*bad, new):  # not the messages that close the alerts of the process before
                due.append(delivery.id)
            outbox.ack(delivery)
        due.append("later")
        clock.now += 10
    assert due == [new, "later", bad[0], "later", bad[1], "later", bad[2], "later", "later"]
    assert outbox.stats().set_aside["hub"] == 0
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    assert outbox.stats().set_aside == {"hub": 0, "file": 0}
    outbox.close()


def test_restart_keeps_messages_of_removed_sink(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    message = outbox.put(a_closing())
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["file"], clock)
    assert outbox.stats().pending == {"file": 1, "hub": 1}
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    delivery = outbox.claim("hub")
    assert delivery is not None and delivery.id == message
    outbox.close()


def test_size_limit_drops_oldest_snapshots_and_reports_it(tmp_path: Path, clock: Clock) -> None:
    # 20 snapshots of 10 kB into 0.1 MB: whenever it is full, snapshots are dropped until it is 90 % full
    outbox = Outbox(OutboxConfig(max_mb=0.1), tmp_path, ["hub"], clock)
    sent = []
    for n in range(20):
        clock.now += 1
        sent.append(outbox.put(an_alert(n), bytes(10_000)))
    clock.now += 100
    got: list[Delivery] = []
    while (delivery := outbox.claim("hub")) is not None:
        got.append(delivery)
        outbox.ack(delivery)
    alerts = [d for d in got if isinstance(d.message, Alert)]
    assert [d.id for d in alerts] == sent  # no alert is lost
    kept = [d.snapshot is not None for d in alerts]
    assert kept == sorted(kept) and 0 < sum(kept) < 10  # the newest snapshots are kept
    assert all(d.message.snapshot is None for d in alerts if d.snapshot is None)
    events = [d.message for d in got if isinstance(d.message, StorageEvent)]
    assert {event.event for event in events} == {"snapshots_dropped"}
    assert sum(event.count for event in events) == 20 - sum(kept)
    assert len(list((tmp_path / "snapshots").iterdir())) == sum(kept)
    outbox.close()


def test_size_limit_drops_alerts_only_without_snapshots_and_reports_it(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(max_mb=0.01), tmp_path, ["hub"], clock)
    sent = []
    for n in range(10, 60):
        clock.now += 1
        sent.append(outbox.put(an_alert(n), bytes(2000)))
    clock.now += 100
    messages = everything(outbox)
    stats = outbox.stats()
    assert stats.snapshots == 0 and stats.dropped["snapshots_dropped"] == 50
    kept = [message.id for message in messages if isinstance(message, Alert)]
    assert kept == sent[-len(kept) :] and 5 < len(kept) < 30  # the newest; an alert takes about 500 bytes of the 10 kB
    events = [message for message in messages if isinstance(message, StorageEvent)]
    reported = sum(event.count for event in events if event.event == "alerts_dropped")
    assert 50 - len(kept) <= reported <= 50 - len(kept) + 2  # reports are messages too, and are dropped like the others
    outbox.close()


def test_age_limit_drops_snapshots_before_messages(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(max_snapshot_days=1, max_message_days=3), tmp_path, ["hub"], clock)
    message = outbox.put(an_alert(), b"jpeg")
    clock.now += DAY + 1
    delivery = outbox.claim("hub")
    assert delivery is not None and delivery.id == message and delivery.snapshot is None
    outbox.nack(delivery, outcome_unknown=False)
    clock.now += 2 * DAY
    kinds = [(message.kind, getattr(message, "event", None)) for message in everything(outbox)]
    assert kinds == [("storage_event", "snapshots_dropped"), ("storage_event", "alerts_dropped")]
    outbox.close()


@pytest.mark.parametrize("error", [1000 - NOON, -40 * DAY, 0.0, 40 * DAY])
def test_wrong_clock_makes_no_alert_too_old(tmp_path: Path, clock: Clock, error: float) -> None:
    """The clock is right for the first alert and wrong for the second; then a time server sets it."""
    server: list[float | None] = [None]

    def restart(number: int | None = None) -> list[tuple[int, bool]]:
        """Returns the tracks of the alerts, newest first, and whether they have their snapshots."""
        limits = OutboxConfig(max_snapshot_days=1, max_message_days=3)
        outbox = Outbox(limits, tmp_path, ["hub"], clock, lambda: server[0])
        if number is not None:
            outbox.put(an_alert(number), b"jpeg")
        for _ in range(2):  # the clock is corrected at the first time, and what is too old is dropped at the second
            outbox.claim("hub")
            clock.now, server[0] = clock.now + 20, server[0] and server[0] + 20
        alerts = [message for message in outbox.recent(9) if isinstance(message, Alert)]
        found = [(alert.track, outbox.snapshot_path(f"{alert.id}.jpg") is not None) for alert in alerts]
        outbox.close()
        return found

    restart(1)
    clock.now += error
    assert restart(2) == [(2, True), (1, True)]
    clock.now, server[0] = NOON, NOON + DAY / 2  # the process starts before the time server answers
    for days, expected in ((0.0, [True, True]), (0.25, [True, True]), (1.0, [False, False])):
        clock.now, server[0] = clock.now + days * DAY, server[0] + days * DAY
        assert restart() == [(2, expected[0]), (1, expected[1])]
    server[0] += 2 * DAY
    assert restart() == []


def test_alert_held_on_full_disk_under_wrong_clock_is_not_too_old_once_time_server_sets_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    clock.now = NOON - 400 * DAY
    server: list[float | None] = [None]
    with monkeypatch.context() as full:
        full.setattr(OutboxDatabase, "insert", fail)
        outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock, lambda: server[0])
        alert = outbox.put(an_alert(), b"jpeg")
        server[0] = NOON
        clock.now += 60
        delivery = outbox.claim("hub")
        assert delivery is not None and outbox.trouble
        outbox.nack(delivery, outcome_unknown=False)
    with monkeypatch.context() as nearly_full:  # correcting many rows takes more room than storing one
        nearly_full.setattr(OutboxDatabase, "shift", fail)
        clock.now += 60
        delivery = outbox.claim("hub")
        assert delivery is not None and not outbox.trouble
        outbox.nack(delivery, outcome_unknown=False)
    clock.now += 60
    assert alert in [message.id for message in everything(outbox)]
    assert outbox.stats().snapshots == 1 and outbox.age_time() == NOON
    outbox.close()


def test_age_counts_only_while_box_runs_if_no_time_server_sets_its_clock(tmp_path: Path, clock: Clock) -> None:
    kept = []
    for number in range(3):
        outbox = Outbox(OutboxConfig(max_snapshot_days=1), tmp_path, ["hub"], clock)
        if number == 0:
            outbox.put(an_alert(), b"jpeg")
        clock.now += 0.4 * DAY
        outbox.claim("hub")
        kept.append(outbox.stats().snapshots)
        outbox.close()
        clock.now += 40 * DAY
    assert kept == [1, 1, 0]


def test_outbox_retries_in_time_when_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = [NOON]
    monkeypatch.setattr(clock_module.time, "time", lambda: wall[0])
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"])
    outbox.put(an_alert())
    delivery = outbox.claim("hub")
    assert delivery is not None
    outbox.nack(delivery, outcome_unknown=False, delay_s=0.1)
    wall[0] = NOON - DAY
    wait_until(lambda: outbox.claim("hub"), 10.0)
    outbox.close()


def test_keep_delivered_limits_messages_kept_for_page(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(keep_delivered=3), tmp_path, ["hub"], clock)
    sent = [outbox.put(a_camera_event(n)) for n in range(10)]
    while (delivery := outbox.claim("hub")) is not None:
        outbox.ack(delivery)
    clock.now += 100
    outbox.claim("hub")
    assert [message.id for message in outbox.recent(100)] == sent[:-4:-1]
    outbox.close()


def test_config_with_contradicting_limits_is_rejected() -> None:
    with pytest.raises(ValidationError, match="snapshots are dropped before alerts"):
        OutboxConfig(max_snapshot_days=10, max_message_days=5)


def test_second_outbox_in_same_folder_is_rejected(outbox: Outbox, tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="another runtime"):
        Outbox(OutboxConfig(), tmp_path, ["hub"])


def test_damaged_database_is_put_away_unchanged_and_reported(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "outbox.db").write_bytes(b"damaged" * 1000)
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "old.jpg").write_bytes(b"jpeg")
    outbox = Outbox(OutboxConfig(max_snapshot_days=1), tmp_path, ["hub"], clock)
    outbox.put(an_alert())
    kinds = [(message.kind, getattr(message, "event", None)) for message in everything(outbox)]
    assert kinds == [("alert", None), ("storage_event", "alerts_dropped")]
    assert (tmp_path / "outbox.damaged-1").read_bytes() == b"damaged" * 1000
    assert outbox.stats().snapshots == 1  # it may be evidence, and is deleted when it is too old
    clock.now += DAY + 1
    outbox.claim("hub")
    assert list((tmp_path / "snapshots").iterdir()) == []
    outbox.close()


def test_database_that_cannot_be_read_for_a_moment_is_not_put_away(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two failures, it counts as damaged, and the event tells how many messages are lost."""
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    for number in range(3):
        outbox.put(an_alert(number))
    outbox.close()
    failures = [1]
    check = OutboxDatabase.check

    def fail(database: OutboxDatabase, thorough: bool) -> None:
        check(database, thorough)
        if failures[0]:
            failures[0] -= 1
            error = sqlite3.DatabaseError("unable to get the page. error code=522")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

    monkeypatch.setattr(OutboxDatabase, "check", fail)
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    assert outbox.stats().pending == {"hub": 6, "file": 6}  # alerts and their ends
    assert not (tmp_path / "outbox.damaged-1").exists()
    outbox.close()
    failures[0] = 2
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"], clock)
    [event] = everything(outbox)
    assert isinstance(event, StorageEvent) and event.count == 6
    assert event.detail.endswith("kept as outbox.damaged-1, with 6 messages not sent")
    outbox.close()


def test_database_that_is_damaged_while_box_runs_loses_no_new_alert(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    for number in range(50):
        outbox.put(an_alert(number))
    history = AlertHistory(tmp_path / "outbox.db")
    assert len(history.alerts(AlertQuery())) == 50
    database = outbox._store._db._db
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "outbox.db").open("r+b") as file:
        file.seek(8192)
        file.write(b"damaged" * (((tmp_path / "outbox.db").stat().st_size - 8192) // 7))
    database.execute("PRAGMA shrink_memory")  # SQLite keeps what it has read
    alert = an_alert(100)
    outbox.put(alert, b"jpeg")
    clock.now += 100
    assert alert.id in [message.id for message in everything(outbox)]
    assert not outbox.trouble
    assert [past.alert.id for past in history.alerts(AlertQuery())] == [alert.id]
    history.close()
    outbox.close()


def test_damage_that_only_a_thorough_check_finds_is_put_away(tmp_path: Path, clock: Clock) -> None:
    """An index names a row at another time than the table."""
    outbox = Outbox(OutboxConfig(max_snapshot_days=1, max_message_days=1), tmp_path, ["hub"], clock)
    outbox.put(an_alert())
    outbox.close()
    for statement in (
        "CREATE TABLE kept AS SELECT * FROM sqlite_master WHERE type = 'index' AND tbl_name = 'messages' AND sql IS NOT NULL",
        "DELETE FROM sqlite_master WHERE name IN (SELECT name FROM kept)",
        "UPDATE messages SET created = created - 1",
        "INSERT INTO sqlite_master SELECT * FROM kept",
    ):
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as database:
            database.execute("PRAGMA writable_schema = 1")
            database.execute(statement)
    outbox = Outbox(OutboxConfig(max_snapshot_days=1, max_message_days=1), tmp_path, ["hub"], clock)
    assert not (tmp_path / "outbox.damaged-1").exists()
    clock.now += 2 * DAY
    outbox.claim("hub")  # deletes the row, and finds that the index does not fit
    clock.now += 20
    assert outbox.claim("hub") is not None
    assert (tmp_path / "outbox.damaged-1").exists()
    outbox.close()


def test_database_that_is_opened_again_keeps_clock_and_open_alerts(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    outbox.put(an_alert())
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    clock.now += 1800
    outbox._store._handle_error(error)
    outbox.claim("hub")
    assert outbox.age_time() == NOON + 1800 and [message.kind for message in everything(outbox)] == ["alert"]
    outbox.close()


def everything(outbox: Outbox, sink: str = "hub") -> list[Message]:
    """Claims and confirms all messages that wait for a sink."""
    messages = []
    while (delivery := outbox.claim(sink)) is not None:
        messages.append(delivery.message)
        outbox.ack(delivery)
    return messages


def crash(outbox: Outbox) -> None:
    """Releases the files as the kernel does when the process is killed: nothing else happens."""
    outbox._store._db.close()
    outbox._store._guard.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from example_messages import NOON, a_closing, an_alert
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.outbox.config import OutboxConfig
outbox = Outbox(OutboxConfig(), Path(sys.argv[1]), ["hub", "file"])
for n in (1, 2, 3):
    print(outbox.put(an_alert(n, zone="lane"), b"jpeg"))
outbox.put(a_closing(2))
outbox.note_seen({"gate-3": NOON + 63.5, "gate-2": NOON + 99, "gate-9": NOON})
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_restart_after_kill_closes_open_alerts(tmp_path: Path) -> None:
    """Of three alerts, the second was closed, and the third was last seen a minute later."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=child_environment(), timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    first, _, third = done.stdout.split()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"])
    for sink in ("hub", "file"):
        messages = everything(outbox, sink)
        assert [message.kind for message in messages] == ["alert", "alert", "alert"] + ["alert_closed"] * 3
        bodies = [json.loads(message.to_json()) for message in messages[3:]]
        assert [body["end"] for body in bodies] == ["seen", "unknown", "unknown"]
        closings = [(b["alert"], b["violation"], b["time"], b["started"], b["duration_s"]) for b in bodies[1:]]
        assert closings == [
            (first, "gate-1", "2027-01-15T08:00:01Z", "2027-01-15T08:00:01Z", 0.0),
            (third, "gate-3", "2027-01-15T08:01:03.500000Z", "2027-01-15T08:00:03Z", 60.5),
        ]
        assert (bodies[2]["camera"], bodies[2]["class"], bodies[2]["track"], bodies[2]["zone"]) == ("gate", "none", 3, "lane")
        assert not any(message.redelivered for message in messages)
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"])  # once, and not at every start
    assert everything(outbox) == everything(outbox, "file") == []
    outbox.close()


def test_restart_closes_alert_whose_message_was_dropped(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(keep_delivered=0), tmp_path, ["hub"], clock)
    alert = outbox.put(an_alert())
    everything(outbox)
    clock.now += 100
    outbox.claim("hub")
    assert outbox.stats().stored == 0
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    [closing] = everything(outbox)
    assert isinstance(closing, AlertClosed) and (closing.alert, closing.end) == (alert, "unknown")
    outbox.close()


WRITER = """
import sys
import tempfile
from pathlib import Path
from example_messages import an_alert
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.outbox.config import OutboxConfig
outbox = Outbox(OutboxConfig(), Path(sys.argv[1]), ["hub"])
n = 0
while True:
    print(outbox.put(an_alert(n), b"jpeg"), flush=True)
    if n % 3 == 2:
        delivery = outbox.claim("hub")
        print("sent", delivery.id, delivery.redelivered, flush=True)
        if n % 2:
            outbox.ack(delivery)
            print("acked", delivery.id, flush=True)
        else:
            outbox.nack(delivery, outcome_unknown=False)
    n += 1
"""


def test_kill_loses_no_message_that_put_returned(tmp_path: Path) -> None:
    put: set[str] = set()
    acked: set[str] = set()
    perhaps_acked: set[str] = set()  # killed between the ack and its report
    for round_ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=child_environment()
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(10 + 7 * round_)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        last_sent = ""
        for words in (line.split() for line in lines if line.endswith("\n")):
            if words[0] == "acked":
                acked.add(words[1])
            elif words[0] == "sent":
                last_sent = words[1]
            else:
                put.add(words[0])
        perhaps_acked.add(last_sent)
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"])
    left = {}
    while (delivery := outbox.claim("hub")) is not None:
        if isinstance(delivery.message, Alert):
            left[delivery.id] = delivery
        outbox.ack(delivery)
    outbox.close()
    assert len(put) > 20 and acked
    assert put <= acked | set(left) | perhaps_acked
    assert not acked & set(left)
    assert all(delivery.snapshot is not None for delivery in left.values())


def test_kill_while_sending_marks_next_attempt(tmp_path: Path) -> None:
    script = WRITER.replace("if n % 3 == 2:", "if True:").replace("if n % 2:", "import time; time.sleep(99)\n        if n % 2:")
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=child_environment()
    )
    assert writer.stdout is not None
    message, sent = writer.stdout.readline().split()[0], writer.stdout.readline().split()
    writer.kill()
    writer.wait()
    assert sent == ["sent", message, "False"]
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"])
    delivery = outbox.claim("hub")
    assert delivery is not None and (delivery.id, delivery.redelivered) == (message, True)
    outbox.close()


FULL_DISK = """
import json, sys
from pathlib import Path
from example_messages import a_closing, an_alert
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.outbox.config import OutboxConfig

folder = Path(sys.argv[1])
filler, now = folder / "filler", [1_800_000_000.0]
outbox = Outbox(OutboxConfig(max_held=1000), folder / "state", ["hub", "file"], lambda: now[0])

def put(n, snapshot=None):
    now[0] += 1
    return outbox.put(an_alert(n), snapshot)

def drain(sink):
    got = []
    while (delivery := outbox.claim(sink)) is not None:
        message = delivery.message
        got.append((delivery.id, delivery.redelivered, getattr(message, "event", None), message.kind))
        outbox.ack(delivery)
    return got

put_ids = [put(n, bytes(5000)) for n in range(5)]
with filler.open("wb", buffering=0) as stream:  # another program fills the disk
    try:
        while stream.write(bytes(4096)):
            pass
    except OSError:
        pass
n = 5
while outbox.stats().held < 20:
    put_ids.append(put(n, bytes(5000)))
    n += 1
    assert n < 5000
held = outbox.stats().held
while_full = drain("hub")
filler.unlink()
now[0] += 100
after = drain("hub")
stats = outbox.stats()
other = drain("file")
for number in range(n):
    outbox.put(a_closing(number))
drain("hub"), drain("file")
outbox.close()
outbox = Outbox(OutboxConfig(), folder / "state", ["hub", "file"])
again = drain("hub") + drain("file")
print(json.dumps({"put": put_ids, "held": held, "full": while_full, "after": after, "file": other, "again": again,
                  "held_after": stats.held, "dropped": stats.dropped}))
"""


def test_full_disk_loses_no_message(tmp_path: Path) -> None:
    result = run_on_small_disk(tmp_path, "2m", FULL_DISK)
    alerts = [row for row in result["full"] + result["after"] if row[3] == "alert"]
    assert result["held"] >= 20 and result["held_after"] == 0
    assert sorted(row[0] for row in alerts) == sorted(result["put"])  # a working sink gets all of them, once
    assert {row[0] for row in result["full"]} >= set(result["put"])  # even while the disk is full
    assert [row[0] for row in result["file"] if row[3] == "alert"] == result["put"]  # to the other sink later, in order
    assert result["again"] == []  # a restart finds nothing left
    assert result["dropped"]["snapshot_not_stored"] > 0 and "alerts_dropped" not in result["dropped"]
    reported = {row[2] for row in result["full"] + result["after"] if row[3] == "storage_event"}
    assert {"messages_held", "snapshot_not_stored", "snapshots_dropped"} <= reported


FULL_FROM_THE_START = """
import json, os, sys
from pathlib import Path
from example_messages import a_closing, an_alert
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.outbox.config import OutboxConfig

folder, now = Path(sys.argv[1]), [1_800_000_000.0]
result = {}

def open_outbox():
    return Outbox(OutboxConfig(), folder / "state", ["hub", "file"], lambda: now[0])

def drain(outbox, sink):
    got = []
    while (delivery := outbox.claim(sink)) is not None:
        message = delivery.message
        got.append((delivery.id, message.kind, getattr(message, "end", None), delivery.snapshot is not None))
        outbox.ack(delivery)
    return got

outbox = open_outbox()
result["before"] = outbox.put(an_alert(1), b"jpeg")
outbox.close()  # the alert is still open, as after a kill; SQLite's own files are gone, as after a power cut
with (folder / "filler").open("wb", buffering=0) as stream:
    try:
        while stream.write(bytes(4096)):
            pass
    except OSError:
        pass
outbox = open_outbox()
result["trouble"] = [outbox.trouble]
result["put"] = [outbox.put(an_alert(n), b"jpeg") for n in (2, 3)] + [outbox.put(a_closing(2))]
now[0] += 100
result["while_full"] = drain(outbox, "hub")
result["trouble"].append(outbox.trouble)
result["held"] = outbox.stats().held
(folder / "filler").unlink()
result["put"].append(outbox.put(an_alert(4), b"jpeg"))  # there is room for the snapshot before the disk is checked again
now[0] += 100
result["hub"] = drain(outbox, "hub")
result["trouble"].append(outbox.trouble)
outbox._store._db.close()
outbox._store._guard.close()  # like kill -9: everything is on the disk by now
outbox = open_outbox()
result["file"] = drain(outbox, "file")
result["snapshots"] = len(os.listdir(folder / "state" / "snapshots"))
outbox.close()
print(json.dumps(result))
"""


def test_disk_full_at_start_loses_no_message_once_there_is_room(tmp_path: Path) -> None:
    result = run_on_small_disk(tmp_path, "2m", FULL_FROM_THE_START)
    before, (second, third, closing, fourth) = result["before"], result["put"]
    assert [bool(trouble) for trouble in result["trouble"]] == [True, True, False]
    assert "the disk is full" in result["trouble"][0] and result["log"].count("the disk is full") == 1
    while_full = [row[:2] for row in result["while_full"]]  # from memory, at once
    assert while_full == [[second, "alert"], [third, "alert"], [closing, "alert_closed"]] and result["held"] == 3
    # once there is room: the alert that was open, and the message that closes it with an unknown end
    hub = [row for row in result["hub"] if row[1] != "storage_event"]
    assert hub[:2] == [[before, "alert", None, True], [fourth, "alert", None, True]]
    assert [row[1:] for row in hub[2:]] == [["alert_closed", "unknown", False]]
    file = [(row[0], row[1], row[2]) for row in result["file"] if row[1] != "storage_event"]
    unknown = next(row[0] for row in result["hub"] if row[2] == "unknown")
    assert file[:6] == [
        (before, "alert", None),
        (second, "alert", None),
        (third, "alert", None),
        (closing, "alert_closed", "seen"),
        (fourth, "alert", None),
        (unknown, "alert_closed", "unknown"),
    ]
    assert [row[1:] for row in file[6:]] == [("alert_closed", "unknown")] * 2  # third and fourth, by the last start
    assert result["snapshots"] == 2


def test_database_written_by_version_0_1_is_readable(tmp_path: Path, clock: Clock) -> None:
    body = (
        '{"schema_version":1,"id":"b5a3c1c2-0000-4000-8000-000000000001","time":"2027-01-15T08:00:03Z","redelivered":false,'
        '"kind":"alert","camera":"gate","class":"none","score":0.75,"box_xyxy":[1.0,2.0,30.0,40.0],"frame_size":[480,640],'
        '"track":3,"zone":null,"violation":"gate-3","model":{"name":"tiny.onnx","sha256":"' + "0" * 64 + '","provenance":'
        '{"recipe":"tiny"}},"snapshot":null}'
    )
    Outbox(OutboxConfig(), tmp_path, ["hub"], clock).close()
    add_row(tmp_path, "b5a3c1c2-0000-4000-8000-000000000001", body)
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    [message] = everything(outbox)
    assert message == an_alert(3, id="b5a3c1c2-0000-4000-8000-000000000001") and message.to_json() == body
    outbox.close()


def test_unreadable_message_is_logged_and_does_not_delay_others(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    Outbox(OutboxConfig(), tmp_path, ["hub"], clock).close()
    add_row(tmp_path, "from-the-future", '{"schema_version":3,"kind":"alert"}')
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    sent = outbox.put(an_alert())
    assert [message.id for message in everything(outbox)] == [message.id for message in outbox.recent(5)] == [sent]
    assert outbox.stats().pending == {"hub": 1}  # kept, and visible
    assert "a stored message cannot be read, and stays where it is" in caplog.text
    outbox.close()


def add_row(state_dir: Path, message_id: str, body: str) -> None:
    """Adds a message that waits for the sink `hub`."""
    with contextlib.closing(sqlite3.connect(state_dir / "outbox.db")) as database, database:
        row = (message_id, NOON, body)
        sequence = database.execute("INSERT INTO messages (id, created, body) VALUES (?, ?, ?)", row).lastrowid
        database.execute("INSERT INTO deliveries (sink, sequence) VALUES ('hub', ?)", (sequence,))


class OutboxMachine(RuleBasedStateMachine):
    """Compares the outbox with a list, with crashes in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.waiting: list[str] = []
        self.uncertain: set[str] = set()
        self.count = 0
        self.unclosed: list[int] = []
        self.open()

    def open(self) -> None:
        self.outbox = Outbox(OutboxConfig(), self.folder, ["hub"], self.clock)

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.folder)

    @rule(snapshot=st.none() | st.binary(max_size=10))
    def put(self, snapshot: bytes | None) -> None:
        self.count += 1
        self.waiting.append(self.outbox.put(an_alert(self.count), snapshot))
        self.unclosed.append(self.count)

    @precondition(lambda self: self.unclosed)
    @rule(data=st.data())
    def close_alert(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.unclosed))
        self.unclosed.remove(number)
        self.waiting.append(self.outbox.put(a_closing(number)))

    @rule(end=st.sampled_from(["ack", "known", "unknown", "crash"]))
    def deliver(self, end: str) -> None:
        delivery = self.outbox.claim("hub")
        if not self.waiting:
            assert delivery is None
            return
        assert delivery is not None
        assert delivery.id == self.waiting[0]
        assert delivery.redelivered == (delivery.id in self.uncertain)
        if end == "ack":
            self.outbox.ack(delivery)
            self.waiting.pop(0)
        elif end == "crash":
            self.uncertain.add(delivery.id)
            self.crash()
        else:
            self.outbox.nack(delivery, outcome_unknown=end == "unknown")
            if end == "unknown":
                self.uncertain.add(delivery.id)

    @rule()
    def crash(self) -> None:
        crash(self.outbox)
        self.open()
        closings = self.outbox.recent(len(self.unclosed))[::-1]
        assert [(c.violation, c.end) for c in closings] == [(f"gate-{n}", "unknown") for n in self.unclosed]
        self.waiting += [c.id for c in closings]
        self.unclosed.clear()

    @invariant()
    def counts(self) -> None:
        assert self.outbox.stats().pending == {"hub": len(self.waiting)}


OutboxMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestOutboxMachine = OutboxMachine.TestCase
