"""The runtime in one process: clips in, messages out; changes while it runs; faults that it survives, or does not."""

import contextlib
import functools
import hashlib
import http.server
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from onnx import helper

from conftest import CONTRACT, GREEN, GREY, HEAD_XYXY, RED  # isort: skip
from helpers import wait_until
from ppe_edge import runtime as runtime_module
from ppe_edge.config import load_settings
from ppe_edge.control import Control, read_desired
from ppe_edge.errors import EdgeError
from ppe_edge.runtime import Runtime
from ppe_edge.web.status import RuntimeStatus

from ppe_yolo.core.contract import ONNX_METADATA_KEY


def configure(folder: Path, model: Path, cameras: dict[str, Any], **more: Any) -> Path:
    """Writes an edge.yaml with a jsonl sink and without a page."""
    config = folder / "edge.yaml"
    document = {
        "model": {"path": str(model), "threads": 1},
        "state_dir": str(folder / "state"),
        "cameras": {name: {"source": str(c)} if isinstance(c, Path) else c for name, c in cameras.items()},
        "sinks": {"jsonl": {"path": str(folder / "alerts.jsonl")}},
        "web": {"enabled": False},
        **more,
    }
    config.write_text(json.dumps(document))  # which is YAML too
    return config


def delivered(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The delivered messages of a kind, in order."""
    file = folder / "alerts.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [m for m in map(json.loads, lines) if m["kind"] == kind]


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


@pytest.fixture
def endless(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """A video that is longer than any test."""
    return make_clip(tmp_path / "endless.mp4", [(GREY, 1500)])


@contextlib.contextmanager
def running(config: Path) -> Iterator[tuple[Runtime, Control]]:
    """A running box with a slow model, so that its clips last."""
    runtime = Runtime(load_settings(config))
    detect = runtime.detector.detect

    def slowly(images: Any) -> Any:
        time.sleep(0.02)
        return detect(images)

    runtime.detector.detect = slowly  # type: ignore[method-assign]
    runtime.start()
    try:
        yield runtime, Control(runtime, config, {})
    finally:
        runtime.stop()


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
    }
    metrics = run_to_the_end(Runtime(load_settings(configure(tmp_path, tiny_model, clips))))
    assert [m["camera"] for m in delivered(tmp_path, "alert")] == ["bare"]
    assert [(m["camera"], m["end"]) for m in delivered(tmp_path, "alert_closed")] == [
        ("bare", "stopped")
    ]  # by the end of the clip
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


def test_apply_changes_rules_and_cameras_live(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    red = make_clip(tmp_path / "red.mp4", [(RED, 1500)])
    with running(configure(tmp_path, tiny_model, {"gate": red})) as (runtime, control):
        wait_until(lambda: delivered(tmp_path, "alert"))
        reader = runtime.readers["gate"]
        control.apply({"rule": {"alarm_threshold": 0.99, "hysteresis": 1.0}, "cameras": {"yard": {"source": str(red)}}})
        assert runtime.readers["gate"] is reader  # the source is the same
        assert runtime.settings.rule_of("yard").alarm_threshold == 0.99
        wait_until(lambda: delivered(tmp_path, "alert_closed"))  # by the new rule, under which nothing is a violation
        wait_until(lambda: (view := runtime.pipelines["yard"].view) is not None and view.frame.number > 10)
        assert len(delivered(tmp_path, "alert")) == 1
        control.apply({"cameras": {"gate": {"enabled": False}, "yard": {"source": str(red)}}})
        assert list(runtime.readers) == ["yard"]
        wait_until(
            lambda: [m for m in delivered(tmp_path, "alert") if m["camera"] == "yard"]
        )  # the rule of the file applies again
        assert read_desired(tmp_path / "state")["cameras"]["gate"] == {"enabled": False}
        assert (tmp_path / "state" / "desired.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("change", ["rule", "model", "tracker"])
def test_apply_does_not_repeat_alert_of_same_head(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], shelf: tuple[Path, str], change: str
) -> None:
    _, sha256 = another_model(tiny_model, shelf[0] / "new.onnx")
    desired: dict[str, Any] = {
        "rule": {"rule": {"alarm_threshold": 0.6}},
        "model": {"model": {"url": f"{shelf[1]}/new.onnx", "sha256": sha256}},
        "tracker": {"tracker": {"keep_s": 2.0}},
    }[change]
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 1500)])
    with running(configure(tmp_path, tiny_model, {"gate": clip}, rule={"cooldown_s": 3600})) as (runtime, control):
        wait_until(lambda: delivered(tmp_path, "alert"))
        opened = dict(runtime.pipelines["gate"].open)
        control.apply(desired)
        if change == "tracker":  # tracks start again: nobody knows whether the head is the same
            wait_until(lambda: [m["end"] for m in delivered(tmp_path, "alert_closed")] == ["stopped"])
            assert runtime.pipelines["gate"].open == {}
        else:
            assert runtime.pipelines["gate"].open == opened
        number = runtime.pipelines["gate"].view.frame.number
        wait_until(lambda: runtime.pipelines["gate"].view.frame.number > number + 30)  # 3 s, twice the time that an alert needs
    assert len(delivered(tmp_path, "alert")) == 1  # the one before the change, in all three cases
    [closed] = delivered(tmp_path, "alert_closed")
    assert opened == {closed["violation"]: closed["alert"]}


@pytest.mark.parametrize(
    ("desired", "words"),
    [
        ({"rule": {"alarm_threshold": 7}}, "twin: rule.alarm_threshold: Input should be less than or equal to 1, got 7"),
        ({"rule": {"violation_class": "glove"}}, "expected one of the model's classes helmet, none"),
        ({"cameras": {"yard": {"source": "/nowhere.mp4"}}}, "cameras.yard.source: .* got no such file"),
        ({"cameras": {"gate": {"enabled": False}}}, "there is nothing to monitor"),
        ({"cameras": 7}, "twin: cameras: "),
        ({"web": {"token": "x" * 20}}, "web: cannot be changed remotely"),
        ({"state_dir": "/tmp"}, "state_dir: cannot be changed remotely"),
        ({"model": {"path": "/etc/passwd"}}, "model: expected url and sha256, and nothing else"),
        ({"model": {"url": "file:///etc/passwd", "sha256": "0" * 64}}, "expected http or https"),
        ({"batch": 2, "rule": {"frames": 9}}, "twin: rule: "),
    ],
)  # fmt: skip
def test_apply_rejects_invalid_request_and_changes_nothing(
    tmp_path: Path, tiny_model: Path, endless: Path, desired: dict[str, Any], words: str
) -> None:
    with running(configure(tmp_path, tiny_model, {"gate": endless})) as (runtime, control):
        before, readers = runtime.settings, dict(runtime.readers)
        with pytest.raises(EdgeError, match=words):
            control.apply(desired)
        assert runtime.settings is before and runtime.readers == readers
        assert not (tmp_path / "state" / "desired.json").exists()
        assert 'changes_total{outcome="refused"} 1.0' in runtime.telemetry.text().decode()


def test_apply_is_rolled_back_if_it_cannot_be_saved(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    with running(configure(tmp_path, tiny_model, {"gate": endless})) as (runtime, control):
        before = runtime.settings
        (tmp_path / "state" / "desired.new").mkdir()  # blocks the file that is written
        with pytest.raises(
            EdgeError, match=r"cannot save the desired values of the twin .*, nothing was changed: free disk space"
        ):
            control.apply({"batch": 2})
        assert runtime.settings == before and runtime.settings.batch != 2
        (tmp_path / "state" / "desired.new").rmdir()
        control.apply({"batch": 2})
        assert runtime.settings.batch == 2 and read_desired(tmp_path / "state") == {"batch": 2}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a web server serves, and its address."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def another_model(tiny_model: Path, path: Path) -> tuple[Path, str]:
    """The same graph with another hash; its threshold is 0.6."""
    model = onnx.load(tiny_model)
    helper.set_model_props(model, {ONNX_METADATA_KEY: CONTRACT.to_json().replace('"none": 0.5', '"none": 0.6')})
    path.write_bytes(model.SerializeToString())
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_apply_swaps_model_and_restart_keeps_it(
    tmp_path: Path, tiny_model: Path, endless: Path, shelf: tuple[Path, str]
) -> None:
    folder, address = shelf
    _, sha256 = another_model(tiny_model, folder / "new.onnx")
    config = configure(tmp_path, tiny_model, {"gate": endless})
    with running(config) as (runtime, control):
        control.apply({"model": {"url": f"{address}/new.onnx", "sha256": sha256}})
        assert runtime.deployment.model.reference.sha256 == runtime.detector.sha256 == sha256
        assert sha256 in runtime.telemetry.text().decode()
        number = runtime.pipelines["gate"].view.frame.number if runtime.pipelines["gate"].view else -1
        wait_until(lambda: (view := runtime.pipelines["gate"].view) is not None and view.frame.number > number)
    restarted = Runtime(load_settings(config))
    assert restarted.deployment.model.reference.sha256 == sha256
    restarted.outbox.close()


def test_apply_without_model_returns_to_configured_model(
    tmp_path: Path, tiny_model: Path, endless: Path, shelf: tuple[Path, str]
) -> None:
    folder, address = shelf
    _, sha256 = another_model(tiny_model, folder / "new.onnx")
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(tiny_model.read_bytes())
    config = configure(tmp_path, mine, {"gate": endless})
    own = {"model": {"name": "mine.onnx", "sha256": hashlib.sha256(tiny_model.read_bytes()).hexdigest()}}
    with running(config) as (runtime, control):
        assert control.reported() == own
        control.apply({"model": {"url": f"{address}/new.onnx", "sha256": sha256}, "batch": 2})
        fetched = control.reported()
        assert fetched["model"]["sha256"] == sha256
        mine.write_bytes(b"damaged")
        with pytest.raises(EdgeError, match=r"mine\.onnx"):
            control.apply({"batch": 3})
        assert control.reported() == fetched and runtime.settings.batch == 2
        mine.write_bytes(tiny_model.read_bytes())
        control.apply({"batch": 3})
        assert control.reported() == own and runtime.detector.path == mine and runtime.settings.batch == 3
        active = runtime.detector
        control.apply({"batch": 4})
        assert runtime.detector is active  # not opened again for every request
        assert not list((tmp_path / "state" / "models").iterdir())
    restarted = Runtime(load_settings(config, read_desired(tmp_path / "state")))
    assert restarted.detector.path == mine
    restarted.outbox.close()


@pytest.mark.parametrize("trouble", ["wrong hash", "no model", "without a contract", "not there", "closed"])
def test_apply_keeps_old_model_if_new_one_is_unusable(
    tmp_path: Path, tiny_model: Path, endless: Path, shelf: tuple[Path, str], trouble: str
) -> None:
    folder, address = shelf
    path, sha256 = another_model(tiny_model, folder / "new.onnx")
    if trouble == "wrong hash":
        sha256 = "0" * 64
    elif trouble == "no model":
        path.write_bytes(b"<html>not found</html>")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    elif trouble == "without a contract":
        model = onnx.load(tiny_model)
        del model.metadata_props[:]
        path.write_bytes(model.SerializeToString())
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    elif trouble == "not there":
        path.unlink()
    else:
        address = "http://127.0.0.1:9"
    with running(configure(tmp_path, tiny_model, {"gate": endless})) as (runtime, control):
        before = runtime.detector
        with pytest.raises(EdgeError, match=r"^model\.url: "):
            control.apply({"model": {"url": f"{address}/new.onnx", "sha256": sha256}})
        assert runtime.detector is before
        assert not list((tmp_path / "state" / "models").glob("*"))


def test_reload_applies_changed_file(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    config = configure(tmp_path, tiny_model, {"gate": endless})
    with running(config) as (runtime, control):
        document = json.loads(config.read_text())
        config.write_text(json.dumps({**document, "rule": {"cooldown_s": 5}, "log_level": "ERROR"}))
        assert control.reload() == {"reloaded": True, "needs_restart": ["log_level"]}
        assert runtime.settings.rule.cooldown_s == 5 and runtime.settings.log_level == "INFO"
        path, sha256 = another_model(tiny_model, tmp_path / "another.onnx")
        config.write_text(json.dumps({**document, "rule": {"cooldown_s": 5}, "model": {"path": str(path), "threads": 1}}))
        assert control.reload() == {"reloaded": True, "needs_restart": []}
        assert control.reported() == {"model": {"name": "another.onnx", "sha256": sha256}}
        config.write_text("nonsense")
        answer = control.reload()
        assert not answer["reloaded"] and "expected keys" in answer["reason"]
        assert runtime.settings.rule.cooldown_s == 5


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


def test_hanging_model_makes_runtime_not_alive(
    tmp_path: Path, tiny_model: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "HEARTBEAT_TIMEOUT", 0.5)
    monkeypatch.setattr(runtime_module, "GRACE", 2.0)
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": endless})))
    release, status = threading.Event(), RuntimeStatus(runtime)

    def hangs(images: Any) -> Any:
        release.wait(60.0)
        return [np.empty(0)] * len(images)

    runtime.detector.detect = hangs  # type: ignore[method-assign]
    runtime.start()
    wait_until(lambda: not status.alive())
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
