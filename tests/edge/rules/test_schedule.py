"""Schedules, with moments computed by hand. Berlin is at UTC+1, and at UTC+2 from 2027-03-28 01:00 to 2027-10-31 01:00 UTC."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ppe_edge.rules.schedule import Schedule, check_date, check_week, parse_entry

BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


def changes(schedule: Schedule, first: str, hours: int) -> list[str]:
    """The minutes at which a schedule turns on or off, UTC, as "HH:MM"."""
    times = [utc(first) + 60 * minute for minute in range(60 * hours + 1)]
    states = [schedule.is_on(time) for time in times]
    return [
        datetime.fromtimestamp(time, ZoneInfo("UTC")).strftime("%H:%M")
        for time, before, now in zip(times[1:], states, states[1:], strict=False)
        if before != now
    ]


def test_parse_entry_reads_days_and_times() -> None:
    assert parse_entry("Mon-Fri 06:00-18:00") == ((0, 1, 2, 3, 4), (360, 1080))
    assert parse_entry("sat,SUN 8:30-24:00") == ((5, 6), (510, 1440))
    assert parse_entry("Sat-Mon 22:00-06:00") == ((5, 6, 0), (1320, 1800))
    assert parse_entry("daily 00:00-24:00") == ((0, 1, 2, 3, 4, 5, 6), (0, 1440))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["Mo-Fr 6-18"], r"expected days and times such as 'Mon-Fri 06:00-18:00', .*, got 'Mo-Fr 6-18'"),
        (["Mon"], "expected days and times such as"),
        (["Die 06:00-18:00"], "expected weekdays Mon, Tue, .* or daily, got 'Die'"),
        (["Mon 6-18"], "expected times such as 06:00-18:00, got '6-18'"),
        (["Mon 06:00-25:00"], "expected times from 00:00 to 24:00, got '06:00-25:00'"),
        (["Mon 06:60-18:00"], "expected times from 00:00 to 24:00"),
        (["Mon 06:00-06:00"], "06:00-06:00 is never on: write 00:00-24:00 for a whole day"),
        ([], "without an entry the rule is never on: leave out the schedule"),
        (["Mon-Fri 06:00-18:00", "Wed 17:00-20:00"], "'Mon-Fri 06:00-18:00' and 'Wed 17:00-20:00' overlap on Wed: write them"),
        (["Sun 22:00-06:00", "Mon 05:00-07:00"], "'Sun 22:00-06:00' and 'Mon 05:00-07:00' overlap on Mon"),
    ],
)
def test_check_week_names_problem(entries: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_week(entries)


def test_check_week_accepts_entries_that_touch() -> None:
    check_week(["daily 06:00-14:00", "daily 14:00-22:00", "daily 22:00-06:00"])


def test_check_date_rejects_overlapping_times() -> None:
    check_date(["08:00-12:00", "12:00-14:00"])
    with pytest.raises(ValueError, match="08:00-12:00 and 11:00-14:00 overlap"):
        check_date(["08:00-12:00", "11:00-14:00"])


def test_schedule_follows_clock_of_site_in_winter_and_summer() -> None:
    schedule = Schedule(["Mon-Fri 06:00-18:00"], {}, BERLIN)
    assert changes(schedule, "2027-01-15T00:00", 24) == ["05:00", "17:00"]  # a Friday
    assert changes(schedule, "2027-07-15T00:00", 24) == ["04:00", "16:00"]
    assert changes(schedule, "2027-01-16T00:00", 40) == []  # the weekend


@pytest.mark.parametrize(
    ("day", "times", "expected"),
    [
        ("2027-03-27", "22:00-06:00", ["21:00", "04:00"]),  # seven hours: the clocks skip one
        ("2027-10-30", "22:00-06:00", ["20:00", "05:00"]),  # nine hours
        ("2027-10-30", "22:00-02:30", ["20:00", "01:30"]),  # to the second 02:30, without a gap
        ("2027-03-27", "22:00-02:30", ["21:00", "01:00"]),  # 02:30 is skipped: until the clocks are set
    ],
)
def test_night_shift_follows_clocks_that_are_set(day: str, times: str, expected: list[str]) -> None:
    assert changes(Schedule([f"Sat {times}"], {}, BERLIN), f"{day}T12:00", 24) == expected


def test_start_that_clocks_skip_is_when_they_are_set() -> None:
    assert changes(Schedule(["Sun 02:30-05:00"], {}, BERLIN), "2027-03-28T00:00", 12) == ["01:00", "03:00"]


def test_start_that_clocks_show_twice_is_first_one() -> None:
    assert changes(Schedule(["Sun 02:30-05:00"], {}, BERLIN), "2027-10-31T00:00", 12) == ["00:30", "04:00"]


def test_exception_replaces_times_that_start_on_its_date() -> None:
    week = ["Mon-Fri 06:00-18:00", "Thu 22:00-04:00"]
    schedule = Schedule(week, {date(2027, 12, 24): ["08:00-12:00"], date(2027, 12, 27): []}, BERLIN)
    # the rest of Thursday's night, then the short Friday
    assert changes(schedule, "2027-12-23T18:00", 30) == ["21:00", "03:00", "07:00", "11:00"]
    assert changes(schedule, "2027-12-27T00:00", 24) == []


def test_exceptions_alone_switch_off_dates() -> None:
    assert changes(Schedule(None, {date(2027, 12, 25): []}, BERLIN), "2027-12-24T12:00", 48) == ["23:00", "23:00"]


@given(st.integers(0, 365 * 24 * 60), st.integers(-50, 50))
def test_is_on_does_not_depend_on_what_was_asked_before(minute: int, step: int) -> None:
    start = utc("2027-01-01T00:00")
    asked, fresh = (Schedule(["Mon-Sat 05:30-02:15"], {date(2027, 5, 1): []}, BERLIN) for _ in range(2))
    time = start + 60 * minute
    asked.is_on(time + timedelta(hours=step).total_seconds())
    assert asked.is_on(time) == fresh.is_on(time)
