"""The score of videos as text for people and as JSON for machines."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ppe_edge.scoring.figures import Figures, VideoScore, figures_of
from ppe_edge.scoring.recording import RaisedAlert
from ppe_edge.scoring.sweep import Trial, front

SCHEMA_VERSION = 1
_HEADER = ("", "length", "violations", "found", "missed", "median s", "worst s", "false", "per hour", "alerts each")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the score must reach; None for no limit.

    Attributes:
        min_found: Minimum share of the violations that are found.
        max_false_per_hour: Maximum number of false alerts per hour.
        max_delay: Highest allowed delay of an alert after its violation starts, seconds.
        max_alerts_per_violation: Maximum number of alerts per violation that is found, on average.
    """

    min_found: float | None = None
    max_false_per_hour: float | None = None
    max_delay: float | None = None
    max_alerts_per_violation: float | None = None

    def failures(self, figures: Figures) -> list[str]:
        """Returns one line per limit that is not met. A figure that is unknown meets no limit on false alerts or on found."""
        lines = []
        found, false = figures.found_share, figures.false_alerts_per_hour
        if self.min_found is not None and (found is None or found < self.min_found):
            lines.append(f"found {_share(found)} of the violations, at least {_share(self.min_found)} required")
        if self.max_false_per_hour is not None and (false is None or false > self.max_false_per_hour):
            lines.append(f"{_number(false)} false alerts per hour, at most {self.max_false_per_hour:g} allowed")
        if self.max_delay is not None and (figures.worst_delay_s or 0.0) > self.max_delay:
            lines.append(f"an alert after {_number(figures.worst_delay_s)} s, at most {self.max_delay:g} s allowed")
        most = self.max_alerts_per_violation
        if most is not None and (figures.alerts_per_violation or 0.0) > most:
            lines.append(f"{_number(figures.alerts_per_violation)} alerts per violation, at most {most:g} allowed")
        return lines


def as_text(videos: Sequence[VideoScore]) -> str:
    """Returns a table with a row per video and one for all, then every violation and every alert that is not right."""
    rows = [_HEADER, *(_row(video.name, figures_of([video])) for video in videos)]
    if len(videos) > 1:
        rows.append(_row("all", figures_of(videos)))
    return "\n".join([*_aligned(rows), *(line for video in videos for line in _details(video))])


def sweep_as_text(trials: Sequence[Trial], current: Figures) -> str:
    """Returns a table of the settings that no others are better than, and of the settings as they are."""
    best = front(trials)
    names = list(trials[0].changes)
    rows = [(*names, *_HEADER[2:])]
    rows += [(*(_value(trial.changes[name]) for name in names), *_row("", trial.figures)[2:]) for trial in best]
    rows.append((*("as set" if name == names[0] else "" for name in names), *_row("", current)[2:]))
    others = len(trials) - len(best)
    return "\n".join([*_aligned(rows), f"{others} of {len(trials)} settings are no better than one of these in any figure"])


def as_json(videos: Sequence[VideoScore], trials: Sequence[Trial], limits: Limits) -> str:
    """Returns everything as one JSON object."""
    total = figures_of(videos)
    document = {
        "schema_version": SCHEMA_VERSION,
        "all": _figures(total),
        "videos": [
            {
                "camera": video.name,
                "seconds": round(video.seconds, 3),
                **_figures(figures_of([video])),
                "outcomes": [
                    {
                        "line": outcome.event.line,
                        "start": outcome.event.start,
                        "end": outcome.event.end if math.isfinite(outcome.event.end) else None,
                        "delay_s": _rounded(outcome.delay),
                        "alerts": [_alert(alert) for alert in outcome.alerts],
                    }
                    for outcome in video.outcomes
                ],
                "false": [_alert(alert) for alert in video.false_alerts],
                "ignored": [_alert(alert) for alert in video.ignored_alerts],
            }
            for video in videos
        ],
        "sweep": [{"settings": dict(trial.changes), **_figures(trial.figures)} for trial in trials],
        "limits_missed": limits.failures(total),
    }
    return json.dumps(document, indent=2)


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    return (
        name,
        clock(figures.hours * 3600),
        str(figures.violations),
        str(figures.found),
        str(figures.missed),
        _number(figures.median_delay_s),
        _number(figures.worst_delay_s),
        str(figures.false_alerts),
        _number(figures.false_alerts_per_hour),
        _number(figures.alerts_per_violation),
    )


def _details(video: VideoScore) -> list[str]:
    lines = []
    for outcome in video.outcomes:
        end = clock(outcome.event.end) if math.isfinite(outcome.event.end) else "end"
        where = f"{video.name} {clock(outcome.event.start)}-{end} (line {outcome.event.line})"
        if not outcome.alerts:
            lines.append(f"missed    {where}")
            continue
        times = ", ".join(f"{clock(alert.seconds)} (track {alert.track})" for alert in outcome.alerts)
        lines.append(f"{'found' if len(outcome.alerts) == 1 else 'repeated'}".ljust(10) + f"{where}: {times}")
    for kind, alerts in (("false", video.false_alerts), ("ignored", video.ignored_alerts)):
        for alert in alerts:
            box = ", ".join(f"{value:.0f}" for value in alert.box_xyxy)
            lines.append(
                f"{kind:10}{video.name} {clock(alert.seconds)} (track {alert.track}): score {alert.score:.2f}, box {box}"
            )
    return lines


def _figures(figures: Figures) -> Mapping[str, Any]:
    return {
        "hours": round(figures.hours, 6),
        "violations": figures.violations,
        "found": figures.found,
        "missed": figures.missed,
        "median_delay_s": _rounded(figures.median_delay_s),
        "worst_delay_s": _rounded(figures.worst_delay_s),
        "false_alerts": figures.false_alerts,
        "false_alerts_per_hour": _rounded(figures.false_alerts_per_hour),
        "alerts_per_violation": _rounded(figures.alerts_per_violation),
    }


def _alert(alert: RaisedAlert) -> Mapping[str, Any]:
    return {
        "seconds": round(alert.seconds, 3),
        "until": round(alert.until, 3),
        "track": alert.track,
        "score": round(alert.score, 4),
        "box_xyxy": [round(value, 1) for value in alert.box_xyxy],
    }


def clock(seconds: float) -> str:
    """Returns seconds as H:MM:SS.s, such as 0:01:02.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02}:{tenths % 600 / 10:04.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # the first column is text, the others are numbers
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.4g} %"


def _value(value: float | int | str | None) -> str:
    return "null" if value is None else str(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
