"""The clip of an alert: the seconds before and after it as H.264 in MP4, with all heads pixelated.

Frames are pixelated before they are kept, at a reduced size and rate, as JPEG. A clip is encoded only when there is an alert.
Both happen in threads that run when the cores have nothing else to do: if they have not, a clip has fewer frames.
"""

import logging
import os
import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from fractions import Fraction

import av
import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.delivery.messages import Alert, AlertClip, Sighting, clip_of
from ppe_edge.errors import EdgeError
from ppe_edge.pictures.snapshot import Image, SnapshotConfig, View, draw, encode

MAX_SIDE = 640  # pixels
FPS = 8  # at most
RING_BYTES = 8_000_000  # per camera
MAX_WAITING = 4  # frames that wait for their turn; each holds the memory of a whole frame
MAX_JOBS = 8  # clips that wait to be encoded
_TICKS = 1000  # per second
_LATE_S = 2.0  # how long a clip waits for the frames of a camera that was lost
_NICENESS = 10

Submit = Callable[[AlertClip, Callable[[], bytes]], None]
Frames = Sequence[tuple[float, bytes]]  # capture time in seconds, JPEG
Heads = Mapping[int, tuple[str, float]]  # track -> class and score

_log = logging.getLogger(__name__)


class ClipConfig(BaseModel):
    """Short videos, with heads pixelated like snapshots. Each follows its alert as a message of the kind `alert_clip`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(False, description="Whether an alert is followed by a clip.")
    before_s: float = Field(5.0, ge=0, le=30, description="Seconds before the alert.")
    after_s: float = Field(5.0, ge=0, le=30, description="Seconds after the alert.")


@dataclass(slots=True)
class _Cut:
    """A clip whose last frames are still to come."""

    alert: Alert
    time: float  # of the alert's frame
    deadline: float  # monotonic time


@dataclass(slots=True)
class _Ring:
    """The latest frames of a camera."""

    frames: deque[tuple[float, bytes, Heads]] = field(default_factory=deque)
    size: int = 0  # bytes
    cuts: list[_Cut] = field(default_factory=list)

    def add(self, seconds: float, jpeg: bytes, heads: Heads, before_s: float) -> None:
        self.frames.append((seconds, jpeg, heads))
        self.size += len(jpeg)
        oldest = min([seconds, *(cut.time for cut in self.cuts)]) - before_s
        while self.frames and (self.frames[0][0] < oldest or self.size > RING_BYTES):
            self.size -= len(self.frames.popleft()[1])


class ClipRecorder:
    """Keeps the latest frames of all cameras, and makes the clips of alerts.

    Args:
        config: Length of the clips.
        submit: Takes the message with the clip, and a function that returns the MP4; called in a thread of the recorder.
        on_fault: Called after each failure.

    Raises:
        EdgeError: The installed PyAV has no encoder.
    """

    def __init__(self, config: ClipConfig, submit: Submit, on_fault: Callable[[], None]) -> None:
        if "libx264" not in av.codecs_available:
            raise EdgeError(setting="clip.enabled", problem="this PyAV has no H.264 encoder", hint="install PyAV from PyPI")
        self._config, self._submit, self._on_fault = config, submit, on_fault
        self._views: queue.Queue[tuple[View, Sequence[Alert], bool] | None] = queue.Queue()
        self._due: dict[str, float] = {}  # camera -> time of its next frame to keep
        self._rings: dict[str, _Ring] = {}
        self._encoder = ThreadPoolExecutor(1, "clip-encoder", initializer=_yield_to_others)
        self._jobs: set[Future[None]] = set()
        self._end = float("inf")  # monotonic time until which `stop` waits
        self._is_late = False  # whether a clip was not ready by then
        self._thread = threading.Thread(target=self._work, name="clips", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def add(self, view: View, alerts: Sequence[Alert], blur: bool) -> None:
        """Takes a processed frame; returns at once.

        Args:
            view: The frame and its heads.
            alerts: The alerts that it raised.
            blur: Whether to pixelate heads.
        """
        camera, seconds = view.frame.camera, view.frame.time
        is_due = seconds >= self._due.get(camera, 0.0) or seconds < self._due[camera] - 1  # a video file that starts again
        if alerts or (is_due and self._views.qsize() < MAX_WAITING):
            self._due[camera] = seconds + 0.9 / FPS  # the frames of a camera never come exactly in time
            self._views.put((view, alerts, blur))

    def join(self) -> None:
        """Waits until every frame that was added is kept."""
        self._views.join()

    def stop(self, timeout_s: float) -> bool:
        """Makes the clips that are begun, with the frames that are there; returns False if that takes longer."""
        self._end = time.monotonic() + timeout_s
        self._views.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        is_late = self._is_late or self._thread.is_alive()
        if is_late:
            _log.warning("clips that were not ready in time are missing; their alerts were sent")
        return not is_late

    def _work(self) -> None:
        _yield_to_others()
        stopping = False
        while not stopping:
            try:
                item = self._views.get(timeout=1.0)
            except queue.Empty:
                pass
            else:
                stopping = item is None
                if item is not None:
                    self._keep_or_report(*item)
                self._views.task_done()
            for camera, ring in self._rings.items():
                self._finish(camera, ring, stopping)
        # here and not in `stop`, which may have given up before this thread has submitted its last clips
        self._is_late = bool(wait(self._jobs, max(0.0, self._end - time.monotonic())).not_done)
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def _keep_or_report(self, view: View, alerts: Sequence[Alert], blur: bool) -> None:
        try:
            self._keep(view, alerts, blur)
        except Exception:
            _log.exception("a frame is missing in the clips")
            self._on_fault()

    def _keep(self, view: View, alerts: Sequence[Alert], blur: bool) -> None:
        look = SnapshotConfig(blur=blur, max_side=MAX_SIDE, max_bytes=RING_BYTES // 20)
        jpeg = encode(draw(view, look, view.alarmed), look)
        ring = self._rings.setdefault(view.frame.camera, _Ring())
        deadline = time.monotonic() + self._config.after_s + _LATE_S
        ring.cuts += [_Cut(alert, view.frame.time, deadline) for alert in alerts]
        if jpeg is not None:
            heads = {t.id: (view.contract.class_names[t.label], t.score) for t in view.tracks if t.seen}
            ring.add(view.frame.time, jpeg, heads, self._config.before_s)

    def _finish(self, camera: str, ring: _Ring, stopping: bool) -> None:
        """Starts encoding the clips whose last frame is there."""
        now = time.monotonic()
        latest = ring.frames[-1][0] if ring.frames else float("-inf")
        ready = [c for c in ring.cuts if stopping or c.time + self._config.after_s <= latest or c.deadline <= now]
        ring.cuts = [cut for cut in ring.cuts if cut not in ready]
        self._jobs = {job for job in self._jobs if not job.done()}
        for cut in ready:
            first, last = cut.time - self._config.before_s, cut.time + self._config.after_s
            frames = [frame for frame in ring.frames if first <= frame[0] <= last]
            if not frames or len(self._jobs) >= MAX_JOBS:
                _log.warning("%s: alert %s has no clip: the box is too slow", camera, cut.alert.id)
                self._on_fault()
            else:
                self._jobs.add(self._encoder.submit(self._make, cut, frames))

    def _make(self, cut: _Cut, frames: Sequence[tuple[float, bytes, Heads]]) -> None:
        try:
            video = encode_clip([(seconds, jpeg) for seconds, jpeg, _ in frames])
            sightings = [
                Sighting(offset_s=round(seconds - cut.time, 3), class_name=heads[track][0], score=round(heads[track][1], 3))
                for seconds, _, heads in frames
                if (track := cut.alert.track) in heads
            ]
            clip = clip_of(cut.alert, frames[0][0] - cut.time, frames[-1][0] - frames[0][0], sightings)
            self._submit(clip, lambda: video)
        except Exception:  # the alert was sent; it stays without a clip
            _log.exception("%s: alert %s has no clip: it could not be made", cut.alert.camera, cut.alert.id)
            self._on_fault()


def encode_clip(frames: Frames) -> bytes:
    """Encodes frames as H.264 in MP4, 4:2:0 with the index in front, as browsers and phones play it.

    Raises:
        OSError, ValueError: It cannot be encoded.
    """
    height, width = (side - side % 2 for side in _decode(frames[0][1]).shape[:2])  # 4:2:0 needs even sides
    with tempfile.TemporaryFile() as file:  # without a name: if the process is killed, nothing is left
        with av.open(f"/proc/self/fd/{file.fileno()}", "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "26"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
            stream.codec_context.thread_count = 1
            last_tick = -1
            for seconds, jpeg in frames:
                tick = round((seconds - frames[0][0]) * _TICKS)
                if tick <= last_tick:
                    continue
                last_tick = tick
                image = _decode(jpeg)
                if not (
                    0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1
                ):  # the camera has changed its resolution
                    image = np.asarray(cv2.resize(image, (width, height)), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
                frame.pts, frame.time_base = tick, Fraction(1, _TICKS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        file.seek(0)
        return file.read()


def _decode(jpeg: bytes) -> Image:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def _yield_to_others() -> None:
    """Lowers the priority of this thread; on Linux, a thread has one of its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
