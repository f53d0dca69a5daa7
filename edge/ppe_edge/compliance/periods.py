"""Figures by hour, shift, day or week of the site."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from ppe_edge.compliance.store import Count, Figures
from ppe_edge.rules.schedule import DAY_MIN, parse_times

Unit = Literal["hour", "shift", "day", "week"]
UNITS: tuple[Unit, ...] = get_args(Unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one period.

    Attributes:
        start: Start of the period, in the site's time zone.
        shift: Name of the shift; empty for other units.
        camera, rule, zone: What they are about.
        count: The figures.
    """

    start: datetime
    shift: str
    camera: str
    rule: str
    zone: str
    count: Count


def by_period(figures: Figures, unit: Unit, zone: ZoneInfo, shifts: Mapping[str, str]) -> list[Row]:
    """Returns the figures of each period, camera, rule and zone, oldest first. Figures outside of all shifts are no shift's."""
    # by time stamp: datetimes of one zone are equal if clocks show the same, also twice in a night
    sums: dict[tuple[float, str, str, str, str], Count] = {}
    for key, count in figures.items():
        period = period_of(datetime.fromtimestamp(key.bucket, zone), unit, shifts)
        if period is not None:
            start, shift = period
            place = (start.timestamp(), shift, key.camera, key.rule, key.zone)
            sums[place] = sums.get(place, Count()).plus(count)
    return [
        Row(start=datetime.fromtimestamp(start, zone), shift=shift, camera=camera, rule=rule, zone=where, count=count)
        for (start, shift, camera, rule, where), count in sorted(sums.items())
    ]


def period_of(time: datetime, unit: Unit, shifts: Mapping[str, str]) -> tuple[datetime, str] | None:
    """Returns start and shift name of the period that contains a time of the site; None if it is in no shift."""
    midnight = time.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if unit == "hour":
        return time.replace(minute=0, second=0, microsecond=0), ""
    if unit == "day":
        return midnight, ""
    if unit == "week":
        return midnight - timedelta(days=time.weekday()), ""
    minute = 60 * time.hour + time.minute
    for name, times in shifts.items():
        start, end = parse_times(times)
        for day in (0, 1):  # a night shift that began yesterday
            if start <= minute + DAY_MIN * day < end:
                return midnight - timedelta(days=day) + timedelta(minutes=start), name
    return None


def end_of(start: datetime, unit: Unit, shift: str, shifts: Mapping[str, str]) -> datetime:
    """Returns when a period ends, by the clock of the site."""
    if unit == "shift":
        first, last = parse_times(shifts[shift])
        return start + timedelta(minutes=last - first)
    return start + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}[unit]
