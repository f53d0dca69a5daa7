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
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from ppe_edge.benchmark.capacity import CameraLoad, Capacity
from ppe_yolo.core.words import plural

if TYPE_CHECKING:
    from ppe_edge.runtime import Runtime

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
    from ppe_edge.startup import prepare

    application = prepare(config, None)
    runtime = application.runtime
    notes = _Notes(runtime, seconds)
    end = threading.Timer(seconds, runtime.request_stop)
    end.daemon = True
    end.start()
    with _real_time(list(runtime.settings.cameras), notes.begin):
        application.run()
    end.cancel()
    return notes.figures(time.monotonic() - notes.begin)


class _Notes:
    """Notes when a box decides and alerts, and where its time goes: wraps its methods, and prints the progress.

    Args:
        runtime: The box; not started yet.
        seconds: How long it will run.

    Attributes:
        begin: Monotonic time of the beginning.
    """

    def __init__(self, runtime: "Runtime", seconds: float) -> None:
        import ppe_edge.pipeline
        from ppe_edge.pictures.snapshot import make_snapshot

        self.begin = self._shown = time.monotonic()
        self._runtime, self._seconds, self._watch = runtime, seconds, StopWatch()
        self._decided: list[float] = []  # seconds from frame to decision
        self._seen: dict[str, float] = {}  # alert -> when its frame was decoded
        self._stored: dict[str, float] = {}  # alert -> when it was stored
        self._process_batch, self._put, self._observe = runtime.process_batch, runtime.outbox.put, runtime.telemetry.observe
        runtime.process_batch = self._note_batch  # type: ignore[method-assign]
        runtime.outbox.put = self._watch.around("store", self._note_put)  # type: ignore[method-assign]
        runtime.telemetry.observe = self._note_stage  # type: ignore[method-assign]
        runtime.detector.run = self._watch.around("network", runtime.detector.run)  # type: ignore[method-assign]
        ppe_edge.pipeline.make_snapshot = self._watch.around("encode", make_snapshot)  # type: ignore[attr-defined]

    def _note_batch(self, frames: Any) -> None:
        self._process_batch(frames)
        now = time.monotonic()
        for frame in frames:
            self._decided.append(now - frame.monotonic)
            for alert in self._runtime.pipelines[frame.camera].open.values():
                self._seen.setdefault(alert, frame.monotonic)
        if now - self._shown >= PROGRESS_S:
            self._shown = now
            counts = f"{plural(len(self._decided), 'frame')}, {plural(len(self._stored), 'alert')}"
            print(f"{PROGRESS}{now - self.begin:.0f} of {self._seconds:g} s, {counts}", file=sys.stderr, flush=True)

    def _note_put(self, message: Any, snapshot: bytes | None = None) -> str:
        result = self._put(message, snapshot)
        if message.kind == "alert":
            self._stored[message.id] = time.monotonic()
        return result

    def _note_stage(self, name: str, seconds: float) -> None:
        self._observe(name, seconds)
        self._watch.seconds[name] += seconds

    def figures(self, wall: float) -> RunFigures:
        """Returns the measurements of a run that took `wall` seconds."""
        from ppe_yolo.core.cores import available_cores

        readers, spent, cores = self._runtime.readers.values(), self._watch.seconds, available_cores()
        return {
            "frames": len(self._decided),
            "dropped": sum(reader.dropped for reader in readers),
            "wall": wall,
            "decided": percentiles(self._decided),
            "alerted": percentiles(
                [stored - self._seen[alert] for alert, stored in self._stored.items() if alert in self._seen]
            ),
            "alerts": len(self._stored),
            "parts": {
                "decode": sum(reader.cpu_seconds for reader in readers),
                "resize": spent["detect"] - spent["network"],
                "network": spent["network"],
                "tracking and rule": spent["track"] + spent["rules"],
                "snapshot": spent["encode"],
                "store": spent["store"],
            },
            "detect_s": spent["detect"] / max(1, len(self._decided)),
            "reading": statistics.fmean(reader.cpu_seconds / wall for reader in readers),
            "threads": self._runtime.settings.model.threads or cores,
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
