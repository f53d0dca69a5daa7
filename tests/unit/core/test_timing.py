"""The interleaved timer."""

import pytest

from ppe_yolo.core import timing
from ppe_yolo.core.timing import RUNS_PER_TURN, time_interleaved


def test_time_interleaved_alternates_the_order_of_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setattr(timing, "WARM_UP", 0.0)
    calls: list[str] = []
    times = time_interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    turns = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert turns == ["a", "b", "a", "b"]  # the second of a round is the first of the next one
    assert calls.count("a") >= 3 * RUNS_PER_TURN and {name: len(t) for name, t in times.items()} == {"a": 3, "b": 3}
    assert all(seconds >= 0 for turn in times.values() for seconds in turn)


def test_time_interleaved_measures_the_case_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def work(seconds: float) -> None:
        clock[0] += seconds

    times = time_interleaved({"fast": lambda: work(0.25), "slow": lambda: work(1.0)}, rounds=2)
    assert times == {"fast": [0.25, 0.25], "slow": [1.0, 1.0]}
