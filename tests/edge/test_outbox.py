import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alert_drawing import NOON, a_closing, an_alert
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ppe_edge.delivery.outbox import Delivery, Outbox, OutboxConfig
from ppe_edge.errors import EdgeError
from pydantic import ValidationError

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


def test_every_sink_gets_every_message_in_order_and_once(outbox: Outbox) -> None:
    sent = [outbox.put(an_alert(n)) for n in range(5)]
    for sink in ("hub", "file"):
        got = []
        while (delivery := outbox.claim(sink)) is not None:
            got.append(delivery.id)
            outbox.ack(delivery)
        assert got == sent
    assert outbox.stats().pending == {"hub": 0, "file": 0}


def test_one_sink_does_not_wait_for_another(outbox: Outbox) -> None:
    outbox.put(an_alert())
    delivery = outbox.claim("hub")
    assert delivery is not None
    outbox.ack(delivery)
    assert outbox.claim("hub") is None
    assert outbox.claim("file") is not None


@pytest.mark.parametrize(("unknown", "marked"), [(False, False), (True, True)])
def test_only_an_unknown_outcome_marks_the_next_attempt(outbox: Outbox, unknown: bool, marked: bool) -> None:
    outbox.put(an_alert())
    first = outbox.claim("hub")
    assert first is not None and not first.redelivered and first.body["redelivered"] is False
    outbox.nack(first, outcome_unknown=unknown)
    second = outbox.claim("hub")
    assert second is not None and (second.id, second.attempts) == (first.id, 1)
    assert second.redelivered is marked and second.body["redelivered"] is marked
    outbox.nack(second, outcome_unknown=False)
    third = outbox.claim("hub")
    assert third is not None and third.redelivered is marked  # once marked, always marked


def test_a_delayed_message_lets_others_go_ahead(outbox: Outbox, clock: Clock) -> None:
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


def test_the_snapshot_is_a_file_and_the_message_refers_to_it(outbox: Outbox, tmp_path: Path) -> None:
    message = outbox.put(an_alert(), b"picture")
    delivery = outbox.claim("hub")
    assert delivery is not None and delivery.snapshot == tmp_path / "snapshots" / f"{message}.jpg"
    assert delivery.snapshot.read_bytes() == b"picture"
    assert delivery.body["snapshot"] == {"file": f"{message}.jpg", "sha256": hashlib.sha256(b"picture").hexdigest()}
    assert outbox.snapshot_path("../outbox.db") is None


