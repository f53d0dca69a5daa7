"""The figures on the disk: killed processes, full disks and clocks that are set."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import child_environment, wait_until
from ppe_edge.compliance.config import ComplianceConfig
from ppe_edge.compliance.recorder import ComplianceRecorder
from ppe_edge.compliance.store import UNKNOWN, ComplianceStore, Count, Key
from ppe_edge.rules.tally import CountedTrack
from small_disk import run_on_small_disk

BUCKET = 1_800_000_000  # 2027-01-15 08:00 UTC
GATE, YARD = Key(BUCKET, "gate", "default", ""), Key(BUCKET, "yard", "default", "lane")


def track(first_seen: float, is_violation: bool = False, zone: str | None = None) -> CountedTrack:
    return CountedTrack(rule="default", zone=zone, first_seen=first_seen, is_violation=is_violation)


def read_all(folder: Path) -> dict[Key, Count]:
    store = ComplianceStore(folder / "compliance.db")
    try:
        return store.read(0, 1e11)
    finally:
        store.close()


def test_store_adds_ended_and_replaces_tracked(tmp_path: Path) -> None:
    store = ComplianceStore(tmp_path / "c.db")
    store.write({GATE: Count(1, 2)}, {GATE: Count(1, 0), YARD: Count(0, 1)}, 0)
    assert store.read(0, 1e11) == {GATE: Count(2, 2), YARD: Count(0, 1)}
    store.write({GATE: Count(1, 0)}, {}, 0)  # the head at the gate has gone
    assert store.read(0, 1e11) == {GATE: Count(2, 2)}
    assert store.read(0, BUCKET) == {} and store.read(BUCKET, BUCKET + 1) == {GATE: Count(2, 2)}


def test_store_drops_figures_older_than_limit(tmp_path: Path) -> None:
    store = ComplianceStore(tmp_path / "c.db")
    old, unknown = GATE._replace(bucket=BUCKET - 900), GATE._replace(bucket=UNKNOWN)
    store.write({old: Count(1, 0), unknown: Count(1, 0), GATE: Count(1, 0)}, {}, BUCKET)
    assert set(store.read(0, 1e11)) == {unknown, GATE}


WRITER = """
import sys
from pathlib import Path
from ppe_edge.compliance.store import ComplianceStore, Count, Key
store, key = ComplianceStore(Path(sys.argv[1])), Key(1800000000, "gate", "default", "")
while True:
    store.write({key: Count(1, 0)}, {key: Count(0, 1)}, 0)
    print("written", flush=True)
