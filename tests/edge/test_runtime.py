"""The runtime in one process: clips in, messages out; changes while it runs; faults that it survives, or does not."""

import contextlib
import hashlib
import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from conftest import GREEN, GREY, HEAD_XYXY, RED  # isort: skip
from drawn_view import DrawnCamera, draw_scene
from example_messages import a_camera_event, an_alert
from helpers import wait_until
from mjpeg_server import MjpegServer, noise
from ppe_edge import runtime as runtime_module
from ppe_edge.cameras import attention as attention_module
from ppe_edge.cameras import rate as rate_module
from ppe_edge.cameras import sources
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.common import clock
from ppe_edge.compliance.store import ComplianceStore, Count, Key
from ppe_edge.config import load_settings
from ppe_edge.delivery.messages import CameraEventMessage, Message
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.errors import EdgeError
from ppe_edge.runtime import Runtime
from ppe_edge.web.status import RuntimeStatus
from running_box import configure, delivered, running


def last_seen(folder: Path) -> list[float]:
    """When the open violations were last seen, as the database has it."""
    with contextlib.closing(sqlite3.connect(folder / "state" / "outbox.db")) as database:
        return [row[0] for row in database.execute("SELECT last_seen FROM open_alerts")]


def run_to_the_end(runtime: Runtime) -> str:
    """Returns the metrics at the end."""
    runtime.start()
    assert runtime.wait(60.0)
    metrics = runtime.telemetry.text().decode()
    runtime.stop()
    return metrics


@pytest.mark.parametrize(
    ("ahead_s", "synchronised", "uncertain"), [(3600, False, True), (3600, True, False), (-3600, False, False)]
)
def test_alert_before_newest_message_of_earlier_process_has_uncertain_time(
    tmp_path: Path,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    ahead_s: float,
    synchronised: bool,
    uncertain: bool,
) -> None:
    """A clock that lost an hour: it shows a possible time, but one that has passed. A time server settles the doubt."""
    monkeypatch.setattr("ppe_edge.common.clock._passed", 0.0)
    monkeypatch.setattr("ppe_edge.common.clock._is_synchronised", lambda: synchronised)
    (tmp_path / "state").mkdir()
    before = Outbox(OutboxConfig(), tmp_path / "state", ["jsonl"], lambda: time.time() + ahead_s)
    before.put(a_camera_event())
    before.close()
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 20)])
    run_to_the_end(Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": clip}))))
    [alert] = delivered(tmp_path, "alert")
    [connected] = [event for event in delivered(tmp_path, "camera_event") if event["event"] == "connected"]
    assert alert.get("time_uncertain", False) is connected.get("time_uncertain", False) is uncertain


def test_clock_that_is_far_ahead_deletes_nothing(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, now = tmp_path / "state", time.time()
    monkeypatch.setattr("ppe_edge.common.clock._passed", 0.0)
    monkeypatch.setattr("ppe_edge.common.clock._is_synchronised", lambda: False)
    (state / "frames").mkdir(parents=True)
    (state / "frames" / "gate_1.jpg").touch()
    before = Outbox(OutboxConfig(), state, ["notify-0"])
    before.put(a_camera_event())
    before.put(an_alert(), b"jpeg")
    before.close()
    key = Key(int(now // 900 * 900), "gate", "default", "")
    ComplianceStore(state / "compliance.db").write({key: Count(7, 0)}, {}, 0.0)
    monkeypatch.setattr("ppe_edge.common.clock._ANCHOR", clock._ANCHOR + 400 * 86400)
    monkeypatch.setattr(time, "time", lambda: now + 400 * 86400)
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 20)])
    more = {"verdicts": {"frames": "full"}}
    run_to_the_end(Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": clip}, **more))))
    after = Outbox(OutboxConfig(), state, [])
    assert after.stats().pending == {"notify-0": 2} and after.stats().snapshots == 2
    after.close()
    assert ComplianceStore(state / "compliance.db").read(now - 900, now)[key] == Count(7, 0)
    assert len(list((state / "frames").glob("*.jpg"))) == 2


def test_alert_starts_when_helmet_comes_off_and_closes_when_it_is_back(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]
) -> None:
    """At 10 frames per second: a bare head in frames 20 to 39; the alert closes when 6 of 8 frames show a helmet."""
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 20), (RED, 20), (GREEN, 20)])
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": clip})), tmp_path / "videos")
    run_to_the_end(runtime)
    assert not runtime.failed
    [alert], [closed] = delivered(tmp_path, "alert"), delivered(tmp_path, "alert_closed")
    assert [m["event"] for m in delivered(tmp_path, "camera_event")] == ["connected", "ended"]
    assert (alert["camera"], alert["class"], alert["track"], alert["zone"]) == ("gate", "none", 1, None)
    assert alert["box_xyxy"] == pytest.approx(HEAD_XYXY, abs=0.01) and alert["frame_size"] == [64, 96]
    assert alert["model"] == {
        "name": "tiny.onnx",
        "sha256": hashlib.sha256(tiny_model.read_bytes()).hexdigest(),
        "provenance": {"made_by": "test"},
    }
    assert (closed["alert"], closed["violation"], closed["end"]) == (alert["id"], alert["violation"], "seen")
    assert closed["duration_s"] == pytest.approx(1.9, abs=0.01)  # from the first frame with a bare head to the last
    snapshot = tmp_path / "state" / "snapshots" / alert["snapshot"]["file"]
    assert hashlib.sha256(snapshot.read_bytes()).hexdigest() == alert["snapshot"]["sha256"]
    with av.open(str(tmp_path / "videos" / "gate.mp4")) as video:
        frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
    assert len(frames) == 60  # every frame of a file is processed
    assert frames[30].mean(axis=(0, 1))[0] > 150 > frames[5].mean(axis=(0, 1))[0]


