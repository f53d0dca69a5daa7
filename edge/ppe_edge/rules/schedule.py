"""When a rule applies: weekdays and times of the site, with exceptions by date.

Times are those that a clock on the site's wall shows: a shift starts at 06:00 in summer and in winter. When the clocks are set
during a shift, it lasts from the first time that they show its start to the last time that they show its end. A start or an end
that the clocks skip is the moment at which they skip it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MIN = 24 * 60
WEEK_MIN = 7 * DAY_MIN
EXAMPLE = "'Mon-Fri 06:00-18:00', 'Sat,Sun 08:00-12:00' or 'daily 22:00-06:00'"
_DAYS = re.compile(r"[A-Za-z]{3}(-[A-Za-z]{3})?(,[A-Za-z]{3}(-[A-Za-z]{3})?)*")
_TIMES = re.compile(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)")

Times = tuple[int, int]  # start and end in minutes of the day on which they start; the end may lie beyond midnight


def parse_entry(text: str) -> tuple[tuple[int, ...], Times]:
    """Parses an entry such as "Mon-Fri 06:00-18:00"; returns its weekdays (Monday is 0) and times.

    Raises:
        ValueError: It is not one.
    """
    days, _, times = text.strip().partition(" ")
    if days.lower() == "daily":
        return tuple(range(7)), parse_times(times)
    if not _DAYS.fullmatch(days) or not times:
        raise ValueError(f"expected days and times such as {EXAMPLE}, got {text[:60]!r}")
    chosen: list[int] = []
    for part in days.split(","):
        first, _, last = part.partition("-")
        start, end = _weekday(first), _weekday(last or first)
        chosen += [day % 7 for day in range(start, end + 1 if end >= start else end + 8)]
    return tuple(dict.fromkeys(chosen)), parse_times(times)


def parse_times(text: str) -> Times:
    """Parses times such as "06:00-18:00"; an end that is not after the start is on the next day.

    Raises:
        ValueError: They are none.
    """
    match = _TIMES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected times such as 06:00-18:00, got {text[:60]!r}")
    start_hour, start_minute, end_hour, end_minute = map(int, match.groups())
    start, end = 60 * start_hour + start_minute, 60 * end_hour + end_minute
    if max(start_minute, end_minute) > 59 or start >= DAY_MIN or end > DAY_MIN:
        raise ValueError(f"expected times from 00:00 to 24:00, got {text[:60]!r}")
    if start == end:
        raise ValueError(f"{text.strip()} is never on: write 00:00-24:00 for a whole day")
    return start, end if end > start else end + DAY_MIN


def check_week(entries: Sequence[str]) -> None:
    """Checks the entries of a week.

    Raises:
        ValueError: There are none, one cannot be read, or two overlap.
    """
    if not entries:
        raise ValueError("without an entry the rule is never on: leave out the schedule, or add one such as " + EXAMPLE)
    spans = []
    for entry in entries:
        days, (start, end) = parse_entry(entry)
        spans += [(DAY_MIN * day + start, DAY_MIN * day + end, entry) for day in days]
    spans.sort()
    first_start, first_end, first = spans[0]
    for (_, end, before), (start, _, after) in pairwise([*spans, (first_start + WEEK_MIN, first_end + WEEK_MIN, first)]):
        if end > start:
            which = f"{before!r} and {after!r} overlap" if before != after else f"{before!r} overlaps with itself"
            raise ValueError(f"{which} on {WEEKDAYS[start // DAY_MIN % 7]}: write them as one entry")


def check_date(entries: Sequence[str]) -> None:
    """Checks the times of one date.

    Raises:
        ValueError: They cannot be read, or overlap.
    """
    for (_, end), (start, _) in pairwise(sorted(map(parse_times, entries))):
        if end > start:
            raise ValueError(f"{' and '.join(entries)} overlap: write them as one entry")


class Schedule:
    """Tells at which moments a rule applies.

    Args:
        entries: The entries of a week; None for all the time.
        exceptions: Date -> times that replace those that start on this date; none for a day off.
        zone: The site's time zone.
    """

    def __init__(self, entries: Sequence[str] | None, exceptions: Mapping[date, Sequence[str]], zone: ZoneInfo) -> None:
        self._week: dict[int, list[Times]] = {day: [] for day in range(7)}
        for days, times in map(parse_entry, ("daily 00:00-24:00",) if entries is None else entries):
            for day in days:
                self._week[day].append(times)
        self._exceptions = {day: list(map(parse_times, times)) for day, times in exceptions.items()}
        self._zone = zone
        self._on = False
        self._from = self._until = 0.0  # the last answer is valid between these times, UTC epoch seconds

    def is_on(self, time: float) -> bool:
        """Whether the rule applies at a time, UTC epoch seconds."""
        if not self._from <= time < self._until:
            self._look_up(time)
        return self._on

    def changes_at(self, time: float) -> float:
        """Returns when the answer for a time may change next, at midnight at the latest, UTC epoch seconds."""
        self.is_on(time)
        return self._until

    def _look_up(self, time: float) -> None:
        today = datetime.fromtimestamp(time, self._zone).date()
        spans = [span for offset in (-1, 0, 1) for span in self._spans(today + timedelta(offset))]
        midnights = (self._instant(today, 0, last=False), self._instant(today, DAY_MIN, last=False))
        edges = [*midnights, *(edge for span in spans for edge in span)]
        self._on = any(start <= time < end for start, end in spans)
        self._from = max((edge for edge in edges if edge <= time), default=time)
        self._until = min((edge for edge in edges if edge > time), default=time)

    def _spans(self, day: date) -> Iterable[tuple[float, float]]:
        """Returns the times that start on a day, as UTC epoch seconds."""
        for start, end in self._exceptions.get(day, self._week[day.weekday()]):
            yield self._instant(day, start, last=False), self._instant(day, end, last=True)

    def _instant(self, day: date, minutes: int, *, last: bool) -> float:
        """Returns when the site's clocks show a time; the first or last moment if they show it twice, UTC epoch seconds."""
        wanted = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)
        first, second = (wanted.replace(tzinfo=self._zone, fold=fold).timestamp() for fold in (0, 1))
        if first <= second:
            return second if last else first
        low, high = second, first  # the clocks skip the time somewhere between: the first moment at which they show a later one
        while high - low > 1:
            middle = (low + high) // 2
            shown = datetime.fromtimestamp(middle, UTC).astimezone(self._zone).replace(tzinfo=None)
            low, high = (low, middle) if shown >= wanted else (middle, high)
        return high


def _weekday(name: str) -> int:
    if name.capitalize() not in WEEKDAYS:
        raise ValueError(f"expected weekdays {', '.join(WEEKDAYS)} or daily, got {name[:20]!r}")
    return WEEKDAYS.index(name.capitalize())
