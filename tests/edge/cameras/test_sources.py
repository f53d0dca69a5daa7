import socket
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import av
import cv2
import numpy as np
import pytest
from conftest import GREEN, RED
from helpers import child_environment, serving, serving_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from ppe_edge.cameras import sources
from ppe_edge.cameras.sources import DecodedFrame, Kind, SourceConfig, SourceError, open_source, stated_length
from ppe_edge.common.redact import redact_text, redact_url
from pydantic import ValidationError
from videos import write_video

PASSWORD = "hunter2-geheim"
LEAKY = [
    f"rtsp://admin:{PASSWORD}@127.0.0.1:1/stream",
    f"rtsp://127.0.0.1:1/user=admin&password={PASSWORD}&channel=1/stream",
    f"http://127.0.0.1:1/video?user=admin&password={PASSWORD}",
    f"http://{PASSWORD}@127.0.0.1:1/",
]


def config(source: object, **others: Any) -> SourceConfig:
    return SourceConfig(source=str(source), open_timeout_s=2.0, read_timeout_s=1.0, **others)


def read(source: object, **others: Any) -> tuple[list[tuple[float | None, np.ndarray]], list[str]]:
    corrupt: list[str] = []
    return [(p.seconds, p.convert()) for p in open_source(config(source, **others), corrupt.append)], corrupt


# --- addresses


def test_kind_of_source_follows_from_address(tmp_path: Path) -> None:
    addresses = {
        "rtsp://h/x": Kind.stream,
        "rtsps://h/x": Kind.stream,
        "http://h/x": Kind.stream,
        "https://h/x": Kind.stream,
        "/dev/video0": Kind.device,
        str(tmp_path): Kind.folder,
        str(tmp_path / "clip.mp4"): Kind.file,
    }
    assert {a: config(a).kind for a in addresses} == addresses
    assert [config(a).ends for a in addresses] == [False, False, False, False, False, True, True]


@pytest.mark.parametrize("source", ["ftp://h/x", "file:///etc/passwd", "", "  ", f"admin:{PASSWORD}@h/rtsp://x"])
def test_invalid_source_is_rejected_without_showing_it(source: str) -> None:
    with pytest.raises(ValidationError, match="expected an address") as error:
        config(source)
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://host/a/b", "rtsp://host/a/b"),
        ("rtsp://admin:pw@host:554/a", "rtsp://***@host:554/a"),
        ("rtsp://admin:p@w@host/a", "rtsp://***@host/a"),
        ("rtsp://admin:12/34@host/a", "rtsp://***"),
        ("rtsp://admin:12#34@host/a", "rtsp://***"),
        ("http://host/a?token=1@2", "http://***"),
        ("rtsp://admin:pw@[::1]:554/a", "rtsp://***@[::1]:554/a"),
        ("http://host/a?token=1", "http://host/a?***"),
        ("rtsp://host/user=a&password=b", "rtsp://host/***"),
        ("rtsp://host:port/a", "rtsp://***"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_redact_url_hides_secrets(address: str, shown: str) -> None:
    assert redact_url(address) == shown


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=0, max_size=12))
def test_redaction_hides_any_password(middle: str) -> None:
    password = f"QX{middle}XQ"
    for address in (f"rtsp://admin:{password}@host:554/live", f"http://host/live?password={quote(password, safe='')}"):
        assert "QX" not in redact_url(address).upper().replace("QX***", "")
        text = redact_text(f"cannot open {address}: 401 for {password}", address)
        assert password not in text
        assert "cannot open" in text