def test_a_restart_finds_everything_and_marks_what_was_under_way(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    first, second = outbox.put(an_alert(1)), outbox.put(a_closing(1))
    assert outbox.claim("hub") is not None  # and then nothing more is heard of it
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    found = []
    while (delivery := outbox.claim("hub")) is not None:
        found.append((delivery.id, delivery.redelivered))
        outbox.ack(delivery)
    assert found == [(first, True), (second, False)]
    assert [body["id"] for body in outbox.recent(10)] == [second, first]
    outbox.close()


def test_what_waits_for_a_sink_that_was_taken_out_waits_on(tmp_path: Path, clock: Clock) -> None:
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


def test_the_size_limit_drops_the_oldest_snapshots_and_says_so(tmp_path: Path, clock: Clock) -> None:
    # 20 pictures of 10 kB into 0.1 MB: whenever it is full, pictures go until it is 90 % full
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
    alerts = [d for d in got if d.body["kind"] == "alert"]
    assert [d.id for d in alerts] == sent  # no alert is lost
    kept = [d.snapshot is not None for d in alerts]
    assert kept == sorted(kept) and 0 < sum(kept) < 10  # the newest pictures are kept
    assert all(d.body["snapshot"] is None for d in alerts if d.snapshot is None)
    events = [d.body for d in got if d.body["kind"] == "storage_event"]
    assert {event["event"] for event in events} == {"snapshots_dropped"}
    assert sum(event["count"] for event in events) == 20 - sum(kept)
    assert len(list((tmp_path / "snapshots").iterdir())) == sum(kept)
    outbox.close()


def test_alerts_go_only_when_no_snapshot_is_left_and_that_is_told(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(max_mb=0.01), tmp_path, ["hub"], clock)
    sent = []
    for n in range(10, 60):
        clock.now += 1
        sent.append(outbox.put(an_alert(n), bytes(2000)))
    clock.now += 100
    bodies = []
    while (delivery := outbox.claim("hub")) is not None:
        bodies.append(delivery.body)
        outbox.ack(delivery)
    stats = outbox.stats()
    assert stats.snapshots == 0 and stats.dropped["snapshots_dropped"] == 50
    kept = [body["id"] for body in bodies if body["kind"] == "alert"]
    assert kept == sent[-len(kept) :] and 5 < len(kept) < 30  # the newest; an alert takes about 500 bytes of the 10 kB
    told = sum(body["count"] for body in bodies if body.get("event") == "alerts_dropped")
    assert 50 - len(kept) <= told <= 50 - len(kept) + 2  # reports are messages too, and are given up with the rest
    outbox.close()


def test_old_snapshots_go_before_old_messages(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(max_snapshot_days=1, max_message_days=3), tmp_path, ["hub"], clock)
    message = outbox.put(an_alert(), b"picture")
    clock.now += DAY + 1
    delivery = outbox.claim("hub")
    assert delivery is not None and delivery.id == message and delivery.snapshot is None
    outbox.nack(delivery, outcome_unknown=False)
    clock.now += 2 * DAY
    kinds = []
    while (found := outbox.claim("hub")) is not None:
        kinds.append((found.body["kind"], found.body.get("event")))
        outbox.ack(found)
    assert kinds == [("storage_event", "snapshots_dropped"), ("storage_event", "alerts_dropped")]
    outbox.close()


def test_delivered_messages_are_kept_for_the_page_and_no_longer(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(keep_delivered=3), tmp_path, ["hub"], clock)
    sent = [outbox.put(an_alert(n)) for n in range(10)]
    while (delivery := outbox.claim("hub")) is not None:
        outbox.ack(delivery)
    clock.now += 100
    outbox.claim("hub")
    assert [body["id"] for body in outbox.recent(100)] == sent[:-4:-1]
    outbox.close()


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="snapshots go before alerts"):
        OutboxConfig(max_snapshot_days=10, max_message_days=5)


def test_two_runtimes_do_not_share_a_state_folder(outbox: Outbox, tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="another runtime"):
        Outbox(OutboxConfig(), tmp_path, ["hub"])


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"my diary" * 1000)
    with pytest.raises(EdgeError, match=r"outbox\.db: expected an outbox"):
        Outbox(OutboxConfig(), tmp_path, ["hub"])
    assert (tmp_path / "outbox.db").read_bytes() == b"my diary" * 1000


def everything(outbox: Outbox, sink: str = "hub") -> list[dict[str, Any]]:
    """What waits for a sink, which confirms it all."""
    bodies = []
    while (delivery := outbox.claim(sink)) is not None:
        bodies.append(delivery.body)
        outbox.ack(delivery)
    return bodies


KILLED = """
import os, signal, sys
from pathlib import Path
from alert_drawing import NOON, a_closing, an_alert
from ppe_edge.delivery.outbox import Outbox, OutboxConfig
outbox = Outbox(OutboxConfig(), Path(sys.argv[1]), ["hub", "file"])
for n in (1, 2, 3):
    print(outbox.put(an_alert(n, zone="lane"), b"picture"))
outbox.put(a_closing(2))
outbox.note_seen({"gate-3": NOON + 63.5, "gate-2": NOON + 99, "gate-9": NOON})
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_leaves_no_alert_open_for_ever(tmp_path: Path) -> None:
    """Of three alerts the second was closed; the third was seen a minute later; of the first no more is known."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment(), timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    first, _, third = done.stdout.split()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"])
    for sink in ("hub", "file"):
        bodies = everything(outbox, sink)
        assert [body["kind"] for body in bodies] == ["alert", "alert", "alert"] + ["alert_closed"] * 3
        assert [body["end"] for body in bodies[3:]] == ["seen", "unknown", "unknown"]
        told = [(b["alert"], b["violation"], b["time"], b["started"], b["duration_s"]) for b in bodies[4:]]
        assert told == [
            (first, "gate-1", "2027-01-15T08:00:01Z", "2027-01-15T08:00:01Z", 0.0),
            (third, "gate-3", "2027-01-15T08:01:03.500000Z", "2027-01-15T08:00:03Z", 60.5),
        ]
        assert (bodies[5]["camera"], bodies[5]["class"], bodies[5]["track"], bodies[5]["zone"]) == ("gate", "none", 3, "lane")
        assert not any(body["redelivered"] for body in bodies)
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub", "file"])  # once, and not with every start
    assert everything(outbox) == everything(outbox, "file") == []
    outbox.close()