def test_two_cameras_are_processed_separately(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    clips = {
        "bare": make_clip(tmp_path / "bare.mp4", [(RED, 30)]),
        "good": make_clip(tmp_path / "good.mp4", [(GREEN, 30)], size=(128, 96)),
        "short": make_clip(tmp_path / "short.mp4", [(RED, 15)]),
    }
    metrics = run_to_the_end(Runtime(load_settings(configure(tmp_path, tiny_model, clips))))
    assert [m["camera"] for m in delivered(tmp_path, "alert")] == ["bare"]
    assert [(m["camera"], m["end"]) for m in delivered(tmp_path, "alert_closed")] == [
        ("bare", "stopped")
    ]  # by the end of the clip
    ended = {m["camera"]: m["detail"] for m in delivered(tmp_path, "camera_event") if m["event"] == "ended"}
    assert ended == {"bare": "", "good": "", "short": "only 15 frames in 1.4 s: an alert needs 3 frames and 1.5 s"}
    assert 'ppe_edge_frames_processed_total{camera="bare"} 30.0' in metrics
    assert 'ppe_edge_frames_processed_total{camera="good"} 30.0' in metrics
    assert 'ppe_edge_alerts_total{camera="bare",kind="alert"} 1.0' in metrics


def test_open_violation_updates_last_seen_on_disk(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "NOTE_INTERVAL", 0.2)
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 1500)])
    with running(configure(tmp_path, tiny_model, {"gate": clip})):
        wait_until(lambda: delivered(tmp_path, "alert"))
        [alert] = delivered(tmp_path, "alert")
        began = datetime.fromisoformat(alert["time"]).timestamp()
        wait_until(lambda: any(seen > began + 1.0 for seen in last_seen(tmp_path)))
    assert len(delivered(tmp_path, "alert_closed")) == 1


