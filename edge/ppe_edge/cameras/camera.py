"""One camera's reader: opens, reads, notices what goes wrong, and tries again, whatever the others do.

Each connection is read in a thread of its own. A decoder can hang in C, where no exception reaches it: then the thread is
left behind (it ends by itself when the decoder comes back), and another one takes its place.
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

from ppe_edge.backoff import Backoff
from ppe_edge.cameras.mailbox import Frame as Frame
from ppe_edge.cameras.mailbox import FrameMailbox
from ppe_edge.cameras.sources import Kind, Picture, SourceConfig, SourceError, open_source
from ppe_edge.redact import redact_url

State = Literal["connecting", "live", "frozen", "lost", "ended"]
EventKind = Literal["connected", "lost", "frozen", "resumed", "resolution_changed", "ended", "decode_errors"]

FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0  # seconds between attempts
STEADY = 10.0  # a connection that held so many seconds makes the next failure the first one again
RUBBISH_QUIET = 60.0  # seconds between two reports of rubbish
MOST_LEFT_BEHIND = 3  # hanging threads of one camera; then none is added until one of them ends
GLANCE = 1.0  # seconds between looks at whether pictures change, when the rate limit lets fewer through
_POLL = 0.2  # seconds
_ROUNDING = 1e-4  # seconds; three steps of 0.2 are more than 0.6

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CameraEvent:
    """Something happened to a camera. `time` is UTC epoch seconds, `detail` is fit to be shown."""

    camera: str
    time: float
    kind: EventKind
    detail: str = ""


@dataclass(eq=False)
class _Connection:
    """What a reading thread and its supervisor know of each other."""

    opened: float  # monotonic, as all times here
    thread: threading.Thread | None = None
    given_up: bool = False  # nobody wants its pictures any more
    done: threading.Event = field(default_factory=threading.Event)
    failure: str = ""
    finished: bool = False  # the source came to its end
    fresh: float = 0.0  # when the picture last changed
    has_picture: bool = False
    glanced: float = 0.0  # when it was last seen whether the picture changes


class CameraReader:
    """Reads one camera until it is stopped or, for a file, has ended.

    Args:
        name: The camera's name.
        config: Its address and how long to be patient with it.
        mailbox: Where pictures go; of a file, each waits until the one before it has been taken.
        on_event: Told of what happens, from the reader's own threads; must not block for long.

    Attributes:
        state: See `State`.
        frames: Pictures put into the mailbox.
        dropped: Of these, the ones that a newer one replaced.
        reconnects: Attempts after the first.
        errors: Pieces that could not be decoded.
        failure: Why a file could not be read to its end; empty when it could, and for a camera, which is tried again.
        last_frame_at: Monotonic time of the last picture, None before the first.
    """

    def __init__(self, name: str, config: SourceConfig, mailbox: FrameMailbox, on_event: Callable[[CameraEvent], None]) -> None:
        self.name, self.config, self.mailbox = name, config, mailbox
        self.state: State = "connecting"
        self.frames = self.dropped = self.reconnects = self.errors = 0
        self.last_frame_at: float | None = None
        self.failure = ""
        self._ends = config.ends  # asked once: a file that is taken away must not become something else
        self._on_event = on_event
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name=f"camera {name}", daemon=True)
        self._last_print: int | None = None  # of the last picture, over connections
        self._size: tuple[int, int] | None = None
        self._was_live = False
        self._rubbish_told = -RUBBISH_QUIET

    def start(self) -> None:
        """Starts reading; returns at once."""
        self._supervisor.start()

    def stop(self, timeout: float) -> None:
        """Ends reading; waits for at most `timeout` seconds."""
        self._stopping.set()
        self.mailbox.discard(self.name)
        if timeout > 0 and self._supervisor.ident is not None:
            self._supervisor.join(timeout)

    # the supervisor's thread

    def _supervise(self) -> None:
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        left_behind: list[_Connection] = []
        while not self._stopping.is_set():
            connection = self._connect()
            self._watch(connection)
            self._give_up(connection)
            if self._stopping.is_set():
                break
            if connection.finished or self._ends:  # from its start again, a broken file would be looked at twice
                self.failure = connection.failure
                self._to("ended", connection.failure)
                return
            left_behind = [c for c in (*left_behind, connection) if not c.done.is_set()]
            if connection.has_picture and time.monotonic() - connection.opened > STEADY:
                backoff.reset()
            if self._stopping.wait(backoff.next()):
                break
            while len(left_behind) >= MOST_LEFT_BEHIND and not self._stopping.wait(_POLL):
                left_behind = [c for c in left_behind if not c.done.is_set()]
            self.reconnects += 1

    def _connect(self) -> _Connection:
        connection = _Connection(opened=time.monotonic())
        connection.fresh = connection.opened
        connection.thread = threading.Thread(target=self._read, args=(connection,), name=f"reader {self.name}", daemon=True)
        connection.thread.start()
        return connection

    def _watch(self, connection: _Connection) -> None:
        """Returns when the connection is of no use any more."""
        patience = self.config.frozen_after_s
        while not connection.done.wait(_POLL):
            if self._stopping.is_set():
                return
            # a file waits for whoever takes its pictures, as long as that takes
            if not self._ends and time.monotonic() - connection.fresh > patience:
                if connection.has_picture or self.state == "frozen":
                    self._to("frozen", f"no new picture for {patience:g} s")
                else:
                    self._to("lost", f"no picture within {patience:g} s")
                return
        if not connection.finished and not self._stopping.is_set():
            self._to("frozen" if self.state == "frozen" else "lost", connection.failure)

    def _give_up(self, connection: _Connection) -> None:
        connection.given_up = True
        if not connection.finished:
            self.mailbox.discard(self.name)

    def _to(self, state: Literal["frozen", "lost", "ended"], detail: str) -> None:
        """Changes the state, and tells of it once."""
        if self.state != state:
            self.state = state
            self._tell(state, detail)

    def _tell(self, kind: EventKind, detail: str) -> None:
        try:
            self._on_event(CameraEvent(self.name, time.time(), kind, detail))
        except Exception:  # whoever listens must not stop the camera
            _log.exception("%s: event %s could not be handled", self.name, kind)

    # a connection's thread

    def _read(self, connection: _Connection) -> None:
        try:
            start, due = time.time(), 0.0
            pictures = open_source(self.config, self._on_rubbish)
            for picture in pictures:
                if connection.given_up or self._stopping.is_set():
                    return
                now = time.monotonic()
                place = picture.seconds if self._ends and picture.seconds is not None else now - connection.opened
                if not self._wanted(place, due):
                    if not self._ends and now - connection.glanced >= GLANCE:
                        self._changes(connection, picture.convert(), now)
                    continue
                due = self._next_due(place, due)
                taken_at = start + place if self._ends else time.time()
                self._take(connection, picture, taken_at, now)
            if self._ends:
                connection.finished = not connection.given_up
            else:
                connection.failure = "the stream ended"
        except SourceError as error:
            connection.failure = str(error)
        except Exception as error:  # nothing that a camera sends may end its reader for good
            connection.failure = f"{type(error).__name__} while reading {redact_url(self.config.address)}"
            _log.warning("%s: %s", self.name, connection.failure)
        finally:
            connection.done.set()

    def _wanted(self, place: float, due: float) -> bool:
        """Whether the rate limit lets a picture through; photos of a folder are spaced by it, not dropped."""
        return self.config.fps is None or self.config.kind is Kind.folder or place >= due - _ROUNDING

    def _next_due(self, place: float, due: float) -> float:
        if self.config.fps is None:
            return 0.0
        step = 1.0 / self.config.fps
        # the grid is kept where pictures come in time, so that 10 of 25 a second are 10 and not 8
        return due + step if place - due < step else place + step

    def _take(self, connection: _Connection, picture: Picture, taken_at: float, now: float) -> None:
        image = picture.convert()
        if connection.given_up:
            return
        # of a camera that shows the same for ever no picture is looked at, until it shows another
        if not self._ends and not self._changes(connection, image, now) and self.state == "frozen":
            return
        self._note_size(image)
        connection.has_picture = True
        if self.state != "live":
            self.state = "live"
            self._tell("resumed" if self._was_live else "connected", f"{image.shape[1]}x{image.shape[0]}")
            self._was_live = True
        number, self.frames = self.frames, self.frames + 1
        self.last_frame_at = now
        frame = Frame(self.name, number, taken_at, now, image)
        self.dropped += self.mailbox.put(frame, wait=self._ends, unless=lambda: connection.given_up or self._stopping.is_set())

    def _changes(self, connection: _Connection, image: NDArray[np.uint8], now: float) -> bool:
        """Whether this picture differs from the one before; a sensor's noise sees to that."""
        connection.has_picture, connection.glanced = True, now
        mark = zlib.crc32(image[::8].tobytes())  # whole rows: a clock's last digit is small
        if mark == self._last_print:
            return False
        self._last_print, connection.fresh = mark, now
        return True

    def _note_size(self, image: NDArray[np.uint8]) -> None:
        size = (image.shape[0], image.shape[1])
        # photos in a folder have any size
        if self._size is not None and self._size != size and self.config.kind is not Kind.folder:
            self._tell("resolution_changed", f"{self._size[1]}x{self._size[0]} -> {size[1]}x{size[0]}")
        self._size = size

    def _on_rubbish(self, reason: str) -> None:
        self.errors += 1
        now = time.monotonic()
        if now - self._rubbish_told >= RUBBISH_QUIET:
            self._rubbish_told = now
            self._tell("decode_errors", f"{self.errors} so far, the last: {reason}")
