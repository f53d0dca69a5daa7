"""Reads the figures for the page and for reports: by hour, shift, day or week of the site."""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ppe_edge.common.clock import DAY_S
from ppe_edge.compliance.periods import Row, Unit, by_period, end_of, period_of
from ppe_edge.compliance.report import to_html
from ppe_edge.compliance.store import BUCKET, ComplianceStore, Count, Figures
from ppe_edge.delivery.messages import ComplianceFigure, ComplianceReport

SETTLE = timedelta(minutes=5)  # after the end of a period, until its last tracks have ended and are written


class ComplianceArchive:
    """The figures of the past. Every method may raise `sqlite3.Error`.

    Args:
        store: The figures on the disk.
        zone: The site's time zone.
        shifts: The site's shifts: name -> times.
    """

    def __init__(self, store: ComplianceStore, zone: ZoneInfo, shifts: Mapping[str, str]) -> None:
        self._store, self._zone, self._shifts = store, zone, shifts

    def rows(self, unit: Unit, days: float, now: float) -> tuple[datetime, list[Row]]:
        """Returns when the period starts in which the last days begin, and the figures since then, oldest first.

        Args:
            unit: Length of a period.
            days: How far to go back.
            now: The time, UTC epoch seconds.
        """
        start = self._start(unit, days, now)
        figures = self._store.read(start.timestamp(), now + BUCKET)
        return start, by_period(figures, unit, self._zone, self._shifts)

    def page(self, unit: Unit, days: int, now: float) -> str:
        """Returns the figures of the last days as a report in HTML."""
        start, rows = self.rows(unit, days, now)
        title = f"Compliance since {start:%Y-%m-%d %H:%M}"
        return to_html(title, start, datetime.fromtimestamp(now, self._zone), rows, unit)

    def _start(self, unit: Unit, days: float, now: float) -> datetime:
        """Returns when the period starts in which the last days begin: half a shift would look like a bad one."""
        time = datetime.fromtimestamp(now - DAY_S * days, self._zone)
        period = period_of(time, unit, self._shifts)
        return time if period is None else period[0]

    def due_report(self, unit: Unit, now: float) -> ComplianceReport | None:
        """Returns the report of the latest day or shift that has ended, unless it was reported; see `note_reported`."""
        time = datetime.fromtimestamp(now, self._zone)
        ended = self._latest_ended(unit, time)
        if ended is None:
            return None
        start, shift = ended
        if start.timestamp() <= self._store.last_report() <= now + DAY_S:  # a later one is of a clock that was ahead
            return None
        end = end_of(start, unit, shift, self._shifts)
        figures = self._store.read(start.timestamp(), end.timestamp())
        title = f"Compliance, shift {shift}" if shift else "Compliance of the day"
        return ComplianceReport(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"ppe_edge/{unit}/{start.isoformat()}/{shift}")),
            time=time,
            period="shift" if unit == "shift" else "day",
            shift=shift or None,
            started=start,
            ended=end,
            figures=_totals(figures),
            html=to_html(title, start, end, by_period(figures, "hour", self._zone, {})),
        )

    def _latest_ended(self, unit: Unit, time: datetime) -> tuple[datetime, str] | None:
        """Returns start and shift name of the latest period that has ended and settled; None if none has within a day."""
        for buckets in range(1, 24 * 4 + 1):
            period = period_of(time - SETTLE - buckets * timedelta(seconds=BUCKET), unit, self._shifts)
            if period is not None and end_of(period[0], unit, period[1], self._shifts) + SETTLE <= time:
                return period
        return None

    def note_reported(self, report: ComplianceReport) -> None:
        """Notes that a report is in the outbox."""
        self._store.note_report(int(report.started.timestamp()))


def _totals(figures: Figures) -> tuple[ComplianceFigure, ...]:
    sums: dict[tuple[str, str, str], Count] = {}
    for key, count in figures.items():
        sums[key[1:]] = sums.get(key[1:], Count()).plus(count)
    return tuple(
        ComplianceFigure(camera=camera, rule=rule, zone=zone or None, compliant=count.compliant, violations=count.violations)
        for (camera, rule, zone), count in sorted(sums.items())
    )
