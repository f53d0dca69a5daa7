"""When people are told that a camera has failed."""

import pytest
from ppe_edge.cameras.attention import WORKS_AFTER, Attention, AttentionWatch


def reports(failures: list[tuple[int, int]], seconds: int) -> list[tuple[int, Attention]]:
    """What is reported, and when, of a camera that fails from each start to before each end; checked every second."""
    watch, reported = AttentionWatch(), []
    for now in range(seconds):
        attention = watch.update(not any(start <= now < end for start, end in failures), float(now), after_s=600.0)
        if attention is not None:
            reported.append((now, attention))
    return reported


def test_failed_camera_is_reported_once_and_again_when_it_works() -> None:
    assert WORKS_AFTER == 60
    assert reports([(100, 2000), (5000, 5599)], 10_000) == [(700, ("needs_attention", 600)), (2600, ("works_again", 1900))]


@pytest.mark.parametrize("pause", [10, 59])
def test_camera_that_fails_again_and_again_is_reported_once(pause: int) -> None:
    failures = [(start, start + 60 - pause) for start in range(0, 6000, 60)]
    assert reports(failures, 7000) == [(600, ("needs_attention", 600)), (6600 - pause, ("works_again", 6000 - pause))]


def test_light_that_is_switched_on_now_and_then_causes_no_further_report() -> None:
    failures = [(start, start + 1500) for start in range(0, 18_000, 1800)]
    assert reports(failures, 18_000) == [(600, ("needs_attention", 600))]


def test_camera_that_never_worked_is_reported() -> None:
    assert reports([(0, 1000)], 1000) == [(600, ("needs_attention", 600))]