def test_an_alert_is_closed_though_its_message_was_given_up(tmp_path: Path, clock: Clock) -> None:
    outbox = Outbox(OutboxConfig(keep_delivered=0), tmp_path, ["hub"], clock)
    alert = outbox.put(an_alert())
    everything(outbox)
    clock.now += 100
    outbox.claim("hub")
    assert outbox.stats().stored == 0
    outbox.close()
    outbox = Outbox(OutboxConfig(), tmp_path, ["hub"], clock)
    assert [(b["kind"], b["alert"], b["end"]) for b in everything(outbox)] == [("alert_closed", alert, "unknown")]
    outbox.close()


WRITER = """
import sys
import tempfile
from pathlib import Path
from alert_drawing import an_alert
from ppe_edge.delivery.outbox import Outbox, OutboxConfig
outbox = Outbox(OutboxConfig(), Path(sys.argv[1]), ["hub"])
n = 0
while True:
    print(outbox.put(an_alert(n), b"picture"), flush=True)
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


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_kill_9_loses_nothing_that_put_returned(tmp_path: Path) -> None:
    put: set[str] = set()
    acked: set[str] = set()
    perhaps_acked: set[str] = set()  # killed between the ack and telling of it
    for round_ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment()
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
        if delivery.body["kind"] == "alert":
            left[delivery.id] = delivery
        outbox.ack(delivery)
    outbox.close()
    assert len(put) > 20 and acked
    assert put <= acked | set(left) | perhaps_acked
    assert not acked & set(left)
    assert all(delivery.snapshot is not None for delivery in left.values())


def test_kill_9_while_sending_marks_the_next_attempt(tmp_path: Path) -> None:
    script = WRITER.replace("if n % 3 == 2:", "if True:").replace("if n % 2:", "import time; time.sleep(99)\n        if n % 2:")
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment()
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
from alert_drawing import a_closing, an_alert
from ppe_edge.delivery.outbox import Outbox, OutboxConfig

folder = Path(sys.argv[1])
filler, now = folder / "filler", [1_800_000_000.0]
outbox = Outbox(OutboxConfig(max_held=1000), folder / "state", ["hub", "file"], lambda: now[0])

def put(n, picture=None):
    now[0] += 1
    return outbox.put(an_alert(n), picture)

def drain(sink):
    got = []
    while (delivery := outbox.claim(sink)) is not None:
        got.append((delivery.id, delivery.redelivered, delivery.body.get("event"), delivery.body["kind"]))
        outbox.ack(delivery)
    return got

put_ids = [put(n, bytes(5000)) for n in range(5)]
with filler.open("wb", buffering=0) as stream:  # somebody else fills the disk
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


def on_a_small_disk(folder: Path, script: str) -> dict[str, Any]:
    """What a script prints that is given a real disk of 2 MB: a tmpfs, in a mount namespace of the user's own."""
    inside = f'mount -t tmpfs -o size=2m none {folder} && exec {sys.executable} -c "$SCRIPT" {folder}'
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True).returncode
    ):
        pytest.skip("needs unshare and a kernel that lets users mount a tmpfs in a namespace of their own")
    done = subprocess.run(
        [*namespace, "sh", "-c", inside],
        env={**environment(), "SCRIPT": script},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout), "log": done.stderr}


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    result = on_a_small_disk(tmp_path, FULL_DISK)
    alerts = [row for row in result["full"] + result["after"] if row[3] == "alert"]
    assert result["held"] >= 20 and result["held_after"] == 0
    assert sorted(row[0] for row in alerts) == sorted(result["put"])  # to a sink that works: all, once
    assert {row[0] for row in result["full"]} >= set(result["put"])  # even while the disk is full
    assert [row[0] for row in result["file"] if row[3] == "alert"] == result["put"]  # to the other sink later, in order
    assert result["again"] == []  # a restart finds nothing left
    assert result["dropped"]["snapshot_not_stored"] > 0 and "alerts_dropped" not in result["dropped"]
    told = {row[2] for row in result["full"] + result["after"] if row[3] == "storage_event"}
    assert {"messages_held", "snapshot_not_stored", "snapshots_dropped"} <= told