@pytest.mark.parametrize("address", LEAKY)
def test_failing_source_never_shows_password(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    source = config(address)
    with pytest.raises(SourceError) as error:
        next(open_source(source, lambda reason: None))
    shown = [repr(source), str(source), source.model_dump_json(), str(error.value), repr(error.value), *capfd.readouterr()]
    assert [text for text in shown if PASSWORD in text] == []
    assert error.value.__cause__ is None and error.value.__suppress_context__  # its text would hold the address


def test_failing_source_writes_nothing_to_standard_error(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom ppe_edge.cameras.sources import *\n"
        "for source in sys.argv[1:]:\n"
        "    try: next(open_source(SourceConfig(source=source), print))\n"
        "    except SourceError: pass\n"
    )
    (tmp_path / "x.mp4").write_bytes(b"corrupt" * 999)
    run = [sys.executable, "-c", program, LEAKY[0], LEAKY[2], str(tmp_path / "x.mp4")]
    done = subprocess.run(run, capture_output=True, text=True, env=child_environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_address_is_read_without_white_space_around_it() -> None:
    assert config(" rtsp://admin:pw@h/x \r\n").address == "rtsp://admin:pw@h/x"


@pytest.mark.parametrize("port", ["0", "99999", "port"])
def test_address_with_invalid_port_is_rejected(port: str) -> None:
    with pytest.raises(ValidationError, match="got no host, or a port that is not 1 to 65535: put"):
        config(f"rtsp://h:{port}/x")


# --- files


def test_file_yields_every_frame_in_rgb_with_its_time(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    frames, corrupt = read(make_clip(tmp_path / "clip.mp4", [(RED, 6), (GREEN, 6)], fps=10))
    assert [round(seconds or 0.0, 3) for seconds, _ in frames] == [n / 10 for n in range(12)]
    assert {(image.shape, image.dtype.name) for _, image in frames} == {((64, 96, 3), "uint8")}
    for (_, image), colour in zip(frames, [RED] * 6 + [GREEN] * 6, strict=True):
        assert np.abs(image.mean((0, 1)) - colour).max() < 15
    assert corrupt == []


def test_file_with_corrupt_frame_reports_it_and_continues(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuvj420p"
        for n in range(8):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 * n, np.uint8), format="rgb24")):
                broken = av.Packet(b"\xff\xd8corrupt" * 9)
                broken.pts, broken.dts, broken.time_base, broken.stream = packet.pts, packet.dts, packet.time_base, stream
                container.mux(broken if n == 3 else packet)
    frames, corrupt = read(clip)
    assert [round(image.mean() / 20) for _, image in frames] == [0, 1, 2, 4, 5, 6, 7]
    assert len(corrupt) == 1


@pytest.mark.parametrize("content", [b"", b"\x00" * 5000, np.random.default_rng(0).bytes(20_000)])
def test_corrupt_file_raises(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(SourceError, match="nvalid data"):
        read(tmp_path / "clip.mp4")


def test_truncated_file_raises(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    whole = make_clip(tmp_path / "whole.mp4", [(RED, 20)]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="nvalid data"):
        read(tmp_path / "cut.mp4")


@pytest.mark.parametrize(("suffix", "codec", "start"), [("avi", "mpeg4", 0), ("mkv", "libx264", 0), ("mkv", "libx264", 36000)])
def test_cut_off_video_without_error_of_its_own_reports_it(tmp_path: Path, suffix: str, codec: str, start: int) -> None:
    """libav ends with the file and says nothing; the head states the length, even if the first frame has a late time."""
    images = np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8)
    timestamps = range(start, start + 60) if start else None
    video = write_video(tmp_path / f"video.{suffix}", list(images), codec=codec, timestamps=timestamps)
    assert read(video)[1] == [] and stated_length(config(video)) == 6.0 + start / 10
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    frames, errors = read(video)
    assert errors == [f"its video ends after {len(frames) / 10:g} of 6 s: the file is incomplete or damaged"]


@pytest.mark.parametrize(("name", "options"), [("video.ts", {}), ("video.mp4", {"movflags": "frag_keyframe+empty_moov"})])
def test_length_that_a_video_file_does_not_state_is_unknown(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    """libav guesses that of MPEG-TS, and takes what it has seen so far of an MP4 file in fragments."""
    whole = write_video(tmp_path / "whole.mp4", [np.zeros((64, 96, 3), np.uint8)] * 10)
    with av.open(whole) as source, av.open(str(tmp_path / name), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert stated_length(config(whole)) == 1.0 and stated_length(config(tmp_path / name)) is None


def test_video_with_longer_sound_is_intact(tmp_path: Path) -> None:
    with av.open(tmp_path / "video.mp4", "w") as container:
        video, sound = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=8000, layout="mono")
        video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        images = [av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24") for _ in range(10)]
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        for stream, frames in ((video, images), (sound, [silence])):
            for frame in [*frames, None]:
                container.mux(stream.encode(frame))
    frames, errors = read(tmp_path / "video.mp4")
    assert (len(frames), errors) == (10, [])


def test_video_of_rare_frames_is_intact(tmp_path: Path) -> None:
    """The last of three frames lasts a third of the video."""
    video = write_video(tmp_path / "video.mkv", [np.zeros((64, 96, 3), np.uint8)] * 3, fps=Fraction(1, 10))
    frames, errors = read(video)
    assert ([seconds for seconds, _ in frames], errors) == ([0.0, 10.0, 20.0], [])


def test_video_of_unknown_codec_raises(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mkv", [np.zeros((64, 96, 3), np.uint8)], codec="mjpeg")
    video.write_bytes(video.read_bytes().replace(b"V_MJPEG", b"V_XJPEG"))
    with pytest.raises(SourceError, match=r"^its codec is unknown: use H\.264, H\.265 or MJPEG$"):
        read(video)


def test_camera_that_accepts_and_never_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(SourceError, match=r"^no answer in time$"):
            next(open_source(SourceConfig(source=address, open_timeout_s=0.3), print))


def test_trimmed_video_and_one_of_variable_rate_are_intact(tmp_path: Path) -> None:
    """The first 12 frames of an MP4 are before its start, as `ffmpeg -ss -c copy` writes them; the AVI has gaps in time."""
    images = list(np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8))
    whole = write_video(tmp_path / "whole.mp4", images, options={"g": "5"})
    trimmed = str(tmp_path / "trimmed.mp4")
    with av.open(whole) as source, av.open(trimmed, "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                shift = round(1.2 / packet.time_base)
                packet.dts, packet.pts, packet.stream = packet.dts - shift, packet.pts - shift, stream
                target.mux(packet)
    frames, errors = read(trimmed)
    assert (len(frames), errors) == (48, [])
    gaps = write_video(tmp_path / "gaps.avi", images[:30], codec="mpeg4", timestamps=range(0, 90, 3))
    frames, errors = read(gaps)
    assert (len(frames), errors) == (30, [])


@pytest.mark.parametrize("name", ["10:30.mp4", "2026-11-29T10:30:00.mp4", "pipe:1"])
def test_video_with_colon_in_its_relative_name_is_read(
    tmp_path: Path, make_clip: Callable[..., Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "video.mp4", [(RED, 3)]).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read(name)[0]) == 3


def test_file_without_video_raises(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "x.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x00\x01" * 8000)
    with pytest.raises(SourceError, match="has no video"):
        read(tmp_path / "x.wav")


@pytest.mark.parametrize("source", ["no/such/clip.mp4", "/dev/video99"])
def test_missing_source_raises(source: str) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read(source)


@pytest.fixture
def web_server() -> Iterator[tuple[str, list[str]]]:
    """Address of a web server, and the paths that were requested."""
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as address:
        yield f"http://{address}", requested


def test_local_playlist_cannot_open_network(tmp_path: Path, web_server: tuple[str, list[str]]) -> None:
    address, requested = web_server
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}/x.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "clip.m3u8").write_text(playlist)
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {address}/y.ts\n")
    for source in (tmp_path / "clip.m3u8", tmp_path / "list.ffconcat"):
        with pytest.raises(SourceError):
            read(source)
    assert requested == []
    with pytest.raises(SourceError):
        read(f"{address}/camera")
    assert requested == ["/camera"]  # the server works


def test_frames_of_hls_are_spread_over_their_time(tmp_path: Path) -> None:
    """They arrive at once, so a camera with `fps: 5` would process one frame per segment."""
    write_video(tmp_path / "live.m3u8", [np.full((64, 96, 3), n, np.uint8) for n in range(8)])
    with serving_folder(tmp_path) as address:
        arrived = [time.monotonic() for _ in open_source(config(f"{address}/live.m3u8"), lambda reason: None)]
    assert len(arrived) == 8 and all(later - arrived[0] > n / 10 - 0.02 for n, later in enumerate(arrived))


def test_delay_of_hls_does_not_grow_with_each_segment_that_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would leave the playlist's window. Segments of 2 s that each take 0.5 s to load, and a gap of 60 s after the tenth."""
    now = [1000.0]
    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: now.append(now.pop() + s)))

    def loaded() -> Iterator[DecodedFrame]:
        for segment in range(20):
            now[0] += 0.5
            for n in range(20):
                yield DecodedFrame(2.0 * segment + n / 10 + (60.0 if segment >= 10 else 0.0), lambda: np.zeros(0, np.uint8))

    at = [now[0] for _ in sources._paced(loaded(), lambda waited_s: None)]
    assert at[0] == 1000.5  # the first segment is loaded
    assert at[100:110:4] == pytest.approx([1010.9, 1010.9, 1011.3])  # the sixth, due at 1010.5, loads until 1010.9
    assert at[199] == pytest.approx(1000.5 + 19.9)
    assert at[200] == pytest.approx(1020.9) and at[399] == pytest.approx(1020.9 + 19.9)  # after the gap


def test_address_of_a_single_image_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "snapshot.jpg"), np.zeros((48, 64, 3), np.uint8))
    with serving_folder(tmp_path) as address:
        with pytest.raises(SourceError, match="a single image and ends: use the address of"):
            read(f"{address}/snapshot.jpg")
        with pytest.raises(SourceError, match=r"nvalid data .*: the address returns no video: check its path"):
            read(address)  # a web page


