import pytest
from ppe_edge.cameras.rate import CONFIRM, LagWatch, RateMeter, RateWatch


@pytest.mark.parametrize("fps", [0.2, 1.0, 8.0, 30.0])
def test_meter_measures_rate_and_notices_silence(fps: float) -> None:
    meter = RateMeter()
    assert meter.rate(0.0) is None
    for i in range(400):
        meter.add(i / fps)
    last = 399 / fps
    assert meter.rate(last) == pytest.approx(fps)
    assert meter.rate(last + 100.0) == pytest.approx(0.01)
    meter.reset()
    assert meter.rate(last) is None


def test_sudden_slow_down_is_reported_within_20_s_with_its_own_rate() -> None:
    meter, watch = RateMeter(), RateWatch(4.0)
    times = [n / 4.5 for n in range(180)] + [40.0 + n for n in range(30)]
    for now in (n / 10 for n in range(700)):
        while times and times[0] <= now:
            meter.add(times.pop(0))
        if watch.update(meter.rate(now), now):
            break
    assert watch.is_low and 50.0 < now < 60.0 and meter.rate(now) == pytest.approx(1.0, abs=0.05)


def test_watch_reports_lasting_changes_once_and_does_not_flap() -> None:
    watch = RateWatch(4.0)
    changes = []
    for second in range(400):
        # 100 s of jitter around the limit; 100 s too low; 100 s just above the limit; then sufficient
        rate = (4.2 if second % 8 else 3.8) if second < 100 else 2.0 if second < 200 else 4.1 if second < 300 else 5.0
        if watch.update(rate, float(second)):
            changes.append((second, watch.is_low))
    assert changes == [(100 + CONFIRM, True), (300 + CONFIRM, False)]
    assert not watch.update(None, 500.0)


def test_reader_that_hardly_waits_for_data_falls_behind() -> None:
    """It waits for half of the time, for 30 s for 1 %, for 30 s for 7 %, which is not enough again, and then for 20 %."""
    watch, waited, changes = LagWatch(), 0.0, []
    for second in range(121):
        waited += 0.5 if second < 30 else 0.01 if second < 60 else 0.07 if second < 90 else 0.2
        if watch.update(waited, float(second)):
            changes.append((second, watch.is_behind))
    # ten seconds of 1 %; seven of 7 and three of 20 are more than 10 %
    assert changes == [(39 + CONFIRM, True), (92 + CONFIRM, False)]


@pytest.mark.parametrize("period", [1, 9, 12, 30])
def test_reader_that_waits_for_rare_frames_is_not_behind(period: int) -> None:
    """The wait counts when the frame is there."""
    watch = LagWatch()
    assert not any(watch.update(float(second // period * period), float(second)) for second in range(300))


def test_short_changes_do_not_count() -> None:
    watch, waited = LagWatch(), 0.0
    for second in range(300):
        waited += 0.2 if second % 20 < 12 else 0.0001
        assert not watch.update(waited, float(second))


def test_reader_that_is_replaced_is_not_behind() -> None:
    """Two changes of the settings, nine seconds apart; the counter of each new reader starts at 0."""
    watch, waited = LagWatch(), 0.0
    for second in range(120):
        waited = 0.0 if second in (60, 69) else waited + 0.2
        assert not watch.update(waited, float(second))
