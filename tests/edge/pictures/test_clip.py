"""Clips: decoded, played in a browser, and from a running box."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import example_views
import numpy as np
import pytest
from example_messages import a_camera_event, an_alert
from example_views import a_track
from helpers import wait_until
from numpy.typing import NDArray
from ppe_edge.delivery.messages import AlertClip, parse_message
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.pictures import clip as clip_module
from ppe_edge.pictures.clip import ClipConfig, ClipRecorder, encode_clip
from ppe_edge.pictures.snapshot import SnapshotConfig as Look
from ppe_edge.pictures.snapshot import View, encode
from running_box import configure, delivered, running

from conftest import GREEN, GREY, RED  # isort: skip

CHROMIUM = shutil.which("chromium")
NOISE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
HEAD = (100, 60, 160, 120)


def decode(video: bytes) -> tuple[list[float], list[NDArray[np.uint8]]]:
    """The times and images of an MP4, which must be what browsers and phones play."""
    assert 0 < video.index(b"moov") < video.index(b"mdat")  # else a browser must fetch it whole before it plays
    with av.open(io.BytesIO(video)) as container:
        [stream] = container.streams
        assert (stream.codec_context.name, stream.codec_context.format.name) == ("h264", "yuv420p")  # type: ignore[union-attr]
        frames = list(container.decode(video=0))
    return [float(f.time or 0) for f in frames], [f.to_ndarray(format="rgb24") for f in frames]


def a_view(seconds: float) -> View:
    """A frame of noise with a head."""
    return example_views.a_view(NOISE, a_track(HEAD, score=0.2), time=seconds)


class Recording:
    """A recorder that is fed at its own pace, and the clips that it makes."""

    def __init__(self, before_s: float, after_s: float) -> None:
        self.clips: list[tuple[AlertClip, bytes]] = []
        self.faults = 0
        config = ClipConfig(enabled=True, before_s=before_s, after_s=after_s)
        self.recorder = ClipRecorder(config, lambda message, video: self.clips.append((message, video())), self._fault)
        self.recorder.start()

    def _fault(self) -> None:
        self.faults += 1

    def feed(self, times: Sequence[float], alerts: dict[float, int], blur: bool = True) -> None:
        for seconds in times:
            wait_until(lambda: self.recorder._views.empty())
            self.recorder.add(a_view(seconds), [an_alert(alerts[seconds])] if seconds in alerts else [], blur)


def times(start: float, end: float, fps: int = 8) -> list[float]:
    return [start + n / fps for n in range(int((end - start) * fps) + 1)]


def test_clip_holds_the_seconds_around_the_alert_with_heads_pixelated() -> None:
    recording = Recording(before_s=2, after_s=1)
    recording.feed(times(0, 6), {3.0: 1, 3.5: 2})
    assert recording.recorder.stop(30) and not recording.faults
    for (message, video), start in zip(recording.clips, (1.0, 1.5), strict=True):
        assert (message.offset_s, message.duration_s, message.schema_version) == (-2.0, 3.0, 2)
        seconds, images = decode(video)
        assert seconds == pytest.approx([t - start for t in times(start, start + 3)], abs=0.002)
        x1, y1, _, _ = HEAD
        for image in images:
            # 4 x 4 squares of mean colours, each 16 pixels wide: nothing of the noise is left inside of one
            inside, outside = image[y1 + 20 : y1 + 26, x1 + 20 : x1 + 26], image[140:190, 10:60]
            assert inside.std(axis=(0, 1)).max() < 12 < outside.std(axis=(0, 1)).min()
    assert [message.alert for message, _ in recording.clips] != [message.id for message, _ in recording.clips]


def test_clip_message_says_how_its_head_was_seen_in_each_frame() -> None:
    recording = Recording(before_s=0.25, after_s=0.125)
    recording.feed(times(0, 2), {1.0: 7, 1.5: 8})
    assert recording.recorder.stop(30)
    of_track_7, of_track_8 = (message.sightings for message, _ in recording.clips)
    assert [(s.offset_s, s.class_name, s.score) for s in of_track_7] == [(t, "none", 0.2) for t in (-0.25, -0.125, 0, 0.125)]
    assert of_track_8 == ()  # all frames show track 7


def test_heads_in_clips_stay_visible_without_blur() -> None:
    recording = Recording(before_s=0.5, after_s=0)
    recording.feed(times(0, 1), {1.0: 1}, blur=False)
    assert recording.recorder.stop(30)
    [(_, video)] = recording.clips
    x1, y1, _, _ = HEAD
    assert decode(video)[1][0][y1 + 20 : y1 + 26, x1 + 20 : x1 + 26].std(axis=(0, 1)).min() > 12


def test_ring_keeps_the_latest_frames_within_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look(blur=False, max_side=clip_module.MAX_SIDE)
    size = len(encode(NOISE, look) or b"")
    monkeypatch.setattr(clip_module, "RING_BYTES", 20 * size)  # a frame has at most a twentieth
    recording = Recording(before_s=30, after_s=0)
    recording.feed(times(0, 10), {10.0: 1}, blur=False)
    assert recording.recorder.stop(30)
    [(message, _)] = recording.clips
    assert -30 < message.offset_s < -0.5 and recording.recorder._rings["gate"].size <= 20 * size


def test_clip_survives_a_change_of_resolution() -> None:
    look = Look()
    frames = [(n / 8, encode(NOISE[: 201 - 8 * n, : 301 - 6 * n], look) or b"") for n in range(4)]
    seconds, images = decode(encode_clip(frames))
    assert len(seconds) == 4 and {image.shape for image in images} == {(200, 300, 3)}


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: Debian's package chromium")
def test_chromium_plays_the_clip(tmp_path: Path) -> None:
    image = np.full((120, 160, 3), RED, np.uint8)
    video = encode_clip([(n / 8, encode(image, Look()) or b"") for n in range(17)])
    page = tmp_path / "page.html"
    page.write_text(
        f'<video muted preload="auto" src="data:video/mp4;base64,{base64.b64encode(video).decode()}"></video><script>'
        'const video = document.querySelector("video"), canvas = document.createElement("canvas");'
        'video.onerror = () => document.title = "refused";'
        "video.onloadeddata = () => { const paint = canvas.getContext('2d'), end = performance.now() + 20000; let pixel;"
        # another thread renders the first frame, perhaps later than this event; until then, the canvas is empty or black
        "do { paint.drawImage(video, 0, 0); pixel = paint.getImageData(9, 9, 1, 1).data; }"
        "while (!pixel[0] && performance.now() < end);"
        "document.title = [video.duration, video.videoWidth, ...pixel].join(' '); };</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'p'}"]
    dumped = subprocess.run(
        [str(CHROMIUM), *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    duration, width, red, green, blue, _ = map(float, re.findall("<title>(.*)</title>", dumped.stdout)[0].split())
    assert duration == pytest.approx(2.1, abs=0.1) and width == 160
    assert red > 180 and green < 60 and blue < 60


def test_running_box_sends_the_clip_after_its_alert(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    video = make_clip(tmp_path / "video.mp4", [(GREY, 20), (RED, 40), (GREEN, 20)])
    config = configure(tmp_path, tiny_model, {"gate": video}, clip={"enabled": True, "before_s": 1, "after_s": 2})
    with running(config) as (runtime, _):
        assert runtime.wait(60)
    [alert], [message] = delivered(tmp_path, "alert"), delivered(tmp_path, "alert_clip")
    assert (message["alert"], message["violation"], message["class"]) == (alert["id"], alert["violation"], "none")
    path = tmp_path / "state" / "snapshots" / message["clip"]["file"]
    assert path.stem == alert["id"] and hashlib.sha256(path.read_bytes()).hexdigest() == message["clip"]["sha256"]
    seconds, images = decode(path.read_bytes())
    assert seconds[-1] == pytest.approx(3, abs=0.4) and images[0].shape == (64, 96, 3)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert kinds.index("alert") < kinds.index("alert_clip")


def test_box_that_stops_during_a_clip_sends_what_it_has(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    config = configure(tmp_path, tiny_model, {"gate": endless}, clip={"enabled": True, "after_s": 30})
    with running(config) as (runtime, _):
        pipeline = runtime.pipelines["gate"]
        wait_until(lambda: pipeline.view)
        assert runtime.clips is not None and pipeline.view is not None
        runtime.clips.add(pipeline.view, [an_alert()], True)
    [message] = delivered(tmp_path, "alert_clip")
    assert message["clip"] is not None and message["duration_s"] < 30


def test_recorder_that_is_stopped_before_it_is_ready_leaves_out_clips_without_a_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recording, released, problems = Recording(before_s=1, after_s=1), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", problems.append)
    draw = clip_module.draw
    monkeypatch.setattr(clip_module, "draw", lambda *a: released.wait(30) and draw(*a))
    recording.recorder.add(a_view(1.0), [an_alert()], True)
    assert not recording.recorder.stop(0.05)
    released.set()
    recording.recorder._thread.join(30)
    assert (
        not recording.faults
        and not problems
        and caplog.messages == ["clips that were not ready in time are missing; their alerts were sent"]
    )


def test_outbox_keeps_clips_like_snapshots(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    now = [1000.0]
    outbox = Outbox(OutboxConfig(max_snapshot_days=1), tmp_path, ["jsonl"], clock=lambda: now[0])
    outbox.put(a_camera_event())
    outbox.ack(outbox.claim("jsonl"))  # type: ignore[arg-type]
    outbox.close()
    (folder / "cut-off.mp4").write_bytes(b"a video whose process was killed while it was written")
    outbox = Outbox(OutboxConfig(max_snapshot_days=1), tmp_path, ["jsonl"], clock=lambda: now[0])
    assert not list(folder.iterdir())
    alert = an_alert()
    message = clip_module.clip_of(alert, -5, 10)
    outbox.put(alert, b"jpeg")
    outbox.put(message, b"mp4")
    assert sorted(p.name for p in folder.iterdir()) == [f"{alert.id}.jpg", f"{alert.id}.mp4"]
    outbox.ack(outbox.claim("jsonl"))  # type: ignore[arg-type]
    outbox.close()
    outbox = Outbox(OutboxConfig(max_snapshot_days=1), tmp_path, ["jsonl"], clock=lambda: now[0])  # the files stay
    delivery = outbox.claim("jsonl")
    assert delivery is not None and delivery.snapshot == folder / f"{alert.id}.mp4"
    assert isinstance(delivery.message, AlertClip) and parse_message(delivery.message.to_json()) == delivery.message
    outbox.nack(delivery, outcome_unknown=False)
    now[0] += 86401
    delivery = outbox.claim("jsonl")
    assert delivery is not None and delivery.snapshot is None and not list(folder.iterdir())
    assert isinstance(delivery.message, AlertClip) and delivery.message.clip is None
    outbox.close()