def test_status_shows_cameras_and_alerts(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 1500)])
    with running(configure(tmp_path, tiny_model, {"gate": clip})) as (runtime, control):
        status = RuntimeStatus(runtime)
        wait_until(lambda: [a for a in status.state()["alerts"] if a["what"] == "alert: bare head"])
        state = json.loads(json.dumps(status.state(), allow_nan=False))
        [camera] = state["cameras"]
        assert (camera["name"], camera["state"], camera["violations"]) == ("gate", "live", 1)
        assert status.alive() and status.ready() and control.health()["ready"]
        jpeg = status.live("gate")
        assert jpeg is not None and jpeg[:2] == b"\xff\xd8"
        assert status.live("yard") is None
        assert control.snapshot({"camera": "gate"})["jpeg_base64"].startswith("/9j/")
        with pytest.raises(EdgeError, match="one of gate, got 'yard'"):
            control.snapshot({"camera": "yard"})
    assert not status.ready()


def test_slow_box_reports_low_rate_and_late_frames_and_still_raises_alert(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The camera delivers 20 frames per second. First the model takes 0.7 s for each, then decoding 0.14 s."""
    monkeypatch.setattr(rate_module, "CONFIRM", 2.0)
    monkeypatch.setattr(rate_module, "WINDOW", 2.0)

    def red(n: int) -> bytes:
        image = np.full((64, 96, 3), RED[::-1], np.uint8)
        image[:8, :8] = n % 250
        return cv2.imencode(".jpg", image)[1].tobytes()

    with MjpegServer(red) as server:
        camera = {"source": server.url, "fps": 8, "view_health": False}
        runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": camera})))
        detect, pause = runtime.detector.detect, [0.7]

        def slowly(images: Any) -> Any:
            threading.Event().wait(pause[0])
            return detect(images)

        runtime.detector.detect = slowly  # type: ignore[method-assign]
        runtime.start()
        try:
            wait_until(lambda: delivered(tmp_path, "alert"))
            wait_until(lambda: [m for m in delivered(tmp_path, "camera_event") if m["event"] == "slow"])
            [slow] = [m for m in delivered(tmp_path, "camera_event") if m["event"] == "slow"]
            assert "at least 4 needed (the box is too slow for its cameras)" in slow["detail"]
            [shown] = RuntimeStatus(runtime).state()["cameras"]
            assert shown["slow"] and 0.5 < shown["rate"] < 2.0
            metrics = runtime.telemetry.text().decode()
            assert f'ppe_edge_camera_processed_rate{{camera="gate"}} {str(shown["rate"])[:1]}' in metrics
            assert 'ppe_edge_camera_slow{camera="gate"} 1.0' in metrics
            pause[0] = 0.0
            wait_until(lambda: delivered(tmp_path, "camera_event")[-1]["event"] == "rate_restored")
            upright = sources.upright
            monkeypatch.setattr(sources, "upright", lambda *a: threading.Event().wait(0.14) or upright(*a))
            wait_until(lambda: delivered(tmp_path, "camera_event")[-1]["event"] == "slow")
            assert "sends more than the box can decode" in delivered(tmp_path, "camera_event")[-1]["detail"]
            assert RuntimeStatus(runtime).state()["cameras"][0]["slow"]
            monkeypatch.setattr(sources, "upright", upright)
            wait_until(lambda: delivered(tmp_path, "camera_event")[-1]["event"] == "rate_restored")
        finally:
            runtime.stop()


def test_camera_that_stays_lost_needs_attention_until_it_works_again(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_module, "WORKS_AFTER", 0.5)
    with MjpegServer(lambda _: None) as server:
        camera = {"source": server.url, "read_timeout_s": 0.5, "frozen_after_s": 1.0, "attention_after_s": 1.5}
        with running(configure(tmp_path, tiny_model, {"gate": camera})):
            wait_until(lambda: len(delivered(tmp_path, "camera_event")) == 2)
            server.frame = noise
            wait_until(lambda: len(delivered(tmp_path, "camera_event")) == 4)
    told = [(m["event"], m["detail"]) for m in delivered(tmp_path, "camera_event")]
    assert [event for event, _ in told] == ["lost", "needs_attention", "connected", "works_again"]
    assert re.fullmatch(f"it has not worked reliably for [12] seconds?; now lost: {told[0][1]}", told[1][1])
    assert told[3][1].startswith("it had not worked reliably for ")


def test_processing_continues_after_failed_batch(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 30)])
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": clip})))
    detect, calls = runtime.detector.detect, iter(range(1000))

    def sometimes(images: Any) -> Any:
        if next(calls) == 2:
            raise RuntimeError("a kernel failed")
        return detect(images)

    runtime.detector.detect = sometimes  # type: ignore[method-assign]
    metrics = run_to_the_end(runtime)
    assert not runtime.failed and len(delivered(tmp_path, "alert")) == 1
    assert 'ppe_edge_faults_total{where="processing"} 1.0' in metrics


def test_processing_ends_if_model_always_fails(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": endless})))

    def fails(images: Any) -> Any:
        raise RuntimeError("the device is lost")

    runtime.detector.detect = fails  # type: ignore[method-assign]
    run_to_the_end(runtime)
    assert runtime.failed and not RuntimeStatus(runtime).alive()


def test_recording_that_fills_the_disk_does_not_end_the_alerts(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "gate.mp4").symlink_to("/dev/full")
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 10), (RED, 30)])
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": clip})), record=tmp_path / "videos")
    run_to_the_end(runtime)
    assert len(delivered(tmp_path, "alert")) == 1 and runtime.failed
    full = f"{tmp_path / 'videos' / 'gate.mp4'}: cannot be written (No space left on device)"
    recorded = [m for m in caplog.messages if "record" in m]
    assert recorded == [f"nothing more is recorded, of any camera; alerts continue: {full}"]


def test_hanging_model_makes_runtime_not_alive_and_fail(
    tmp_path: Path, tiny_model: Path, endless: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime_module, "HEARTBEAT_TIMEOUT", 0.5)
    monkeypatch.setattr(runtime_module, "WATCH_INTERVAL", 0.01)
    monkeypatch.setattr(runtime_module, "MAX_HANGING", 10)
    monkeypatch.setattr(runtime_module, "GRACE", 2.0)
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": endless})))
    release, status = threading.Event(), RuntimeStatus(runtime)

    def hangs(images: Any) -> Any:
        release.wait(60.0)
        return [np.empty(0)] * len(images)

    runtime.detector.detect = hangs  # type: ignore[method-assign]
    runtime.start()
    runtime.watch()
    assert runtime.failed and not status.alive()
    assert [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"] == [
        "frames are not processed: the model or a driver does not respond",
        "the box ends with exit code 1, to be restarted: the model or a driver does not respond",
    ]
    assert not runtime.stop()  # gives up waiting for the processing thread
    release.set()
    wait_until(lambda: "processing" not in {thread.name for thread in threading.enumerate()})


def test_unreadable_file_makes_runtime_fail(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    (tmp_path / "corrupt.mp4").write_bytes(b"corrupt" * 999)
    cameras = {"gate": make_clip(tmp_path / "clip.mp4", [(GREY, 5)]), "broken": tmp_path / "corrupt.mp4"}
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, cameras)))
    metrics = run_to_the_end(runtime)
    assert 'ppe_edge_frames_processed_total{camera="gate"} 5.0' in metrics  # the other camera is not affected
    assert runtime.failed
    events = [(m["camera"], m["event"]) for m in delivered(tmp_path, "camera_event")]
    assert [kind for camera, kind in events if camera == "broken"] == ["lost", "ended"]


class SlowDisk:
    """Makes the outbox of a runtime block while it stores an alert, as a disk does that does not respond."""

    def __init__(self, runtime: Runtime) -> None:
        self.blocked, self.released = threading.Event(), threading.Event()
        put = runtime.outbox.put

        def slow(message: Message, snapshot: bytes | None = None) -> str:
            if message.kind == "alert":
                self.blocked.set()
                self.released.wait(60.0)
            return put(message, snapshot)

        runtime.outbox.put = slow  # type: ignore[method-assign]


def test_frames_are_processed_while_alert_is_stored(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], endless: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 40), (GREEN, 1500)])
    with running(configure(tmp_path, tiny_model, {"gate": clip, "yard": endless})) as (runtime, _):
        disk = SlowDisk(runtime)
        wait_until(disk.blocked.is_set)
        views = {name: pipeline.view for name, pipeline in runtime.pipelines.items()}
        for name, view in views.items():
            assert view is not None
            wait_until(lambda name=name, view=view: runtime.pipelines[name].view.frame.number > view.frame.number + 40)
        assert runtime.pipelines["gate"].open == {}  # the violation has ended meanwhile
        assert delivered(tmp_path, "alert") == delivered(tmp_path, "alert_closed") == []
        disk.released.set()
        wait_until(lambda: delivered(tmp_path, "alert_closed"))
        [alert], [closed] = delivered(tmp_path, "alert"), delivered(tmp_path, "alert_closed")
        assert closed["alert"] == alert["id"] and alert["snapshot"] is not None
        assert [m.kind for m in reversed(runtime.outbox.recent(10)) if m.kind != "camera_event"] == ["alert", "alert_closed"]


def test_hanging_disk_makes_runtime_not_alive(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "HEARTBEAT_TIMEOUT", 1.0)
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 1500)])
    with running(configure(tmp_path, tiny_model, {"gate": clip})) as (runtime, _):
        disk = SlowDisk(runtime)
        wait_until(disk.blocked.is_set)
        wait_until(lambda: not runtime.alive)
        disk.released.set()
        wait_until(lambda: runtime.alive)


def test_between_frames_runs_no_action_after_its_timeout(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    with running(configure(tmp_path, tiny_model, {"gate": endless})) as (runtime, _):
        detect, entered, release = runtime.detector.detect, threading.Event(), threading.Event()

        def hangs(images: Any) -> Any:
            entered.set()
            release.wait(60.0)
            return detect(images)

        runtime.detector.detect = hangs  # type: ignore[method-assign]
        wait_until(entered.is_set)
        late: list[str] = []
        with pytest.raises(TimeoutError, match="the processing loop does not respond"):
            runtime.between_frames(lambda: late.append("late"), timeout=0.1)
        release.set()
        assert runtime.between_frames(lambda: "in time") == "in time"  # actions run in order
        assert late == []


def test_turned_camera_is_reported_after_reload_like_lost_ones(tmp_path: Path, tiny_model: Path) -> None:
    """A reload keeps what is usual for the view, unless the watch is turned off. The camera itself never connects."""

    def write(**camera: Any) -> Path:
        return configure(tmp_path, tiny_model, {"gate": {"source": "rtsp://127.0.0.1:9/", **camera}})

    def show(make: Callable[[DrawnCamera], np.ndarray], seconds: int, start: int) -> None:
        for second in range(start, start + seconds, 3):
            frame = Frame(camera="gate", number=second, time=float(second), monotonic=0.0, image=make(drawn))
            runtime.between_frames(lambda frame=frame: runtime.process_batch([frame]))  # type: ignore[misc]

    def events() -> list[str]:
        return [m.event for m in reversed(runtime.outbox.recent(50)) if isinstance(m, CameraEventMessage) and "view" in m.event]

    drawn = DrawnCamera(draw_scene(3))
    with running(write()) as (runtime, control):
        show(DrawnCamera.day, 90, 0)
        write(frozen_after_s=5.0)
        assert control.reload() == {"reloaded": True, "needs_restart": []}
        show(DrawnCamera.turned_away, 60, 90)
        assert events() == ["view_turned"]
        assert 'ppe_edge_camera_view_fault{camera="gate",fault="turned"} 1.0' in runtime.telemetry.text().decode()
        assert [camera["view_fault"] for camera in RuntimeStatus(runtime).state()["cameras"]] == ["turned away"]
        show(DrawnCamera.day, 60, 150)
        assert events() == ["view_turned", "view_restored"]
        write(view_health=False)
        assert control.reload()["reloaded"]
        show(lambda c: c.plain(0), 60, 210)
        assert events() == ["view_turned", "view_restored"]
        assert [figures.view_fault for figures in runtime.camera_figures().values()] == [None]