"""


def test_killed_process_loses_nothing_written_and_counts_nothing_twice(tmp_path: Path) -> None:
    """Each write adds one, and one is tracked all the time: it counts once for each process."""
    written = 0
    for kills in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "compliance.db")],
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
        written += 3 + process.stdout.read().count("written\n")
        process.wait()
        [(key, count)] = read_all(tmp_path).items()
        assert key == GATE and count.violations == kills
        assert count.compliant - written in (0, 1)  # the last write may not have been printed
        written = count.compliant


def test_recorder_writes_what_is_left_when_it_stops(tmp_path: Path) -> None:
    recorder = ComplianceRecorder(ComplianceConfig(), tmp_path)
    recorder.start()
    recorder.add("gate", [track(BUCKET - 3600 + 899), track(BUCKET - 3600, True)], 3600.0)
    recorder.add("gate", [track(BUCKET + 900)], 0.0)
    recorder.stop(20.0)
    assert read_all(tmp_path) == {GATE: Count(1, 1), GATE._replace(bucket=BUCKET + 900): Count(1, 0)}


def test_clock_set_back_adds_to_figures(tmp_path: Path) -> None:
    recorder = ComplianceRecorder(ComplianceConfig(), tmp_path)
    recorder.start()
    for correction in (0.0, -900.0, 0.0):
        recorder.add("gate", [track(BUCKET + 10)], correction)
    recorder.stop(20.0)
    assert read_all(tmp_path) == {GATE._replace(bucket=BUCKET - 900): Count(1, 0), GATE: Count(2, 0)}


def test_time_of_unset_clock_is_unknown(tmp_path: Path) -> None:
    recorder = ComplianceRecorder(ComplianceConfig(), tmp_path)
    recorder.start()
    recorder.add("gate", [track(1000.0)], 0.0)
    recorder.stop(20.0)
    assert read_all(tmp_path) == {GATE._replace(bucket=UNKNOWN): Count(1, 0)}


def test_disabled_recorder_keeps_nothing(tmp_path: Path) -> None:
    recorder = ComplianceRecorder(ComplianceConfig(enabled=False), tmp_path)
    recorder.start()
    recorder.add("gate", [track(BUCKET)], 0.0)
    recorder.stop(20.0)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import json, os, sys, time
from pathlib import Path
from ppe_edge.compliance.config import ComplianceConfig
from ppe_edge.compliance.recorder import ComplianceRecorder
from ppe_edge.rules.tally import CountedTrack
folder, filler = Path(sys.argv[1]), Path(sys.argv[1]) / "filler"
def fill():
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
def wait(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        recorder.write_soon([])
        time.sleep(0.05)
fill()
recorder = ComplianceRecorder(ComplianceConfig(), folder)
recorder.start()
recorder.add("gate", [CountedTrack(rule="default", zone=None, first_seen=1.8e9, is_violation=False)], 0.0)
wait(lambda: recorder.trouble)
full = recorder.trouble
filler.unlink()
wait(lambda: not recorder.trouble)
again = recorder.trouble
recorder.stop(5.0)
print(json.dumps({"full": full, "again": again, "rows": [list(k) + list(c) for k, c in recorder.store.read(0, 1e11).items()]}))
"""


def test_full_disk_keeps_figures_in_memory_and_is_reported(tmp_path: Path) -> None:
    result = run_on_small_disk(tmp_path, "256k", FULL_DISK)
    assert result["full"].startswith("compliance figures are in memory only, and a restart loses them (")
    assert result["again"] == "" and result["rows"] == [[*GATE, 1, 0]]


@pytest.mark.parametrize("intact", [0, 8192])
def test_damaged_file_is_put_away_and_figures_are_written_again(tmp_path: Path, intact: int) -> None:
    """With two intact pages, the file can be opened and written."""
    file = tmp_path / "compliance.db"
    store = ComplianceStore(file)
    store.write({GATE._replace(bucket=BUCKET + 900 * n): Count(1, 0) for n in range(1000)}, {}, 0)
    store.close()
    damaged = file.read_bytes()[:intact] + b"no database" * 1000
    file.write_bytes(damaged)
    recorder = ComplianceRecorder(ComplianceConfig(), tmp_path)
    recorder.start()
    recorder.add("gate", [track(BUCKET)], 0.0)
    recorder.stop(20.0)
    assert recorder.trouble == "" and read_all(tmp_path) == {GATE: Count(1, 0)}
    assert (tmp_path / "compliance.damaged-1").read_bytes() == damaged


def test_file_that_cannot_be_read_for_a_moment_is_not_put_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = ComplianceRecorder(ComplianceConfig(), tmp_path)
    write, errors = recorder.store.write, [sqlite3.DatabaseError("malformed")]
    errors[0].sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def fail_once(*figures: Any) -> None:
        if errors:
            raise errors.pop()
        write(*figures)

    monkeypatch.setattr(recorder.store, "write", fail_once)
    recorder.start()
    recorder.add("gate", [track(BUCKET)], 0.0)
    recorder.write_soon([])
    wait_until(lambda: recorder.trouble)
    recorder.stop(20.0)
    assert recorder.trouble == "" and read_all(tmp_path) == {GATE: Count(1, 0)}
    assert not (tmp_path / "compliance.damaged-1").exists()
