"""Compares alerts with the truth."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ppe_edge.scoring.recording import RaisedAlert
from ppe_edge.scoring.truth import Event


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A violation, and the alerts for it: none if it was missed, more than one if it was reported again."""

    event: Event
    alerts: tuple[RaisedAlert, ...]

    @property
    def delay(self) -> float | None:
        """Seconds from its start to the first alert; None if it was missed."""
        return max(0.0, self.alerts[0].seconds - self.event.start) if self.alerts else None


@dataclass(frozen=True, kw_only=True)
class VideoScore:
    """The comparison for one video.

    Attributes:
        name: Name of its camera.
        seconds: Its length.
        ignored_seconds: How much of it is ignored.
        outcomes: The violations.
        false_alerts: Alerts without a violation.
        ignored_alerts: Alerts in times that are ignored.
    """

    name: str
    seconds: float
    ignored_seconds: float
    outcomes: tuple[Outcome, ...]
    false_alerts: tuple[RaisedAlert, ...]
    ignored_alerts: tuple[RaisedAlert, ...]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of one video, or of several together.

    Attributes:
        hours: Length without ignored times.
        violations: Number of violations in the truth.
        found: Number of these with an alert.
        median_delay_s: Median of the seconds until the alert; None if nothing was found.
        worst_delay_s: Its maximum.
        false_alerts: Number of alerts without a violation.
        false_alerts_per_hour: The same per hour; None if nothing remains of the videos.
        alerts_per_violation: Alerts of the violations that were found, divided by their number.
    """

    hours: float
    violations: int
    found: int
    median_delay_s: float | None
    worst_delay_s: float | None
    false_alerts: int
    false_alerts_per_hour: float | None
    alerts_per_violation: float | None

    @property
    def missed(self) -> int:
        """Number of violations without an alert."""
        return self.violations - self.found

    @property
    def found_share(self) -> float | None:
        """Share of the violations that were found; None if there were none."""
        return self.found / self.violations if self.violations else None


def compare(name: str, seconds: float, events: Sequence[Event], alerts: Sequence[RaisedAlert], tolerance: float) -> VideoScore:
    """Compares the alerts of a video with its truth.

    Each violation takes at most one alert that lies between its start and its end, so that as many violations as possible
    are found. Further alerts in it are repeated ones. Persons are not told apart: two people without a helmet are two rows.

    Args:
        name: Name of the camera.
        seconds: Length of the video.
        events: Truth of this video.
        alerts: Alerts of this video.
        tolerance: Seconds by which an alert may lie outside of a violation, since truth is inexact and a rule takes time.
    """
    violations = [event for event in events if event.kind == "violation"]
    ignored = [event for event in events if event.kind == "ignore"]
    of: dict[Event, list[RaisedAlert]] = {event: [] for event in violations}
    rest = []
    for alert in sorted(alerts, key=lambda alert: alert.seconds):
        # the one that ends first: the others can still take a later alert
        free = [event for event in violations if not of[event] and _covers(event, alert, tolerance)]
        if free:
            of[min(free, key=lambda event: event.end)].append(alert)
        else:
            rest.append(alert)
    false_alerts, ignored_alerts = [], []
    for alert in rest:
        if any(_covers(event, alert, tolerance) for event in ignored):
            ignored_alerts.append(alert)
        elif covering := [event for event in violations if _covers(event, alert, tolerance)]:
            of[min(covering, key=lambda event: len(of[event]))].append(alert)
        else:
            false_alerts.append(alert)
    return VideoScore(
        name=name,
        seconds=seconds,
        ignored_seconds=_length(ignored, seconds),
        outcomes=tuple(
            Outcome(event=event, alerts=tuple(sorted(found, key=lambda alert: alert.seconds))) for event, found in of.items()
        ),
        false_alerts=tuple(false_alerts),
        ignored_alerts=tuple(ignored_alerts),
    )


def figures_of(videos: Sequence[VideoScore]) -> Figures:
    """Returns the figures of videos together."""
    hours = sum(video.seconds - video.ignored_seconds for video in videos) / 3600
    outcomes = [outcome for video in videos for outcome in video.outcomes]
    found = [outcome for outcome in outcomes if outcome.alerts]
    delays = [delay for outcome in outcomes if (delay := outcome.delay) is not None]
    false_alerts = sum(len(video.false_alerts) for video in videos)
    return Figures(
        hours=hours,
        violations=len(outcomes),
        found=len(found),
        median_delay_s=statistics.median(delays) if delays else None,
        worst_delay_s=max(delays, default=None),
        false_alerts=false_alerts,
        false_alerts_per_hour=false_alerts / hours if hours > 0 else None,
        alerts_per_violation=sum(len(o.alerts) for o in found) / len(found) if found else None,
    )


def _covers(event: Event, alert: RaisedAlert, tolerance: float) -> bool:
    return event.start - tolerance <= alert.seconds <= event.end + tolerance


def _length(events: Sequence[Event], video_seconds: float) -> float:
    """Returns how many seconds of a video lie in some event."""
    total, covered_until = 0.0, -math.inf
    for event in sorted(events, key=lambda event: event.start):
        start, end = max(event.start, covered_until), min(event.end, video_seconds)
        total += max(0.0, end - start)
        covered_until = max(covered_until, end)
    return total
