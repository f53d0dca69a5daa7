"""Checks of schedules: the trigger, and that the job exists."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ppe_yolo.azure.yaml.assets import kind_of
from ppe_yolo.azure.yaml.document import Document, Mistake, UnreadableError, read_document

# name, smallest number, largest number, names of the numbers
_CRON = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")),
    ("day of the week", 0, 6, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")),
)
_FREQUENCIES = ("minute", "hour", "day", "week", "month")
_WEEK_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# Azure ML knows the time zones of Windows, not those of IANA: azure.ai.ml.constants.TimeZone
_STANDARD_TIMES = """
    Dateline, Aleutian, Hawaiian, Marquesas, Alaskan, Pacific, US Mountain, Mountain, Central America, Central, Easter
    Island, Canada Central, SA Pacific, Eastern, Haiti, Cuba, US Eastern, Paraguay, Atlantic, Venezuela, Central
    Brazilian, SA Western, Pacific SA, Turks And Caicos, Newfoundland, Tocantins, E. South America, SA Eastern, Argentina,
    Greenland, Montevideo, Saint Pierre, Bahia, Mid-Atlantic, Azores, Cape Verde, Morocco, GMT, Greenwich, W. Europe,
    Central Europe, Romance, Central European, W. Central Africa, Namibia, Jordan, GTB, Middle East, Egypt, E. Europe,
    Syria, West Bank, South Africa, FLE, Turkey, Israel, Kaliningrad, Libya, Arabic, Arab, Belarus, Russian, E. Africa,
    Iran, Arabian, Astrakhan, Azerbaijan, Mauritius, Georgian, Caucasus, Afghanistan, West Asia, Ekaterinburg, Pakistan,
    India, Sri Lanka, Nepal, Central Asia, Bangladesh, N. Central Asia, Myanmar, SE Asia, Altai, W. Mongolia, North Asia,
    Tomsk, China, North Asia East, Singapore, W. Australia, Taipei, Ulaanbaatar, North Korea, Aus Central W., Transbaikal,
    Tokyo, Korea, Yakutsk, Cen. Australia, AUS Central, E. Australia, AUS Eastern, West Pacific, Tasmania, Vladivostok,
    Lord Howe, Bougainville, Magadan, Norfolk, Sakhalin, Central Pacific, New Zealand, Fiji, Kamchatka, Chatham Islands,
    Tonga, Samoa, Line Islands
"""
_TIME_ZONES = {
    *(f"{name} Standard Time" for name in " ".join(_STANDARD_TIMES.split()).split(", ")),
    *(f"{name} Standard Time (Mexico)" for name in ("Pacific", "Mountain", "Central", "Eastern")),
    *(f"Russia Time Zone {number}" for number in (3, 10, 11)),
    *("UTC", "UTC-11", "UTC-09", "UTC-08", "UTC-02", "UTC+12"),
}


def check_schedule(document: Document) -> list[Mistake]:
    """Checks the trigger and the job."""
    trigger = document.value.get("trigger")
    mistakes = _check_job(document)
    if not isinstance(trigger, Mapping):
        return mistakes
    for key, reason in _refuse_trigger(trigger):
        mistakes.append(document.mistake("wrong-schedule", f"{key}: {reason}", "trigger", *key.split(".")))
    return mistakes


def _check_job(document: Document) -> list[Mistake]:
    job = document.value.get("create_job")
    path: Any = job.get("job") if isinstance(job, Mapping) else job
    if not isinstance(path, str) or path.startswith("azureml:"):
        return []
    file = document.path.parent / path.removeprefix("file:")
    if not file.is_file():
        what = f"create_job: no such file {path}: the path is relative to this file"
        return [document.mistake("missing-file", what, "create_job")]
    try:
        kind = kind_of(read_document(file).value)
    except UnreadableError as error:
        return [error.mistake]
    if kind in ("pipeline", "command"):
        return []
    return [document.mistake("unknown-type", f"create_job: expected a pipeline or a command, got {path}", "create_job")]


def _refuse_trigger(trigger: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The keys of a trigger that Azure rejects, each with the reason."""
    refused = []
    zone, kind = trigger.get("time_zone"), trigger.get("type")
    if zone is not None and zone not in _TIME_ZONES:
        refused.append(("time_zone", f"no such time zone {zone!r}: expected one of Windows, such as W. Europe Standard Time"))
    for key in ("start_time", "end_time"):
        if trigger.get(key) is not None and not _is_local_time(trigger[key]):
            refused.append((key, f"expected a time without UTC offset such as 2026-12-01T08:00:00, got {trigger[key]!r}"))
    if kind == "cron":
        if reason := refuse_cron(str(trigger.get("expression", ""))):
            refused.append(("expression", reason))
    elif kind == "recurrence":
        if trigger.get("frequency") not in _FREQUENCIES:
            refused.append(("frequency", f"expected one of {', '.join(_FREQUENCIES)}, got {trigger.get('frequency')!r}"))
        interval = trigger.get("interval")
        if isinstance(interval, list) or not _all_within(interval, 1, 1000):
            refused.append(("interval", f"expected a number from 1 to 1000, got {interval!r}"))
        pattern = trigger.get("schedule")
        refused += _refuse_pattern(pattern) if isinstance(pattern, Mapping) else []
    else:
        refused.append(("type", f"expected cron or recurrence, got {kind!r}"))
    return refused


def _refuse_pattern(pattern: Mapping[str, Any]) -> list[tuple[str, str]]:
    refused = []
    for key, least, most in (("hours", 0, 23), ("minutes", 0, 59), ("month_days", 1, 31)):
        given = pattern.get(key)
        if not _all_within(given, least, most) and (given is not None or key != "month_days"):
            refused.append((f"schedule.{key}", f"expected numbers from {least} to {most}, got {given!r}"))
    days = pattern.get("week_days")
    listed = days if isinstance(days, list) else [days]
    if days is not None and any(str(day).lower() not in _WEEK_DAYS for day in listed):
        refused.append(("schedule.week_days", f"expected {', '.join(_WEEK_DAYS)}, got {days!r}"))
    return refused


def _all_within(given: Any, least: int, most: int) -> bool:
    numbers = given if isinstance(given, list) else [given]
    return all(isinstance(n, int) and not isinstance(n, bool) and least <= n <= most for n in numbers)


def _is_local_time(given: Any) -> bool:
    try:
        time = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        return False
    return time.tzinfo is None


def refuse_cron(expression: str) -> str | None:
    """Why Azure rejects a cron expression; None if it is valid."""
    parts = expression.split()
    if len(parts) != len(_CRON):
        return f"expected five fields (minute hour day month day-of-week), got {len(parts)} in {expression!r}"
    for part, (name, least, most, words) in zip(parts, _CRON, strict=True):
        for piece in part.split(","):
            base, slash, step = piece.partition("/")
            ends = [] if base == "*" else base.split("-")
            numbers = [words.index(e.upper()) + least if e.upper() in words else e for e in ends]
            good = len(ends) <= 2 and all(re.fullmatch(r"\d+", str(n)) and least <= int(n) <= most for n in numbers)
            if good and [int(n) for n in numbers] != sorted(int(n) for n in numbers):
                last = words[-1] if words else str(most)
                first = words[0] if words else str(least)
                hint = f"write {ends[0]}-{last},{first}-{ends[1]} if that is meant"
                return f"{name}: expected a range in ascending order, got {piece!r} in {expression!r}: {hint}"
            if not good or (slash and not re.fullmatch(r"[1-9]\d*", step)):
                return f"{name}: expected numbers from {least} to {most}, * or */N, got {piece!r} in {expression!r}"
    return None
