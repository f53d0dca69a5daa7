"""The alerts of the past, with their ends and verdicts, as the outbox keeps them for `outbox.max_message_days`."""

import math
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppe_edge.delivery.messages import Alert, AlertClosed, AlertVerdict, Judgement, Message, parse_message, utc
from ppe_edge.delivery.outbox.database import field_of
from ppe_edge.rules.config import DEFAULT_RULE

Z95 = 1.959964  # quantile of the normal distribution for an interval of 95 %


@dataclass(frozen=True, kw_only=True)
class AlertQuery:
    """Which alerts are wanted; None stands for all.

    Attributes:
        camera: Name of the camera.
        rule: Name of the rule.
        verdict: What was decided; `open` if nothing was.
        since: UTC epoch seconds. Alerts whose time is uncertain are always wanted.
        before: Only alerts before this one, by `PastAlert.sequence`.
        limit: Maximum number of alerts.
    """

    camera: str | None = None
    rule: str | None = None
    verdict: Judgement | Literal["open"] | None = None
    since: float = 0.0
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, kw_only=True)
class PastAlert:
    """An alert and what became of it.

    Attributes:
        sequence: Its place among all messages.
        alert: The alert.
        closed: Its end; None while it is open.
        verdict: The latest verdict; None if there is none.
    """

    sequence: int
    alert: Alert
    closed: AlertClosed | None
    verdict: AlertVerdict | None


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How many of the judged alerts were right.

    Attributes:
        confirmed: Number of confirmed alerts.
        false_alarms: Number of false alarms.
    """

    confirmed: int
    false_alarms: int

    @property
    def value(self) -> float | None:
        """Share of confirmed alerts; None if none is judged."""
        judged = self.confirmed + self.false_alarms
        return self.confirmed / judged if judged else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's score interval of 95 % (Wilson 1927); None if none is judged."""
        judged = self.confirmed + self.false_alarms
        if not judged:
            return None
        share, z2 = self.confirmed / judged, Z95**2
        centre = (share + z2 / (2 * judged)) / (1 + z2 / judged)
        half = Z95 * math.sqrt(share * (1 - share) / judged + z2 / (4 * judged**2)) / (1 + z2 / judged)
        return max(0.0, centre - half), min(1.0, centre + half)


class AlertHistory:
    """Reads the outbox through a connection of its own, so that a long query delays no alert. Thread-safe.

    Alerts that are in memory only, because the disk is full, are missing. Every method may raise `sqlite3.Error`.

    Args:
        file: The database of the outbox.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._inode = 0  # of the file that is open

    def alerts(self, query: AlertQuery) -> list[PastAlert]:
        """Returns alerts, newest first."""
        where, values = _where(query)
        if query.verdict is not None:
            where += f" AND json_extract({_VERDICT}, '$.verdict') IS ?"
            values.append(None if query.verdict == "open" else query.verdict)
        if query.before is not None:
            where += " AND a.sequence < ?"
            values.append(query.before)
        sql = f"SELECT {_COLUMNS} FROM messages a WHERE {where} ORDER BY a.sequence DESC LIMIT ?"
        return [past for row in self._read(sql, [*values, query.limit]) if (past := _past_alert(*row)) is not None]

    def alert(self, alert_id: str) -> PastAlert | None:
        """Returns an alert; None if there is none with this id, or no longer."""
        rows = self._read(f"SELECT {_COLUMNS} FROM messages a WHERE a.id = ? AND {_IS_ALERT}", [alert_id])
        return _past_alert(*rows[0]) if rows else None

    def is_acknowledged(self, alert_id: str) -> bool:
        """Whether an alert has a verdict or is acknowledged."""
        past = self.alert(alert_id)
        return past is not None and past.verdict is not None and past.verdict.acknowledged

    def messages_about(self, alert_id: str) -> list[Message]:
        """Returns an alert and all messages about it, oldest first."""
        about = f"m.id = ? OR {field_of('m', 'alert')} = ?"
        rows = self._read(f"SELECT m.body FROM messages m WHERE {about} ORDER BY m.sequence", [alert_id, alert_id])
        return [message for (body,) in rows if (message := _parse(body)) is not None]

    def precision(self, query: AlertQuery) -> Precision:
        """Returns how many of the alerts are confirmed and false alarms, whatever the query says about the verdict."""
        where, values = _where(query)
        judged = f"messages v JOIN messages a ON a.id = {field_of('v', 'alert')}"
        where += f" AND {field_of('v', 'kind')} = 'alert_verdict' AND v.body = {_VERDICT}"
        counts = dict(self._read(f"SELECT {field_of('v', 'verdict')}, count(*) FROM {judged} WHERE {where} GROUP BY 1", values))
        return Precision(confirmed=counts.get("confirmed", 0), false_alarms=counts.get("false_alarm", 0))

    def close(self) -> None:
        """Closes the connection."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _read(self, sql: str, values: Sequence[object]) -> list[tuple]:
        with self._lock:
            inode = self._file.stat().st_ino if self._file.exists() else 0
            if self._db is not None and inode != self._inode:  # the outbox has replaced one that was damaged
                self._db.close()
                self._db = None
            if self._db is None:
                self._inode = inode
                self._db = sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            return self._db.execute(sql, values).fetchall()


def _latest(kind: str) -> str:
    """SQL for the body of the latest message of a kind about the alert `a`."""
    # the plus takes the type from a.id: SQLite would not use the index to compare an expression with a column of text
    about = f"{field_of('m', 'alert')} = +a.id AND {field_of('m', 'kind')} = '{kind}'"
    return f"(SELECT m.body FROM messages m WHERE {about} ORDER BY m.sequence DESC LIMIT 1)"


_IS_ALERT = f"{field_of('a', 'kind')} = 'alert'"
_VERDICT = _latest("alert_verdict")
_COLUMNS = f"a.sequence, a.body, {_latest('alert_closed')}, {_VERDICT}"


def _where(query: AlertQuery) -> tuple[str, list[object]]:
    """The conditions on the alerts themselves, and their values."""
    # not when they were stored, which is by another clock
    recent = f"({field_of('a', 'time')} >= ? OR {field_of('a', 'time_uncertain')})"
    conditions, values = [_IS_ALERT, recent], list[object]([f"{utc(query.since):%Y-%m-%dT%H:%M:%S}"])
    if query.camera is not None:
        conditions.append(f"{field_of('a', 'camera')} = ?")
        values.append(query.camera)
    if query.rule is not None:
        conditions.append(f"coalesce({field_of('a', 'rule')}, '{DEFAULT_RULE}') = ?")
        values.append(query.rule)
    return " AND ".join(conditions), values


def _past_alert(sequence: int, alert: str, closed: str | None, verdict: str | None) -> PastAlert | None:
    raised, end, judged = (None if body is None else _parse(body) for body in (alert, closed, verdict))
    if not isinstance(raised, Alert):
        return None
    return PastAlert(
        sequence=sequence,
        alert=raised,
        closed=end if isinstance(end, AlertClosed) else None,
        verdict=judged if isinstance(judged, AlertVerdict) else None,
    )


def _parse(body: str) -> Message | None:
    """Returns the message; None if a later version wrote it, which the outbox has logged."""
    try:
        return parse_message(body)
    except ValueError:
        return None
