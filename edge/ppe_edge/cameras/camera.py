"""Reads a camera: connects, decodes, detects failures and reconnects, independently of the other cameras.

Each connection has a thread of its own. A decoder can hang in C code, where no exception reaches it. The thread is then
abandoned (it ends when the decoder returns), and another one replaces it.
"""

import logging
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppe_edge.cameras.mailbox import Frame, FrameMailbox
from ppe_edge.cameras.sources import DecodedFrame, Kind, SourceConfig, SourceError, open_source
from ppe_edge.common.backoff import Backoff
from ppe_edge.common.clock import current_correction, is_set, steady_time
from ppe_edge.common.redact import redact_url

State = Literal["connecting", "live", "frozen", "lost", "ended"]
EventKind = Literal[
    "connected",
    "lost",
    "frozen",
    "resumed",
    "resolution_changed",
    "ended",
    "decode_errors",
    "slow",
    "rate_restored",
    "view_covered",
    "view_overexposed",
    "view_out_of_focus",
    "view_turned",
    "view_restored",
    "needs_attention",
    "works_again",
]

FIRST_WAIT, MAX_WAIT = 0.5, 5.0  # seconds between attempts
STABLE_AFTER = 10.0  # seconds; a connection that lasted this long resets the backoff
CORRUPT_INTERVAL = 60.0  # minimum seconds between two reports of corrupt data
MAX_ABANDONED = 3  # hanging threads per camera; at this number, no thread is added until one of them ends
CHANGE_CHECK_INTERVAL = 1.0  # seconds; frames that the rate limit skips are checked for changes this often
_POLL = 0.2  # seconds
_ROUNDING = 1e-4  # seconds; in floating point, three steps of 0.2 are more than 0.6

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CameraEvent:
    """A change in the state of a camera. `time` is UTC epoch seconds; `detail` holds no secrets."""

    camera: str
    time: float
    kind: EventKind
    detail: str = ""


@dataclass(eq=False, kw_only=True)
class _Connection:
    """State that a reading thread shares with its supervisor. Times are monotonic."""

    opened: float
    thread: threading.Thread | None = None
    abandoned: bool = False  # its frames are no longer wanted
    done: threading.Event = field(default_factory=threading.Event)
    failure: str = ""
    finished: bool = False  # the source reached its end
    last_change: float = 0.0  # when the image last changed
    has_frame: bool = False
    awaits_key_frame: bool = False  # data arrives, but no frame can be decoded yet ...
    is_reported: bool = False  # ... which was reported
    last_check: float = 0.0  # when the image was last checked for changes