# --- folders


def test_folder_yields_images_in_order_and_reports_corrupt_ones(tmp_path: Path) -> None:
    for name, value in (("b.PNG", 100), ("a.jpg", 50), ("d.jpeg", 200)):
        cv2.imwrite(str(tmp_path / name), np.full((8, 12 + value, 3), (0, 0, value), np.uint8))  # red, in OpenCV's BGR
    (tmp_path / "c.jpg").write_bytes(b"corrupt")
    (tmp_path / "notes.txt").write_text("no image")
    frames, corrupt = read(tmp_path, fps=2)
    assert [(seconds, image.shape) for seconds, image in frames] == [
        (0.0, (8, 62, 3)),
        (0.5, (8, 112, 3)),
        (1.5, (8, 212, 3)),
    ]
    assert [round(float(image[..., 0].mean())) for _, image in frames] == pytest.approx([50, 100, 200], abs=3)
    assert max(float(image[..., 2].mean()) for _, image in frames) < 5
    assert corrupt == ["c.jpg: cannot be read as an image"] and stated_length(config(tmp_path, fps=2)) == 2.0


def test_folder_without_images_raises(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no images"):
        read(tmp_path)


def test_folder_scales_images_of_twelve_bits_and_ignores_system_files(tmp_path: Path) -> None:
    image = np.tile(np.arange(0, 256, dtype=np.uint16), (48, 1))
    cv2.imwrite(str(tmp_path / "a.png"), image << 4)
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07")
    frames, corrupt = read(str(tmp_path))
    assert corrupt == []
    assert [np.array_equal(pixels[..., 0], image) for _, pixels in frames] == [True]


def test_video_file_that_begins_with_a_cover_picture_is_read(tmp_path: Path) -> None:
    with av.open(tmp_path / "video.mkv", "w") as container:
        cover, video = container.add_stream("mjpeg", rate=1), container.add_stream("libx264", rate=10)
        for stream, pixels in ((cover, "yuvj420p"), (video, "yuv420p")):
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for stream, color, count in ((cover, GREEN, 1), (video, RED, 10)):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), color, np.uint8), format="rgb24")
            for number in range(count):
                picture.pts = number
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    frames, _ = read(tmp_path / "video.mkv")
    assert len(frames) == 10 and np.abs(frames[0][1].astype(int) - RED).max() < 30


