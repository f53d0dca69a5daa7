import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import ppe_edge.cameras.camera as camera_module
import ppe_edge.common.clock as clock_module
import pytest
import rtsp_server
from conftest import GREEN, RED
from helpers import serving, wait_until
from mjpeg_server import PASSWORD, MjpegServer, noise
from ppe_edge.cameras.camera import CameraEvent, CameraReader
from ppe_edge.cameras.mailbox import Frame, FrameMailbox
from ppe_edge.cameras.sources import DecodedFrame, SourceConfig
from videos import corner, join, write_video

SOON = 60.0  # seconds, enough for a busy machine
needs_rtsp = pytest.mark.skipif(rtsp_server.missing() is not None, reason=str(rtsp_server.missing()))


class Watched:
    """A reader, a thread that empties its mailbox, and all frames and events so far."""

    def __init__(self, source: object, on_event: Callable[[CameraEvent], None] | None = None, **others: Any) -> None:
        timeouts = {"open_timeout_s": 3.0, "read_timeout_s": 1.0, "frozen_after_s": 2.0}
        self.events: list[CameraEvent] = []
        self.seen: list[Frame] = []
        self.mailbox = FrameMailbox()
        config = SourceConfig(source=str(source), **{**timeouts, **others})
        self.reader = CameraReader("gate", config, self.mailbox, on_event or self.events.append)
        self._stopping = threading.Event()
        self._taker = threading.Thread(target=self._take, daemon=True)

    def _take(self) -> None:
        while not self._stopping.is_set():
            self.seen += self.mailbox.take(8, 0.05)

    def __enter__(self) -> "Watched":
        self._taker.start()
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.stop(SOON)
        self._stopping.set()
        self._taker.join(SOON)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def until(self, condition: Callable[[], object]) -> None:
        try:
            wait_until(condition, SOON)
        except TimeoutError:
            pytest.fail(f"state {self.reader.state}, events {self.events}")

    def until_kinds(self, *kinds: str) -> None:
        self.until(lambda: len(self.kinds) >= len(kinds))
        assert self.kinds == list(kinds)

    def until_more_frames(self, count: int = 3) -> None:
        before = len(self.seen)
        self.until(lambda: len(self.seen) >= before + count)


# --- RTSP


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> tuple[Path, Path]:
    """Two clips, 64 x 96 and 128 x 160 pixels."""
    folder = tmp_path_factory.mktemp("clips")
    scenes = [(RED, 50), (GREEN, 50)]
    return make_clip(folder / "small.mp4", scenes), make_clip(folder / "large.mp4", scenes, size=(128, 160))