FULL_FROM_THE_START = """
import json, os, sys
from pathlib import Path
from alert_drawing import a_closing, an_alert
from ppe_edge.delivery.outbox import Outbox, OutboxConfig

folder, now = Path(sys.argv[1]), [1_800_000_000.0]
result = {}

def open_outbox():
    return Outbox(OutboxConfig(), folder / "state", ["hub", "file"], lambda: now[0])

def drain(outbox, sink):
    got = []
    while (delivery := outbox.claim(sink)) is not None:
        got.append((delivery.id, delivery.body["kind"], delivery.body.get("end"), delivery.snapshot is not None))
        outbox.ack(delivery)
    return got

outbox = open_outbox()
result["before"] = outbox.put(an_alert(1), b"picture")
outbox.close()  # as the alert is still open: killed; but SQLite's files are gone, as after a power cut
with (folder / "filler").open("wb", buffering=0) as stream:
    try:
        while stream.write(bytes(4096)):
            pass
    except OSError:
        pass
outbox = open_outbox()
result["trouble"] = [outbox.trouble]
result["put"] = [outbox.put(an_alert(n), b"picture") for n in (2, 3)] + [outbox.put(a_closing(2))]
now[0] += 100
result["while_full"] = drain(outbox, "hub")
result["trouble"].append(outbox.trouble)
result["held"] = outbox.stats().held
(folder / "filler").unlink()
result["put"].append(outbox.put(an_alert(4), b"picture"))  # there is room for the picture before anybody looks again
now[0] += 100
result["hub"] = drain(outbox, "hub")
result["trouble"].append(outbox.trouble)
outbox._db.close()
outbox._guard.close()  # kill -9: all is on the disk by now
outbox = open_outbox()
result["file"] = drain(outbox, "file")
result["pictures"] = len(os.listdir(folder / "state" / "snapshots"))
outbox.close()
print(json.dumps(result))
"""


def test_a_disk_that_is_full_at_the_start_keeps_nothing_up_and_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    result = on_a_small_disk(tmp_path, FULL_FROM_THE_START)
    before, (second, third, closing, fourth) = result["before"], result["put"]
    assert [bool(trouble) for trouble in result["trouble"]] == [True, True, False]
    assert "the disk is full" in result["trouble"][0] and result["log"].count("the disk is full") == 1
    while_full = [row[:2] for row in result["while_full"]]  # from memory, at once
    assert while_full == [[second, "alert"], [third, "alert"], [closing, "alert_closed"]] and result["held"] == 3
    # with room comes what the disk held: the alert that was open then, and that nobody saw its end
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
    assert result["pictures"] == 2


class OutboxMachine(RuleBasedStateMachine):
    """The outbox against a list, with crashes in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.waiting: list[str] = []
        self.unsure: set[str] = set()
        self.count = 0
        self.unclosed: list[int] = []
        self.open()

    def open(self) -> None:
        self.outbox = Outbox(OutboxConfig(), self.folder, ["hub"], self.clock)

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.folder)

    @rule(picture=st.none() | st.binary(max_size=10))
    def put(self, picture: bytes | None) -> None:
        self.count += 1
        self.waiting.append(self.outbox.put(an_alert(self.count), picture))
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
        assert delivery.redelivered == (delivery.id in self.unsure)
        if end == "ack":
            self.outbox.ack(delivery)
            self.waiting.pop(0)
        elif end == "crash":
            self.unsure.add(delivery.id)
            self.crash()
        else:
            self.outbox.nack(delivery, outcome_unknown=end == "unknown")
            if end == "unknown":
                self.unsure.add(delivery.id)

    @rule()
    def crash(self) -> None:
        self.outbox._db.close()  # nothing is said goodbye to
        self.outbox._guard.close()
        self.open()
        closings = self.outbox.recent(len(self.unclosed))[::-1]
        assert [(c["violation"], c["end"]) for c in closings] == [(f"gate-{n}", "unknown") for n in self.unclosed]
        self.waiting += [c["id"] for c in closings]
        self.unclosed.clear()

    @invariant()
    def counts(self) -> None:
        assert self.outbox.stats().pending == {"hub": len(self.waiting)}


OutboxMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestOutboxMachine = OutboxMachine.TestCase
