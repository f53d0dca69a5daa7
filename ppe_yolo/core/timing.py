"""A timer that compares several functions fairly on a busy machine."""

import statistics
import time
from collections.abc import Callable, Mapping

PAUSE = 0.1  # seconds
WARM_UP = 0.05  # seconds of runs at the start of each turn that are not timed
RUNS_PER_TURN = 5


def time_interleaved(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times several functions in turn, so that other load on the machine affects all of them alike.

    Each round gives every case one turn, and the order alternates from round to round. onnxruntime's threads keep spinning for
    a while after a run and would take a core from the next case, so a pause precedes each turn. A processor that has just
    slept runs short work at half its speed, so each turn warms it up first. The time of a turn is the median of a few runs.

    Args:
        cases: Name -> function to time.
        rounds: Number of turns per case.

    Returns:
        Name -> seconds of each turn [rounds]. Turns of the same round can be compared one by one.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, run in list(cases.items())[:: 1 if number % 2 == 0 else -1]:
            time.sleep(PAUSE)
            warm = time.perf_counter() + WARM_UP
            while time.perf_counter() < warm:
                run()
            turn = []
            for _ in range(RUNS_PER_TURN):
                start = time.perf_counter()
                run()
                turn.append(time.perf_counter() - start)
            times[name].append(statistics.median(turn))
    return times