def test_reader_that_cannot_start_a_thread_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of threads of the container may be reached for a moment."""
    start, failures = threading.Thread.start, [RuntimeError("can't start new thread")]

    def fail_once(thread: threading.Thread) -> None:
        if thread.name == "reader gate" and failures:
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_once)
    with MjpegServer(noise) as server, Watched(server.url) as watched:
        watched.until_kinds("lost", "connected")
        assert watched.events[0].detail == "can't start new thread"


@needs_rtsp
def test_reader_with_frozen_or_killed_server_reconnects_and_another_continues(
    clips: tuple[Path, Path],
) -> None:
    small, large = clips
    with (
        rtsp_server.start_rtsp_server(small, 1) as server,
        rtsp_server.start_rtsp_server(small, 1) as other_server,
        Watched(server.url(0)) as gate,
        # long timeouts, so that a busy machine does not disturb the other camera
        Watched(other_server.url(0), read_timeout_s=30.0, frozen_after_s=60.0) as other,
    ):
        gate.until_kinds("connected")
        gate.until_more_frames()
        other.until_more_frames()
        server.send(rtsp_server.signal.SIGSTOP)
        gate.until(lambda: gate.reader.state in ("lost", "frozen"))
        assert gate.reader.reconnects == 0 or len(gate.kinds) == 2
        other.until_more_frames()
        server.send(rtsp_server.signal.SIGCONT)
        gate.until(lambda: gate.kinds[-1] == "resumed")
        gate.until_more_frames()
        server.kill()
        gate.until(lambda: gate.kinds[-1] in ("lost", "frozen"))
        other.until_more_frames()
        server.shows = [rtsp_server.Show(str(large))]  # another camera at the same address
        server.start()
        gate.until(lambda: gate.kinds[-1] == "resumed")
        gate.until_more_frames()
        assert "64" in gate.events[0].detail and gate.seen[-1].image.shape == (128, 160, 3)
        assert [e.detail for e in gate.events if e.kind == "resolution_changed"] == ["96x64 -> 160x128"]
        assert other.kinds == ["connected"]
        assert other.reader.reconnects == 0
        numbers = [frame.number for frame in gate.seen]
        assert numbers == sorted(set(numbers))


@needs_rtsp
def test_reader_follows_redirect_and_logs_in_by_digest_with_any_password(
    clips: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    shows = [rtsp_server.Show(str(clips[0]), tracks=2)]
    with rtsp_server.start_rtsp_server(shows, 1, password="p/w#1?:%&@x") as server:
        address = server.url(0)
        with (
            rtsp_server.answering(f"302 Found\r\nLocation: {address}") as port,
            Watched(f"rtsp://admin:p/w#1?:%25&@x@127.0.0.1:{port}/a") as gate,
            Watched(address.replace("//", "//admin:wrong@")) as wrong,
        ):
            gate.until_kinds("connected")
            gate.until_more_frames()
            wrong.until_kinds("lost")
        assert "401 Unauthorized" in wrong.events[0].detail and "check user and password" in wrong.events[0].detail
    assert caplog.text.count("gate: it has 2 video tracks: track 0 (h264, 96x64) is read") == 1


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("453 Not Enough Bandwidth", "the camera may accept no more clients: close other viewers"),
        ("429 Too Many Requests", "the camera may accept no more clients: close other viewers"),
        ("403 Forbidden", "check that this user is allowed to view the stream"),
    ],
)
def test_reader_refused_by_camera_names_likely_cause(answer: str, hint: str) -> None:
    with rtsp_server.answering(answer) as port, Watched(f"rtsp://127.0.0.1:{port}/a") as gate:
        gate.until_kinds("lost")
    assert gate.events[0].detail.endswith(f": {hint}")


# --- HTTP


def test_reader_with_changed_frame_size_reports_resolution(tmp_path: Path) -> None:
    size = [(48, 64)]
    with MjpegServer(lambda n: noise(n, *size[0])) as server, Watched(server.url) as gate:
        gate.until_more_frames()
        assert gate.reader.state == "live"
        size[0] = (96, 128)
        gate.until_kinds("connected", "resolution_changed")
        gate.until(lambda: gate.seen[-1].image.shape == (96, 128, 3))
        assert gate.events[1].detail == "64x48 -> 128x96"
        assert (server.connections, gate.reader.reconnects) == (1, 0)


def test_reader_with_unchanged_image_reports_frozen_once_and_resumes_on_change() -> None:
    with MjpegServer(lambda n: noise(n) if n < 20 else noise(0)) as server, Watched(server.url) as gate:
        gate.until_kinds("connected", "frozen")
        seen = len(gate.seen)
        gate.until(lambda: server.connections >= 3)  # it reconnects, and the image is still the same
        gate.until_kinds("connected", "frozen")
        assert len(gate.seen) <= seen + 1  # one may have been in transit
        server.frame = noise
        gate.until_kinds("connected", "frozen", "resumed")
        gate.until_more_frames()


def test_reader_with_small_image_change_stays_live() -> None:
    def clock(n: int) -> bytes:
        image = np.full((480, 640, 3), 90, np.uint8)
        cv2.putText(image, str(n // 10), (500, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255))
        return cv2.imencode(".jpg", image)[1].tobytes()

    with MjpegServer(clock) as server, Watched(server.url) as gate:
        gate.until(lambda: server.sent > 80)  # 4 s at least
        assert gate.kinds == ["connected"]


def test_reader_with_silent_stream_reports_lost_and_resumes() -> None:
    with MjpegServer(lambda n: noise(n) if n < 20 else None) as server, Watched(server.url) as gate:
        gate.until_kinds("connected", "lost")
        server.frame = noise
        gate.until_kinds("connected", "lost", "resumed")
        assert gate.reader.reconnects >= 1


def test_reader_with_corrupt_frames_reports_them_once_and_stays_live() -> None:
    def frame(n: int) -> bytes:
        return b"\xff\xd8corrupt" * 9 if n > 5 and n % 3 == 0 else noise(n)

    with MjpegServer(frame) as server, Watched(server.url) as gate:
        gate.until(lambda: gate.reader.errors >= 5)
        gate.until_more_frames()
        assert gate.kinds == ["connected", "decode_errors"]
        assert (gate.reader.state, server.connections) == ("live", 1)


def test_reader_with_only_corrupt_data_reports_lost() -> None:
    with MjpegServer(lambda n: b"\x00\x01corrupt" * 9) as server, Watched(server.url) as gate:
        gate.until(lambda: "lost" in gate.kinds)
        gate.until(lambda: server.connections >= 3)
        assert gate.kinds.count("lost") == 1 and not gate.seen
        server.frame = noise
        gate.until(lambda: gate.kinds[-1] == "connected")


def test_reader_with_slow_fps_limit_is_not_frozen() -> None:
    with MjpegServer(noise) as server, Watched(server.url, fps=0.4) as gate:
        gate.until(lambda: len(gate.seen) == 2)  # 2.5 s apart, and frozen would be 2 s
        assert gate.kinds == ["connected"]
        assert gate.seen[1].monotonic - gate.seen[0].monotonic >= 2.25


def test_reader_with_fps_limit_converts_only_processed_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[float] = []

    def five_hundred(config: SourceConfig, on_corrupt: Callable[[str], None], *_: object) -> Iterator[DecodedFrame]:
        for n in range(500):
            yield DecodedFrame(n / 25, lambda n=n: converted.append(n) or np.zeros((2, 2, 3), np.uint8))  # type: ignore[misc]

    monkeypatch.setattr(camera_module, "open_source", five_hundred)
    with Watched("clip.mp4", fps=5) as gate:
        gate.until(lambda: gate.reader.state == "ended")
    assert converted == list(range(0, 500, 5))


def test_reader_never_shows_password(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    with MjpegServer(lambda n: noise(n) if n < 5 else None) as server:
        url = server.url
        with Watched(url) as gate:
            gate.until_kinds("connected", "lost")
    with Watched(url) as gone, Watched(f"rtsp://admin:{PASSWORD}@127.0.0.1:1/{PASSWORD}=1") as refused:
        gone.until_kinds("lost")
        refused.until_kinds("lost")
    shown = [
        *map(repr, gate.events + gone.events + refused.events),
        repr(refused.reader.config),
        caplog.text,
        *capfd.readouterr(),
    ]
    assert [text for text in shown if PASSWORD in text] == []
    assert "refused" in refused.events[0].detail


# --- files


def test_reader_of_file_delivers_every_frame(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    with Watched(make_clip(tmp_path / "clip.mp4", [(RED, 20), (GREEN, 20)], fps=10)) as gate:
        gate.until(lambda: gate.reader.state == "ended")
    assert [frame.number for frame in gate.seen] == list(range(40))
    assert np.diff([frame.time for frame in gate.seen]) == pytest.approx(np.full(39, 0.1), abs=1e-3)
    assert gate.seen[5].image[..., 0].mean() > 200 and gate.seen[25].image[..., 1].mean() > 200
    assert (gate.kinds, gate.reader.failure, gate.reader.dropped) == (["connected", "ended"], "", 0)


def test_reader_of_file_without_consumer_waits_and_is_not_frozen(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    gate = Watched(make_clip(tmp_path / "clip.mp4", [(RED, 20)]), frozen_after_s=0.5)
    gate.reader.start()  # nothing empties the mailbox
    gate.until(lambda: gate.reader.frames == 1)
    threading.Event().wait(1.5)
    assert (gate.reader.frames, gate.kinds) == (1, ["connected"])
    gate._taker.start()
    gate.until(lambda: gate.reader.state == "ended")
    gate.__exit__()
    assert len(gate.seen) == 20


@pytest.mark.parametrize("content", [b"", np.random.default_rng(0).bytes(20_000)])
def test_reader_of_corrupt_file_ends_with_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with Watched(tmp_path / "clip.mp4") as gate:
        gate.until_kinds("lost", "ended")
    assert "nvalid data" in gate.reader.failure
    assert gate.reader.reconnects == 0


def test_reader_of_folder_reports_corrupt_images_but_no_resolution_change(tmp_path: Path) -> None:
    for n in range(4):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.zeros((8, 8 + n, 3), np.uint8))
    for n in range(4, 7):
        (tmp_path / f"{n}.png").write_bytes(b"corrupt")
    with Watched(tmp_path, fps=2) as gate:
        gate.until(lambda: gate.reader.state == "ended")
    assert gate.kinds == ["connected", "decode_errors", "decode_errors", "ended"]
    assert gate.events[2].detail == "3 so far, most recently: 6.png: cannot be read as an image"  # the end counts all
    assert [frame.image.shape[1] for frame in gate.seen] == [8, 9, 10, 11]
    assert np.diff([frame.time for frame in gate.seen]) == pytest.approx([0.5] * 3, abs=1e-6)


def test_reader_of_joined_video_files_with_fps_limit_skips_no_part(tmp_path: Path) -> None:
    part = write_video(tmp_path / "a.ts", [corner(64, 96)] * 20)
    with Watched(join(tmp_path / "joined.ts", part, part, part), fps=5) as gate:
        gate.until(lambda: gate.reader.state == "ended")
    assert np.diff([frame.time for frame in gate.seen]) == pytest.approx(np.full(29, 0.2), abs=1e-6)
    assert [frame.is_time_certain for frame in gate.seen] == [True] * 10 + [False] * 20


def test_reader_with_clock_that_is_set_keeps_steady_frame_times(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = [1000.0]  # 1970: the clock of the box was not set
    monkeypatch.setattr(clock_module.time, "time", lambda: wall[0])
    with MjpegServer(noise) as server, Watched(server.url) as gate:
        gate.until_more_frames()
        assert not gate.seen[-1].is_time_certain and gate.seen[-1].wall_time == pytest.approx(1000.0, abs=1.0)
        wall[0] = 2e9
        gate.until(lambda: gate.seen[-1].is_time_certain)
        gate.until_more_frames()
        wall[0] = 2e9 - 7200.0
        gate.until_more_frames(5)
    assert gate.seen[-1].wall_time == pytest.approx(2e9 - 7200.0, abs=1.0) and gate.seen[-1].is_time_certain
    steps = np.diff([frame.time for frame in gate.seen])
    assert steps.min() > 0.0 and steps.max() < 30.0


# --- the reader itself


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch, where: str) -> Iterator[tuple[threading.Event, list[int]]]:
    """Makes the first connection hang where no exception reaches it, until the event is set.

    No real decoder hangs on demand, so `open_source` is replaced.
    """
    release, opened = threading.Event(), []

    def open_source(config: SourceConfig, on_corrupt: Callable[[str], None], *_: object) -> Iterator[DecodedFrame]:
        opened.append(len(opened))
        mine = opened[-1]
        if mine == 0 and where == "open":
            release.wait()

        def convert(n: int) -> np.ndarray:
            if mine == 0:
                release.wait()
            return np.full((8, 8, 3), (mine, n % 256, n // 256), np.uint8)

        for n in range(10_000):
            yield DecodedFrame(None, lambda n=n: convert(n))  # type: ignore[misc]
            time.sleep(0.01)

    monkeypatch.setattr(camera_module, "open_source", open_source)
    try:
        yield release, opened
    finally:
        release.set()


@pytest.mark.parametrize("where", ["open", "convert"])
def test_reader_with_hanging_decoder_reconnects_and_ignores_its_late_frames(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with hanging(monkeypatch, where) as (release, opened), Watched("rtsp://host/x", frozen_after_s=0.5) as gate:
        gate.until_kinds("lost", "connected")
        gate.until_more_frames()
        release.set()
        gate.until(lambda: sum(t.name == "reader gate" for t in threading.enumerate()) == 1)
        gate.until_more_frames()
        assert {int(frame.image[0, 0, 0]) for frame in gate.seen} == {1}  # none from the connection that hung
        assert len(opened) == 2


def test_reader_with_failing_listener_stays_live(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: CameraEvent) -> None:
        raise RuntimeError("no room")

    with MjpegServer(noise) as server, Watched(server.url, on_event=fail) as gate:
        gate.until_more_frames()
        assert gate.reader.state == "live"
    assert "the handler of event connected failed" in caplog.text


def test_stop_ends_threads_and_frames() -> None:
    with MjpegServer(noise) as server, Watched(server.url) as gate:
        gate.until_more_frames()
        gate.reader.stop(SOON)
        gate.until(lambda: not any(t.name in ("reader gate", "camera gate") for t in threading.enumerate()))
        gate.mailbox.take(8, 0.0)
        seen = len(gate.seen)
        sent = server.sent
        threading.Event().wait(0.3)
        assert (len(gate.seen), gate.mailbox.take(8, 0.0)) == (seen, [])
        assert server.sent <= sent + 2  # the connection is closed, not merely ignored


class TransportStream:
    """Streams an MPEG-TS file over HTTP at its own pace; each connection starts in the middle of a group of pictures."""

    def __init__(self, data: bytes, seconds: float, skip_s: float) -> None:
        self.connections = 0
        self._stopping = threading.Event()
        outer, rate = self, len(data) / seconds / 188

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.connections += 1
                self.send_response(200)
                self.end_headers()
                start, sent = time.monotonic(), int(skip_s * rate)
                with contextlib.suppress(OSError):
                    while not outer._stopping.wait(0.05) and sent * 188 < len(data):
                        end = int((time.monotonic() - start + skip_s) * rate)
                        self.wfile.write(data[sent * 188 : end * 188])
                        sent = end

            def log_message(self, *_: object) -> None: ...

        self._handler, self._stack = Handler, contextlib.ExitStack()

    def __enter__(self) -> "TransportStream":
        self.url = f"http://{self._stack.enter_context(serving(self._handler))}/live.ts"
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._stack.close()


def draw_stream(path: Path, codec: str, seconds: int, key_every: int) -> bytes:
    """Draws noise at 10 frames per second, with a key frame every `key_every` frames."""
    with av.open(str(path), "w", format="mpegts") as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        keys = f"keyint={key_every}:min-keyint={key_every}:scenecut=0:bframes=0"
        stream.options = {f"{codec[3:]}-params": keys, "preset": "ultrafast"}
        rng = np.random.default_rng(0)
        for i in range(seconds * 10):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_reader_waits_for_key_frame_without_reconnecting(tmp_path: Path, codec: str) -> None:
    patient = {"open_timeout_s": 5.0, "frozen_after_s": 6.0}  # opening alone takes seconds
    data = draw_stream(tmp_path / "a.ts", codec, seconds=30, key_every=100)
    with TransportStream(data, 30, skip_s=1.0) as server, Watched(server.url, **patient) as gate:
        gate.until_kinds("lost", "connected")
        gate.until_more_frames()
        assert server.connections == 1
    assert "key-frame (I-frame) interval" in gate.events[0].detail and "up to 90 s" in gate.events[0].detail


def test_reader_reconnects_if_no_key_frame_comes_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    patient = {"open_timeout_s": 5.0, "frozen_after_s": 6.0}  # opening alone takes seconds
    data = draw_stream(tmp_path / "a.ts", "libx264", seconds=60, key_every=600)
    with TransportStream(data, 60, skip_s=1.0) as server, Watched(server.url, key_frame_timeout_s=7.0, **patient) as gate:
        gate.until(lambda: server.connections == 2)
        assert gate.kinds == ["lost"]
    assert "no key frame within 7 s: reconnecting" in caplog.text
