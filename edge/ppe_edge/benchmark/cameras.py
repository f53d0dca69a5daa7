"""`python -m ppe_edge.benchmark MODEL --cameras N`: how many cameras this machine serves, and how fast it raises alerts.

The box runs with N cameras that show a clip in real time: frames that come too late are replaced by newer ones, as those of
live cameras are. Every bare head raises an alert at once, so that alerts are raised all the time.
"""

import functools
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from ppe_edge.benchmark.capacity import CameraLoad, Capacity
from ppe_yolo.core.words import plural

MEASURE_S = 1.0  # for the first estimate
PROGRESS, PROGRESS_S = "progress: ", 5.0  # begins lines that are shown at once
COUNTS = (1, 2, 4, 8, 16, 32)  # numbers of cameras in the table
MIN_FPS, MAX_FPS = 0.2, 25.0

_Result = TypeVar("_Result")


class RunFigures(TypedDict):
    """What a run measures; all times are in seconds.

    `decided` and `alerted` are the 50th and the 99th percentile of the time from a frame to the decision and to the stored
    alert. `parts` is where the time of the processor goes. `reading` is that of one camera, per second.
    """

    frames: int
    dropped: int
    wall: float
    decided: tuple[float, float] | None
    alerted: tuple[float, float] | None
    alerts: int
    parts: dict[str, float]
    detect_s: float
    reading: float
    threads: int
    cores: int


