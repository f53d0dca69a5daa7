"""The history of alerts in the outbox, and what it says about their precision."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_messages import NOON, a_camera_event, a_closing, an_alert
from ppe_edge.delivery.alert_history import AlertHistory, AlertQuery, Precision
from ppe_edge.delivery.messages import Alert, AlertVerdict, utc
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.outbox import Outbox


class Box:
    """An outbox without sinks whose clock stands at the last message, and its history."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.now, self.folder = NOON, folder
        self.outbox = Outbox(OutboxConfig(**limits), folder, [], lambda: self.now)
        self.history = AlertHistory(folder / "outbox.db")

    def put(self, message: Any) -> Any:
        self.now = message.time.timestamp()
        self.outbox.put(message)
        return message

    def judge(self, alert: Alert, verdict: Any, **more: Any) -> AlertVerdict:
        more = {"time": alert.time, **more}
        return self.put(
            AlertVerdict(
                camera=alert.camera, violation=alert.violation, alert=alert.id, verdict=verdict, rule=alert.rule, **more
            )
        )

    def found(self, **query: Any) -> list[int]:
        """The track ids of the alerts, newest first."""
        return [past.alert.track for past in self.history.alerts(AlertQuery(**query))]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.history.close()
    made.outbox.close()


def test_alert_has_its_end_and_its_latest_verdict(box: Box) -> None:
    first, second = box.put(an_alert(1)), box.put(an_alert(2))
    box.put(a_camera_event())
    end = box.put(a_closing(1).model_copy(update={"alert": first.id}))
    box.judge(first, "confirmed")
    last = box.judge(first, "false_alarm", actual="helmet", comment="a <b>white</b> hood")
    newest, oldest = box.history.alerts(AlertQuery())
    assert (newest.alert, newest.closed, newest.verdict) == (second, None, None)
    assert (oldest.alert, oldest.closed, oldest.verdict) == (first, end, last)
    assert box.history.alert(first.id) == oldest
    assert [m.kind for m in box.history.messages_about(first.id)] == [
        "alert", "alert_closed", "alert_verdict", "alert_verdict",
    ]  # fmt: skip
    assert box.history.alert(last.id) is None and box.history.alert("' OR 1=1 --") is None


def test_query_selects_by_camera_rule_verdict_and_time(box: Box) -> None:
    version_2 = {"schema_version": 2, "severity": "warning"}
    alerts = [
        box.put(an_alert(0)),
        box.put(an_alert(1, camera="yard")),
        box.put(an_alert(2, rule="vest", **version_2)),
        box.put(an_alert(3)),
    ]
    box.judge(alerts[0], "confirmed")
    box.judge(alerts[1], "false_alarm")
    box.judge(alerts[3], None, acknowledged=True)
    assert box.found() == [3, 2, 1, 0]
    assert box.found(camera="yard") == [1] and box.found(camera="' OR '1") == []
    assert box.found(rule="vest") == [2] and box.found(rule="default") == [3, 1, 0]
    assert box.found(verdict="open") == [3, 2] and box.found(verdict="confirmed") == [0]
    assert box.found(verdict="false_alarm", camera="gate") == []
    assert box.found(since=NOON + 2) == [3, 2]
    box.put(an_alert(4, time=utc(1000.0), time_uncertain=True))
    box.outbox.put(an_alert(5))  # stored by a clock that is behind
    assert box.found(since=NOON + 3) == [5, 4, 3]
    page = box.history.alerts(AlertQuery(limit=3))
    assert box.found(before=page[-1].sequence) == [2, 1, 0]


def test_precision_counts_latest_verdict_of_selected_alerts(box: Box) -> None:
    alerts = [box.put(an_alert(n, camera="gate" if n < 4 else "yard")) for n in range(6)]
    for alert in alerts[:3]:
        box.judge(alert, "confirmed")
    box.judge(alerts[2], "false_alarm")  # a change of mind
    box.judge(alerts[4], "false_alarm")
    box.judge(alerts[5], "confirmed")
    box.judge(alerts[5], None)  # taken back
    assert box.history.precision(AlertQuery()) == Precision(confirmed=2, false_alarms=2)
    assert box.history.precision(AlertQuery(camera="gate", verdict="confirmed")) == Precision(confirmed=2, false_alarms=1)
    assert box.history.precision(AlertQuery(since=NOON + 2)) == Precision(confirmed=0, false_alarms=2)


@pytest.mark.parametrize(
    ("confirmed", "false_alarms", "low", "high"),
    [(8, 2, 0.490, 0.943), (10, 0, 0.722, 1.0), (0, 1, 0.0, 0.793)],  # Newcombe 1998, method 3, and by hand
)
def test_interval_is_that_of_wilson(confirmed: int, false_alarms: int, low: float, high: float) -> None:
    precision = Precision(confirmed=confirmed, false_alarms=false_alarms)
    assert precision.interval == pytest.approx((low, high), abs=5e-4)
    assert precision.value == confirmed / (confirmed + false_alarms)


def test_precision_without_verdicts_is_unknown() -> None:
    assert Precision(confirmed=0, false_alarms=0).value is Precision(confirmed=0, false_alarms=0).interval is None


def test_alerts_and_verdicts_stay_for_message_days_and_events_do_not(tmp_path: Path) -> None:
    box = Box(tmp_path, keep_delivered=2, max_message_days=40)
    alert = box.put(an_alert())
    box.judge(alert, "confirmed")
    events = [box.put(a_camera_event(n)).id for n in range(1, 6)]
    box.put(an_alert(100))  # later than the next check of the limits
    kept = [message.id for message in box.outbox.recent(100) if message.kind == "camera_event"]
    assert kept == [events[4], events[3]] and box.found(verdict="confirmed") == [0]
    box.put(an_alert(40 * 86400 + 200))
    assert len(box.found()) == 1
    assert [message.kind for message in box.outbox.recent(100)] == ["alert"]
    box.history.close()
    box.outbox.close()


def test_long_history_is_read_through_its_index(box: Box) -> None:
    ends = [a_closing(n).model_copy(update={"alert": f"other {n}"}) for n in range(1000)]
    rows = [(message.id, NOON, message.to_json()) for message in [*ends, *map(an_alert, range(50))]]
    with contextlib.closing(sqlite3.connect(box.folder / "outbox.db")) as database, database:
        database.executemany("INSERT INTO messages (id, created, body) VALUES (?, ?, ?)", rows)
    assert len(box.found()) == 50 and box.history._db is not None
    thousands = []
    box.history._db.set_progress_handler(lambda: thousands.append(1), 1000)
    box.found()
    assert len(thousands) < 50  # thousands of steps of SQLite; hundreds if it reads all ends for each alert