def ignored_in(source: Path) -> list[str]:
    ignored: list[str] = []
    list(open_source(config(source), print, on_ignored=ignored.append))
    return ignored


def test_source_with_two_tracks_names_the_unread_one_once(tmp_path: Path) -> None:
    with av.open(tmp_path / "two.ts", "w") as container:
        tracks = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for track in tracks:
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), RED, np.uint8), format="rgb24")
            container.mux([*track.encode(picture), *track.encode(None)])
    (said,) = ignored_in(tmp_path / "two.ts")
    assert said.startswith("it has 2 video tracks: track 0 (h264, 64x48) is read, the others are not")


def test_source_with_one_track_ignores_nothing(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    assert ignored_in(make_clip(tmp_path / "clip.mp4", [(RED, 5)])) == []


def test_source_with_folder_names_unread_files_once(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.TIF", "c.jpg"):
        (tmp_path / name).write_bytes(cv2.imencode(name.lower()[1:], np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "more").mkdir()
    (said,) = ignored_in(tmp_path)
    assert said == (
        "the box does not read everything in the folder (2 items, first b.TIF): "
        "only .bmp, .jpeg, .jpg, .png, .webp directly in it are read"
    )


def test_decoder_has_no_more_threads_than_cores(
    make_clip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppe_edge.cameras.sources.available_cores", lambda: 1)
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 5)])
    before = len(list(Path("/proc/self/task").iterdir()))
    frames = open_source(config(clip), lambda reason: None)
    next(frames)
    assert len(list(Path("/proc/self/task").iterdir())) == before
    frames.close()  # type: ignore[attr-defined]