class StopWatch:
    """Adds up the time that is spent in functions, in all threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def around(self, name: str, function: Callable[..., _Result]) -> Callable[..., _Result]:
        """Returns the function, timed."""

        @functools.wraps(function)
        def timed(*arguments: Any, **more: Any) -> _Result:
            start = time.perf_counter()
            try:
                return function(*arguments, **more)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed


def choose_fps(config: Path, cameras: int) -> float:
    """Returns a frame rate per camera that this machine probably serves, after a measurement of about two seconds.

    Raises:
        EdgeError: The clip delivers no frame.
    """
    from ppe_edge.benchmark.capacity import measure_detection
    from ppe_edge.config import load_settings
    from ppe_edge.deployment import require_valid
    from ppe_edge.dry_run import first_frames
    from ppe_edge.errors import EdgeError
    from ppe_edge.model.store import ModelStore
    from ppe_yolo.core.cores import available_cores

    settings = load_settings(config)
    detector = ModelStore(settings.state_dir, settings.model).open()
    require_valid(settings, detector.contract)
    started = first_frames(settings, MEASURE_S)
    if not started.frames:
        clip = next(iter(settings.cameras.values())).address
        raise EdgeError(file=clip, expected="a video", got=next(iter(started.events.values()), "no frame"))
    images = [frame.image for frame in started.frames.values()][: settings.batch]
    cores = available_cores()
    capacity = Capacity(detect_s=measure_detection(detector, images, MEASURE_S), threads=cores, cores=cores)
    reading = statistics.fmean(load.reading for load in started.loads.values())
    return min(MAX_FPS, max(MIN_FPS, round(capacity.rate_each(cameras, reading), 1)))


def run(config: Path, seconds: float) -> RunFigures:
    """Runs the box with the configuration's cameras in real time; returns measurements.

    Args:
        config: Its cameras are videos.
        seconds: How long; ends earlier with the video.
    """
    import ppe_edge.pipeline
    from ppe_edge.pictures.snapshot import make_snapshot
    from ppe_edge.startup import prepare
    from ppe_yolo.core.cores import available_cores

    application = prepare(config, None)
    runtime = application.runtime
    watch, decided, stored = StopWatch(), list[float](), dict[str, float]()
    seen: dict[str, float] = {}  # alert -> when its frame was decoded
    process_batch, put = runtime.process_batch, runtime.outbox.put
    begin = time.monotonic()
    shown = begin

    def timed_batch(frames: Any) -> None:
        nonlocal shown
        process_batch(frames)
        now = time.monotonic()
        for frame in frames:
            decided.append(now - frame.monotonic)
            for alert in runtime.pipelines[frame.camera].open.values():
                seen.setdefault(alert, frame.monotonic)
        if now - shown >= PROGRESS_S:
            shown = now
            print(
                f"{PROGRESS}{now - begin:.0f} of {seconds:g} s, {plural(len(decided), 'frame')}, "
                f"{plural(len(stored), 'alert')}",
                file=sys.stderr,
                flush=True,
            )

    def timed_put(message: Any, snapshot: bytes | None = None) -> str:
        result = put(message, snapshot)
        if message.kind == "alert":
            stored[message.id] = time.monotonic()
        return result

    observe, stages = runtime.telemetry.observe, dict.fromkeys(("detect", "track", "rules"), 0.0)

    def noted(name: str, seconds: float) -> None:
        observe(name, seconds)
        stages[name] = stages.get(name, 0.0) + seconds

    runtime.telemetry.observe = noted  # type: ignore[method-assign]
    runtime.process_batch = timed_batch  # type: ignore[method-assign]
    runtime.outbox.put = watch.around("store", timed_put)  # type: ignore[method-assign]
    runtime.detector.run = watch.around("network", runtime.detector.run)  # type: ignore[method-assign]
    ppe_edge.pipeline.make_snapshot = watch.around("encode", make_snapshot)  # type: ignore[attr-defined]
    end = threading.Timer(seconds, runtime.request_stop)
    end.daemon = True
    end.start()
    with _real_time(list(runtime.settings.cameras), begin):
        application.run()
    end.cancel()
    wall = time.monotonic() - begin
    cores = available_cores()
    return {
        "frames": len(decided),
        "dropped": sum(reader.dropped for reader in runtime.readers.values()),
        "wall": wall,
        "decided": percentiles(decided),
        "alerted": percentiles([stored[alert] - seen[alert] for alert in stored if alert in seen]),
        "alerts": len(stored),
        "parts": {
            "decode": sum(reader.cpu_seconds for reader in runtime.readers.values()),
            "resize": stages["detect"] - watch.seconds["network"],
            "network": watch.seconds["network"],
            "tracking and rule": stages["track"] + stages["rules"],
            "snapshot": watch.seconds["encode"],
            "store": watch.seconds["store"],
        },
        "detect_s": stages["detect"] / max(1, len(decided)),
        "reading": statistics.fmean(reader.cpu_seconds / wall for reader in runtime.readers.values()),
        "threads": runtime.settings.model.threads or cores,
        "cores": cores,
    }


def percentiles(seconds: list[float]) -> tuple[float, float] | None:
    """Returns the 50th and the 99th percentile; None of fewer than two values."""
    if len(seconds) < 2:
        return None
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[98]


def report(figures: RunFigures, cameras: int, fps: float) -> str:
    """Returns the measurements as text, and what follows from them for other numbers of cameras."""
    served = figures["frames"] / figures["wall"] / cameras
    wanted = figures["frames"] + figures["dropped"]
    lines = [
        f"{plural(cameras, 'camera')} at {plural(f'{fps:g}', 'frame')} per second each, {figures['wall']:.0f} s: "
        f"{plural(figures['frames'], 'frame')} "
        f"({served:.2g} per second and camera), {100 * figures['dropped'] / max(1, wanted):.0f} % dropped, "
        f"{plural(figures['alerts'], 'alert')}",
        _latency("from frame to decision", figures["decided"]),
        _latency("from frame to alert", figures["alerted"]),
        "where the time goes, seconds per second:",
    ]
    lines += [f"  {part:20s} {seconds / figures['wall']:8.3f}" for part, seconds in figures["parts"].items()]
    capacity = Capacity(detect_s=figures["detect_s"], threads=figures["threads"], cores=figures["cores"])
    load = capacity.load([CameraLoad(served, figures["reading"])] * cameras)
    cores = plural(figures["cores"], "core")
    lines.append(f"load                   {100 * load:6.0f} % of the model or of {cores}, whichever is scarcer")
    lines.append("cameras of this kind that this machine serves, by frames per second each:")
    for count in sorted({*COUNTS, cameras}):
        rate = min(MAX_FPS, capacity.rate_each(count, figures["reading"]))
        lines.append(f"  {plural(count, 'camera'):20s} {f'{rate:8.2f}' if rate >= MIN_FPS else '    none'}")
    return "\n".join(lines)


def _latency(name: str, values: tuple[float, float] | None) -> str:
    if values is None:
        return f"{name:22s}  unknown: fewer than two"
    return f"{name:22s} {1e3 * values[0]:8.2f} ms (p50) {1e3 * values[1]:8.2f} ms (p99)"


@contextmanager
def _real_time(cameras: list[str], begin: float) -> Iterator[None]:
    """Makes the readers of videos deliver frames as live cameras do: in time, one after the other, and without waiting."""
    from ppe_edge.cameras.mailbox import Frame, FrameMailbox

    put, first = FrameMailbox.put, dict[str, float]()

    def put_in_time(mailbox: FrameMailbox, frame: Frame, wait: bool = False, *arguments: Any, **more: Any) -> bool:
        start = first.setdefault(frame.camera, frame.time)
        due = begin + frame.time - start + cameras.index(frame.camera) / len(cameras)
        time.sleep(max(0.0, due - time.monotonic()))
        return put(mailbox, replace(frame, monotonic=time.monotonic()), False, *arguments, **more)

    FrameMailbox.put = put_in_time  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        FrameMailbox.put = put  # type: ignore[method-assign]