class CameraReader:
    """Reads one camera until it is stopped or, for a file, until its end.

    Only the threads of the reader set the attributes; any thread may read them.

    Args:
        name: Name of the camera.
        config: Address and timeouts.
        mailbox: Receives the frames. Each frame of a file waits until the previous one was taken.
        on_event: Called with each event, from the threads of the reader; must not block for long.

    Attributes:
        state: See `State`.
        frames: Number of frames put into the mailbox.
        dropped: Number of these that a newer frame replaced.
        reconnects: Number of connection attempts after the first.
        errors: Number of parts that could not be decoded.
        last_error: Why the latest of these could not be decoded; empty if there are none.
        outage: Why the latest connection ended; empty before that.
        failure: Why a file could not be read to its end; empty otherwise, and for cameras, which reconnect.
        last_frame_at: Monotonic time of the last frame; None before the first.
        seconds: Time from the first to the last frame.
        cpu_seconds: Processor time that the last connection has taken until its last frame.
        waited_s: How long the connections have waited for data.
    """

    def __init__(self, name: str, config: SourceConfig, mailbox: FrameMailbox, on_event: Callable[[CameraEvent], None]) -> None:
        self.name, self.config, self.mailbox = name, config, mailbox
        self.state: State = "connecting"
        self.frames = self.dropped = self.reconnects = self.errors = 0
        self.last_frame_at: float | None = None
        self.seconds = 0.0
        self.cpu_seconds = self.waited_s = 0.0
        self.failure = self.last_error = self.outage = ""
        self._ends = config.ends  # evaluated once: a file that disappears must not become another kind of source
        self._on_event = on_event
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name=f"camera {name}", daemon=True)
        self._last_checksum: int | None = None  # of the last image, across connections
        self._size: tuple[int, int] | None = None
        self._first_at: float | None = None  # capture time of the first frame
        self._was_live = False
        self._corrupt_reported_at = -CORRUPT_INTERVAL
        self._errors_reported = 0
        self._ignored = ""  # part of the source that is not read

    def start(self) -> None:
        """Starts reading in threads of its own."""
        self._supervisor.start()

    def stop(self, timeout: float) -> None:
        """Stops reading; waits at most `timeout` seconds."""
        self._stopping.set()
        self.mailbox.discard(self.name)
        if timeout > 0 and self._supervisor.ident is not None:
            self._supervisor.join(timeout)

    # the supervisor's thread

    def _supervise(self) -> None:
        backoff = Backoff(FIRST_WAIT, MAX_WAIT)
        abandoned: list[_Connection] = []
        while not self._stopping.is_set():
            connection = self._connect()
            self._watch(connection)
            self._abandon(connection)
            if self._stopping.is_set():
                break
            if connection.finished or self._ends:  # reading a broken file again would process its start twice
                self.failure = connection.failure
                self._change_state("ended", connection.failure)
                return
            abandoned = [c for c in (*abandoned, connection) if not c.done.is_set()]
            if connection.has_frame and time.monotonic() - connection.opened > STABLE_AFTER:
                backoff.reset()
            if self._stopping.wait(backoff.next()):
                break
            while len(abandoned) >= MAX_ABANDONED and not self._stopping.wait(_POLL):
                abandoned = [c for c in abandoned if not c.done.is_set()]
            self.reconnects += 1

    def _connect(self) -> _Connection:
        connection = _Connection(opened=time.monotonic())
        connection.last_change = connection.opened
        connection.thread = threading.Thread(target=self._read, args=(connection,), name=f"reader {self.name}", daemon=True)
        try:
            connection.thread.start()
        except RuntimeError as error:  # the machine has no room for another thread
            connection.failure = str(error)
            connection.done.set()
        return connection

    def _watch(self, connection: _Connection) -> None:
        """Returns when the connection is no longer useful."""
        timeout = self.config.frozen_after_s
        while not connection.done.wait(_POLL):
            if self._stopping.is_set():
                return
            if connection.awaits_key_frame and not connection.has_frame:
                if not self._may_await_key_frame(connection):
                    return
                continue
            # a file waits until its frames are taken, however long that takes
            if not self._ends and time.monotonic() - connection.last_change > timeout:
                if connection.has_frame or self.state == "frozen":
                    self._change_state("frozen", f"no new frame for {timeout:g} s")
                else:
                    self._change_state("lost", f"no frame within {timeout:g} s")
                return
        if not connection.finished and not self._stopping.is_set():
            self._change_state("frozen" if self.state == "frozen" else "lost", connection.failure)

    def _may_await_key_frame(self, connection: _Connection) -> bool:
        """Whether there is time left to wait for a key frame. Reports once that it is missing."""
        waited = time.monotonic() - connection.opened
        if waited > self.config.frozen_after_s and not connection.is_reported:
            connection.is_reported = True
            self._report_missing_key_frame()
        if waited <= self.config.key_frame_timeout_s:
            return True
        _log.warning("%s: no key frame within %g s: reconnecting", self.name, self.config.key_frame_timeout_s)
        return False

    def _report_missing_key_frame(self) -> None:
        detail = (
            f"data arrives, but no key frame, so nothing can be decoded yet: waiting for up to "
            f"{self.config.key_frame_timeout_s:g} s: set the camera's key-frame (I-frame) interval to 1 or 2 s, and turn off "
            "smart codecs (H.264+, H.265+)"
        )
        if self.state in ("lost", "frozen"):  # reported already, without this reason
            _log.warning("%s: %s", self.name, detail)
        else:
            self._change_state("lost", detail)

    def _abandon(self, connection: _Connection) -> None:
        connection.abandoned = True
        if not connection.finished:
            self.mailbox.discard(self.name)

    def _change_state(self, state: Literal["frozen", "lost", "ended"], detail: str) -> None:
        """Changes the state, and reports the change once."""
        self.outage = detail
        if self.state != state:
            self.state = state
            self._report(state, detail)

    def _report(self, kind: EventKind, detail: str) -> None:
        try:
            self._on_event(CameraEvent(camera=self.name, time=time.time(), kind=kind, detail=detail))
        except Exception:  # a listener must not stop the camera
            _log.exception("%s: the handler of event %s failed", self.name, kind)

    # a connection's thread

    def _read(self, connection: _Connection) -> None:
        try:
            if not self._read_frames(connection):
                return
            if self._ends:
                if self.errors > self._errors_reported:  # the last one may be that the file is incomplete
                    self._report_errors()
                connection.finished = not connection.abandoned
            else:
                connection.failure = "the stream ended"
        except SourceError as error:
            connection.failure = str(error)
        except Exception as error:  # whatever a camera sends, its reader must survive
            connection.failure = f"{type(error).__name__} while reading {redact_url(self.config.address)}"
            _log.warning("%s: %s", self.name, connection.failure)
        finally:
            connection.done.set()

    def _read_frames(self, connection: _Connection) -> bool:
        """Delivers the frames that are due; returns whether the source has reached its end."""
        opened_at, due = steady_time(time.monotonic()), 0.0
        correction = current_correction()  # of a file: its time starts when it is opened
        decoded = open_source(
            self.config, self._on_corrupt, lambda: self._note_waiting(connection), self._note_ignored, self._note_waited
        )
        for frame in decoded:
            if connection.abandoned or self._stopping.is_set():
                return False
            now = time.monotonic()
            self.cpu_seconds = time.thread_time()
            position = frame.seconds if self._ends and frame.seconds is not None else now - connection.opened
            if not self._is_due(position, due):
                if not self._ends and now - connection.last_check >= CHANGE_CHECK_INTERVAL:
                    self._has_changed(connection, frame.convert(), now)
                continue
            due = self._next_due(position, due)
            captured_at = opened_at + position
            if not self._ends:
                captured_at, correction = steady_time(now), current_correction()
            self._deliver(connection, frame, captured_at, correction, now)
        return True

    @staticmethod
    def _note_waiting(connection: _Connection) -> None:
        connection.awaits_key_frame = True

    def _note_waited(self, seconds: float) -> None:
        self.waited_s += seconds

    def _note_ignored(self, ignored: str) -> None:
        if ignored != self._ignored:  # with each connection
            self._ignored = ignored
            _log.warning("%s: %s", self.name, ignored)

    def _is_due(self, position: float, due: float) -> bool:
        """Returns whether the rate limit lets a frame through. It spaces the images of a folder, and drops none."""
        return self.config.fps is None or self.config.kind is Kind.folder or position >= due - _ROUNDING

    def _next_due(self, position: float, due: float) -> float:
        if self.config.fps is None:
            return 0.0
        step = 1.0 / self.config.fps
        # stay on the grid while frames arrive in time: otherwise a limit of 10 at 25 frames per second would let only 8 through
        return due + step if position - due < step else position + step

    def _deliver(
        self, connection: _Connection, decoded: DecodedFrame, captured_at: float, correction: float, now: float
    ) -> None:
        image = decoded.convert()
        if connection.abandoned:
            return
        # skip the frames of a frozen camera until the image changes
        if not self._ends and not self._has_changed(connection, image, now) and self.state == "frozen":
            return
        self._note_size(image)
        connection.has_frame = True
        if self.state != "live":
            self.state = "live"
            self._report("resumed" if self._was_live else "connected", f"{image.shape[1]}x{image.shape[0]}")
            self._was_live = True
        number, self.frames = self.frames, self.frames + 1
        self.last_frame_at = now
        self._first_at = captured_at if self._first_at is None else self._first_at
        self.seconds = captured_at - self._first_at
        frame = Frame(
            camera=self.name,
            number=number,
            time=captured_at,
            monotonic=now,
            image=image,
            correction=correction,
            is_time_certain=is_set(captured_at + correction) and (decoded.certain or not self._ends),
        )
        self.dropped += self.mailbox.put(frame, wait=self._ends, unless=lambda: connection.abandoned or self._stopping.is_set())

    def _has_changed(self, connection: _Connection, image: NDArray[np.uint8], now: float) -> bool:
        """Returns whether the image differs from the last one. With sensor noise, images of a live camera always do."""
        connection.has_frame, connection.last_check = True, now
        checksum = zlib.crc32(image[::8].tobytes())  # whole rows: the last digit of a clock is small
        if checksum == self._last_checksum:
            return False
        self._last_checksum, connection.last_change = checksum, now
        return True

    def _note_size(self, image: NDArray[np.uint8]) -> None:
        size = (image.shape[0], image.shape[1])
        # the images of a folder may differ in size
        if self._size is not None and self._size != size and self.config.kind is not Kind.folder:
            self._report("resolution_changed", f"{self._size[1]}x{self._size[0]} -> {size[1]}x{size[0]}")
        self._size = size

    def _on_corrupt(self, reason: str) -> None:
        self.errors += 1
        self.last_error = reason
        if time.monotonic() - self._corrupt_reported_at >= CORRUPT_INTERVAL:
            self._report_errors()

    def _report_errors(self) -> None:
        self._corrupt_reported_at, self._errors_reported = time.monotonic(), self.errors
        self._report("decode_errors", f"{self.errors} so far, most recently: {self.last_error}")
