"""Alerts against truth; expectations are counted by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ppe_edge.scoring.figures import compare, figures_of
from ppe_edge.scoring.recording import RaisedAlert
from ppe_edge.scoring.report import Limits
from ppe_edge.scoring.truth import Event


def event(start, end, kind="violation", line=2):
    return Event(line=line, camera="gate", start=start, end=end, kind=kind)


def alert(seconds):
    return RaisedAlert(seconds=seconds, until=seconds + 1, track=1, score=0.9, box_xyxy=(0, 0, 1, 1))


def score(events, times, seconds=3600.0, tolerance=1.0):
    return compare("gate", seconds, events, [alert(t) for t in times], tolerance)


def test_figures_count_found_missed_repeated_and_false():
    events = [event(10, 20, line=2), event(30, 40, line=3), event(100, 130, line=4), event(500, math.inf, line=5)]
    video = score(events, [12, 60, 104, 115, 502.5, 503.5], seconds=1800.0)
    assert [(o.event.line, [a.seconds for a in o.alerts]) for o in video.outcomes] == [
        (2, [12]), (3, []), (4, [104, 115]), (5, [502.5, 503.5]),
    ]  # fmt: skip
    figures = figures_of([video])
    assert (figures.violations, figures.found, figures.missed) == (4, 3, 1)
    assert (figures.median_delay_s, figures.worst_delay_s) == (2.5, 4.0)  # of 2, 4 and 2.5
    assert (figures.false_alerts, figures.false_alerts_per_hour) == (1, 2.0)  # in half an hour
    assert figures.alerts_per_violation == pytest.approx(5 / 3)


def test_compare_overlapping_violations_each_take_an_alert():
    """The first alert must go to the short violation: the long one can still take the second."""
    video = score([event(0, 100, line=2), event(0, 10, line=3)], [5, 50])
    assert {o.event.line: [a.seconds for a in o.alerts] for o in video.outcomes} == {2: [50], 3: [5]}


def test_compare_alert_in_ignored_time_is_neither_false_nor_found():
    video = score([event(10, 20, "ignore"), event(15, 30, "ignore"), event(40, 50, "other")], [12, 45])
    assert [a.seconds for a in video.ignored_alerts] == [12] and [a.seconds for a in video.false_alerts] == [45]
    assert video.ignored_seconds == 20 and figures_of([video]).hours == pytest.approx(3580 / 3600)


def test_compare_tolerance_is_inclusive_and_early_alert_has_no_negative_delay():
    video = score([event(10, 20)], [9.0, 21.0, 21.1])
    assert [a.seconds for a in video.outcomes[0].alerts] == [9.0, 21.0] and video.outcomes[0].delay == 0.0
    assert [a.seconds for a in video.false_alerts] == [21.1]


def test_figures_of_several_videos_add_up():
    videos = [score([event(10, 20)], [12], 1800.0), score([event(10, 20)], [30], 1800.0)]
    figures = figures_of(videos)
    assert (figures.hours, figures.violations, figures.found, figures.false_alerts_per_hour) == (1.0, 2, 1, 1.0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=4), st.lists(st.integers(0, 90), max_size=8))
def test_compare_accounts_for_every_alert_and_finds_as_many_as_possible(spans, times):
    events = [event(start, start + length, line=n) for n, (start, length) in enumerate(spans)]
    video = score(events, times, tolerance=0.0)
    assert sum(len(o.alerts) for o in video.outcomes) + len(video.false_alerts) == len(times)

    def most(left, free):  # of all ways to give each violation one alert
        if not left:
            return 0
        first, *others = left
        takes = [1 + most(others, free - {i}) for i in free if first.start <= times[i] <= first.end]
        return max([most(others, free), *takes])

    assert sum(bool(o.alerts) for o in video.outcomes) == most(events, frozenset(range(len(times))))


def test_limits_name_what_is_missed():
    figures = figures_of([score([event(10, 20), event(30, 40)], [14, 15, 100])])
    assert Limits(min_found=0.5, max_false_per_hour=1, max_delay=4, max_alerts_per_violation=2).failures(figures) == []
    assert Limits(min_found=0.51, max_false_per_hour=0.9, max_delay=3.9, max_alerts_per_violation=1.9).failures(figures) == [
        "found 50 % of the violations, at least 51 % required",
        "1 false alerts per hour, at most 0.9 allowed",
        "an alert after 4 s, at most 3.9 s allowed",
        "2 alerts per violation, at most 1.9 allowed",
    ]
    nothing = figures_of([score([], [])])
    assert Limits(min_found=0.5).failures(nothing) == ["found none of the violations, at least 50 % required"]
