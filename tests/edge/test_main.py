"""The command line in a process of its own: exit codes, output, signals, a full disk."""

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from helpers import child_environment, wait_until
from mjpeg_server import PASSWORD, MjpegServer, jpeg, noise
from ppe_edge.__main__ import main
from ppe_edge.cameras.sources import SourceConfig
from ppe_edge.dry_run import describe_delay
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.rules.config import RuleConfig
from pydantic import SecretStr
from small_disk import with_small_disk

from ppe_yolo.core.detections import Detections
from ppe_yolo.core.version import __version__

from conftest import GREEN, RED, grainy  # isort: skip

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-gate-0123456789"
PORT = r"web page on http://127.0.0.1:(\d+)"  # in the log


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ppe_edge", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return child_environment(OMP_NUM_THREADS="1", **more)


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments), env=environment(**variables), capture_output=True, text=True, timeout=120, check=False
    )
    assert PASSWORD not in done.stdout + done.stderr and TOKEN not in done.stdout + done.stderr
    return done


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process, which saves the imports; only for commands that end before the box starts."""
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)  # it would replace the handlers of pytest
    monkeypatch.setattr("ppe_edge.monitoring.memory.limit_heaps", lambda: None)  # it concerns the whole process

    def run_here(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, arguments)])
        out, err = capfd.readouterr()
        assert PASSWORD not in out + err and TOKEN not in out + err
        return code, out, err

    return run_here


def configure(folder: Path, model: Path, source: object, changes: dict[str, Any] | None = None) -> Path:
    config = folder / "edge.yaml"
    document = {
        "model": {"path": str(model), "threads": 1},
        "state_dir": str(folder / "state"),
        "cameras": {"gate": {"source": str(source)}},
        "sinks": {"jsonl": {"path": str(folder / "alerts.jsonl")}},
        "web": {"port": 0, "token": TOKEN},
        **(changes or {}),
    }
    config.write_text(json.dumps(document))
    return config


class Box:
    """A running process, and its log."""

    def __init__(self, config: Path, within: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*within, *command("--config", config)], env=environment(), stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str) -> str:
        """Waits for a pattern in the log; returns its last group, or the whole match."""

        def found() -> list[re.Match[str]]:
            return [m for line in self.log if (m := re.search(pattern, line))]

        with self._changed:
            assert self._changed.wait_for(lambda: found() or self._ended, 60.0), f"{pattern} is not in the log: {self.log}"
            assert found(), f"the process ended before {pattern}: {self.log}"
            return found()[0].group(found()[0].re.groups)


@pytest.fixture
def camera() -> Iterator[str]:
    """The address of an HTTP camera that shows a bare head, without end."""
    rng = np.random.default_rng(0)
    with MjpegServer(lambda _: jpeg(grainy(RED, rng)[..., ::-1])) as server:
        yield server.url


@pytest.fixture
def start() -> Iterator[Callable[..., Box]]:
    boxes: list[Box] = []

    def make(config: Path, within: Sequence[str] = ()) -> Box:
        boxes.append(Box(config, within))
        return boxes[-1]

    yield make
    for box in boxes:
        box.process.kill()
        box.process.wait(30)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"ppe_edge {__version__}\n"


def test_box_processes_clip_to_end(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 15), (RED, 15)])
    config = configure(tmp_path, tiny_model, clip)
    done = run("--config", config, "--record", tmp_path / "videos")
    assert done.returncode == 0, done.stderr
    assert re.search("INFO .* gate: ended$", done.stderr, re.MULTILINE)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert sorted(kinds) == ["alert", "alert_closed", "camera_event", "camera_event"]  # the events may overtake the alert
    assert kinds.index("alert") < kinds.index("alert_closed")
    with av.open(str(tmp_path / "videos" / "gate.mp4")) as video:
        assert len(list(video.decode(video=0))) == 30


def test_dry_run_prints_what_would_run_and_sends_nothing(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 5)])
    done = run("--config", configure(tmp_path, tiny_model, clip), "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [first for first, _ in lines] == [
        "configuration", "state", "model", "camera", "rule", "capacity", "sink", "web", "would",
    ]  # fmt: skip
    assert re.search(
        r"capacity +1 camera asks for 10 frames per second, this machine processes about \d+ \(detection ", done.stdout
    )
    assert "tiny.onnx: 96x64, helmet, bare head; CPUExecutionProvider" in done.stdout
    assert "gate: ok, first frame 96x64: 1 helmet, 0 bare head above the alarm thresholds" in done.stdout
    assert "token required" in done.stdout
    assert not (tmp_path / "alerts.jsonl").exists() and not list((tmp_path / "state").iterdir())


def test_dry_run_warns_when_cameras_exceed_machine(
    tmp_path: Path,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model that takes 0.1 s per frame on one of two cores processes at most 8.5 frames per second; asked are 3 x 10."""
    detect = EdgeDetector.detect

    def slowly(self: EdgeDetector, images: Sequence[np.ndarray]) -> list[Detections]:
        time.sleep(0.1 * len(images))
        return detect(self, images)

    monkeypatch.setattr(EdgeDetector, "detect", slowly)
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 100)])
    cameras = {name: {"source": str(clip)} for name in ("gate", "yard", "door")}
    config = configure(tmp_path, tiny_model, clip, {"cameras": cameras})
    assert main(["--config", str(config), "--dry-run"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("capacity")]
    found = re.search(r"3 cameras ask for 30 frames per second, this machine processes about ([\d.]+) \(", line)
    assert found is not None and 1 < float(found[1]) <= 8.5, line
    assert "WARNING, too slow: set fps to at most " in line


def test_dry_run_at_rare_frames_names_who_is_not_reported(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], run_here: Callable[..., tuple[int, str, str]]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 5)])
    cameras = {"rare": {"source": str(clip), "fps": 0.2}, "gate": {"source": str(clip), "fps": 1}}
    _, text, _ = run_here("--config", configure(tmp_path, tiny_model, clip, {"cameras": cameras}), "--dry-run")
    assert "after 3 frames, 15 s: people who are in view for less than 10 s are not reported\n" in text
    assert "after 3 frames, 3 s\n" in text


def test_dry_run_counts_detections_above_alarm_threshold(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], run_here: Callable[..., tuple[int, str, str]]
) -> None:
    """A bare head with score 0.82: above the threshold of the general rule, below that of the yard."""
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 5)])
    cameras = {"gate": {"source": str(clip)}, "yard": {"source": str(clip), "rule": {"alarm_threshold": 0.95}}}
    _, text, _ = run_here("--config", configure(tmp_path, tiny_model, clip, {"cameras": cameras}), "--dry-run")
    assert "gate: ok, first frame 96x64: 0 helmet, 1 bare head above the alarm thresholds" in text
    assert "yard: ok, first frame 96x64: 0 helmet, 0 bare head above the alarm thresholds" in text


def test_dry_run_states_each_rule_in_words(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], run_here: Callable[..., tuple[int, str, str]]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 5)])
    zones = {"gate": [[0, 0], [1, 0], [1, 1]]}
    exceptions = {"2027-12-24": "off"}
    rules = {
        "shift": {"zones": ["gate"], "schedule": "Mon-Fri 06:00-18:00", "exceptions": exceptions, "severity": "critical"},
        "always": {"seconds": None, "frames": 2, "of": 3, "alarm_threshold": 0.01},
    }
    changes = {
        "cameras": {"gate": {"source": str(clip), "fps": 2, "zones": zones}},
        "site": {"time_zone": "Europe/Berlin"},
        "rules": rules,
    }
    _, text, _ = run_here("--config", configure(tmp_path, tiny_model, clip, changes), "--dry-run")
    lines = [line for line in text.splitlines() if line.startswith("rule")]
    assert lines == [
        "rule           gate/shift: bare head in zone gate, Mon-Fri 06:00-18:00 Europe/Berlin, on 2027-12-24 off, critical, "
        "reported after 4 frames, 2 s",
        "rule           gate/always: bare head anywhere, reported after 2 frames, 1 s; "
        "WARNING, alarm_threshold 0.01 counts as 0.05",
    ]


@pytest.mark.parametrize(
    ("fps", "rule", "says"),
    [
        (1, {}, "3 frames, 3 s"),
        (8, {}, "13 frames, 1.62 s"),
        (0.2, {}, "3 frames, 15 s"),
        (2, {"seconds": None}, "6 frames, 3 s"),
        (None, {}, "1.5 s, or 3 frames if they take longer"),
    ],
)
def test_describe_delay_states_seconds_at_configured_rate(fps: float | None, rule: dict[str, Any], says: str) -> None:
    assert describe_delay(SourceConfig(source=SecretStr("rtsp://host/x"), fps=fps), RuleConfig(**rule)) == says


def test_folder_of_images_without_fps_raises_alert(
    tmp_path: Path, tiny_model: Path, run_here: Callable[..., tuple[int, str, str]]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for n in range(5):
        cv2.imwrite(str(images / f"{n}.png"), np.full((64, 96, 3), RED[::-1], np.uint8))
    config = configure(tmp_path, tiny_model, images)
    assert "gate/default: bare head anywhere, reported after 3 frames, 3 s" in run_here("--config", config, "--dry-run")[1]
    assert run("--config", config).returncode == 0
    assert len(messages(tmp_path, "alert")) == 1


def test_dry_run_reports_camera_without_frame(tmp_path: Path, tiny_model: Path) -> None:
    config = configure(tmp_path, tiny_model, f"rtsp://admin:{PASSWORD}@127.0.0.1:9/x")
    done = run("--config", config, "--dry-run")
    assert done.returncode == 2
    assert "gate: FAILED, no frame within 10 s" in done.stdout and "would run: 0 of 1 cameras, 1 of 1 sinks" in done.stdout
    assert f"sink           jsonl: ok, {tmp_path}/alerts.jsonl is writable\n" in done.stdout


def test_dry_run_reports_unwritable_jsonl_file(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], run_here: Callable[..., tuple[int, str, str]]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 5)])
    path = tmp_path / "nofolder" / "a.jsonl"
    config = configure(tmp_path, tiny_model, clip, {"sinks": {"jsonl": {"path": str(path)}}})
    code, text, _ = run_here("--config", config, "--dry-run")
    line = f"jsonl: FAILED, sinks.jsonl.path: {path}: expected a writable file, got No such file or directory: "
    assert code == 2 and line in text and text.splitlines()[-1] == "would run: 1 of 1 cameras, 0 of 1 sinks"
    assert not path.parent.exists()


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_port_in_use_is_reported_before_anything_is_processed_or_sent(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], options: tuple[str, ...]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 5)])
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("--config", configure(tmp_path, tiny_model, clip, {"web": {"port": port}}), *options)
        words = f"web: cannot listen on 127.0.0.1:{port} (Address already in use): choose another web.port, or "
        words += "stop the process that listens there"
        assert done.returncode == 2, done.stdout
        if options:
            assert f"http://127.0.0.1:{port}: FAILED, {words}" in done.stdout
            assert done.stdout.splitlines()[-1] == "would not start: the web page cannot be served" and not done.stderr
        else:
            assert done.stderr == f"error: {words}\n"
    assert not (tmp_path / "alerts.jsonl").exists()
    assert not list((tmp_path / "state").rglob("*"))  # nothing is left for the next start
    assert run("--config", tmp_path / "edge.yaml", "--dry-run").returncode == 0  # the port is free again


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"path": "none.onnx"}}, "none.onnx: expected an ONNX model, got no such file"),
        ({"model": {"path": __file__}}, "expected an ONNX model that onnxruntime can run"),
        ({"cameras": {"gate": {"source": "none.mp4"}}}, "cameras.gate.source: .* got no such file: none.mp4"),
        ({"rule": {"violation_class": "glove"}}, "expected one of the model's classes helmet, none, got 'glove'"),
        ({"state_dir": "/proc/nothing"}, "/proc/nothing: expected a writable folder"),
        ({"sinks": {"iothub": {}}}, "sinks.iothub and twin: expected the environment variables that IoT Edge sets"),
        ({"web": {"host": "0.0.0.0"}}, "web: host 0.0.0.0 can be reached from other machines"),
    ],
)
def test_user_error_is_one_line_and_exit_code_2(
    tmp_path: Path,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    run_here: Callable[..., tuple[int, str, str]],
    options: tuple[str, ...],
    changes: Any,
    words: str,
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [(GREEN, 5)])
    code, _, errors = run_here("--config", configure(tmp_path, tiny_model, clip, changes), *options)
    [line] = errors.splitlines()
    assert code == 2 and line.startswith("error: ") and re.search(words, line)


def test_disk_that_is_read_only_at_start_is_no_user_error(
    tmp_path: Path, tiny_model: Path, run_here: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor starts the box again after exit code 1, and not after 2."""

    def touch(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", touch)
    code, _, errors = run_here("--config", configure(tmp_path, tiny_model, "rtsp://127.0.0.1:9/a"))
    assert (code, errors) == (1, f"error: {tmp_path / 'state'}: expected a writable folder, got Read-only file system\n")


def test_missing_configuration_is_user_error(tmp_path: Path) -> None:
    done = run("--config", tmp_path / "none.yaml")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}/none.yaml: expected a configuration, got no such file\n")
    assert run().returncode == 2


def test_sighup_reloads_and_sigterm_delivers_messages_and_stops(
    tmp_path: Path, tiny_model: Path, camera: str, start: Any
) -> None:
    config = configure(tmp_path, tiny_model, camera)
    box = start(config)
    box.wait_for("gate: alert: bare head")
    good = config.read_text()
    config.write_text(json.dumps({**json.loads(good), "batch": 0}))
    box.process.send_signal(signal.SIGHUP)
    box.wait_for(r"WARNING ppe_edge.control: reload: rejected, nothing has changed: \S+edge.yaml: batch: .* got 0\n")
    config.write_text(json.dumps({**json.loads(good), "rule": {"cooldown_s": 5}, "log_level": "ERROR"}))
    box.process.send_signal(signal.SIGHUP)
    box.wait_for(r"INFO ppe_edge.control: reload: applied \S+edge.yaml\n")
    box.wait_for("edge.yaml: restart the box to apply log_level\n")
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(30) == 0
    box.wait_for("stopped; the outbox holds 0 messages for its sinks")
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert kinds.count("alert") == kinds.count("alert_closed") == 1


def test_lost_camera_logs_warning_and_resumed_camera_info(tmp_path: Path, tiny_model: Path, start: Any) -> None:
    back = threading.Event()
    with MjpegServer(lambda number: noise(number) if number < 10 or back.is_set() else None) as camera:
        cameras = {"gate": {"source": camera.url, "read_timeout_s": 0.5}}
        box = start(configure(tmp_path, tiny_model, camera.url, {"cameras": cameras}))
        box.wait_for("INFO ppe_edge.runtime: gate: connected 64x48$")
        box.wait_for("WARNING ppe_edge.runtime: gate: lost .+")
        back.set()
        box.wait_for("INFO ppe_edge.runtime: gate: resumed 64x48$")


def ask_page(port: int, path: str, token: str = TOKEN) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_box_starts_on_full_disk_and_reports_it(tmp_path: Path, tiny_model: Path, camera: str, start: Any) -> None:
    """The jsonl file is on another disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    config = configure(tmp_path, tiny_model, camera, {"state_dir": str(disk / "state")})
    box = start(config, with_small_disk(disk, "1m", is_full=True))
    box.wait_for("CRITICAL .*the disk is full or broken: alerts are kept in memory only")
    port = int(box.wait_for(PORT))
    box.wait_for("gate: alert: bare head")
    status, text = ask_page(port, "/healthz", token="")
    assert status == 200 and text.startswith(b"ok\nthe disk is full")
    assert b"ppe_edge_outbox_durable 0.0" in ask_page(port, "/metrics")[1]
    assert json.loads(ask_page(port, "/api/state")[1])["trouble"].startswith("the disk is full")
    wait_until(lambda: (tmp_path / "alerts.jsonl").exists() and messages(tmp_path, "alert"), 60, what="an alert in the file")
    Path(f"/proc/{box.process.pid}/root{disk}/filler").unlink()
    wait_until(lambda: b"ppe_edge_outbox_durable 1.0" in ask_page(port, "/metrics")[1], 60, what="the outbox on disk")
    assert ask_page(port, "/healthz")[1] == b"ok\n"
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(30) == 0
    assert [m["alert"] for m in messages(tmp_path, "alert_closed")] == [m["id"] for m in messages(tmp_path, "alert")]


def messages(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The messages of a kind in the jsonl file, without copies."""
    lines = map(json.loads, (folder / "alerts.jsonl").read_text().splitlines())
    return list({m["id"]: m for m in lines if m["kind"] == kind}.values())


def test_kill_during_clip_loses_the_clip_alone_and_next_start_closes_alert_once(
    tmp_path: Path, tiny_model: Path, camera: str, start: Any
) -> None:
    config = configure(tmp_path, tiny_model, camera, {"clip": {"enabled": True, "after_s": 30}})
    first = start(config)
    first.wait_for("gate: alert: bare head")
    first.process.kill()
    first.process.wait(30)
    [snapshot] = (tmp_path / "state" / "snapshots").iterdir()
    snapshot.with_suffix(".mp4").write_bytes(b"as if it had been killed while it wrote the clip")
    for _ in range(2):  # the second process ends cleanly, and leaves nothing open for the third
        box = start(config)
        box.wait_for("gate: alert: bare head")
        box.process.send_signal(signal.SIGTERM)
        assert box.process.wait(30) == 0
    alerts, closed = messages(tmp_path, "alert"), messages(tmp_path, "alert_closed")
    assert [m["end"] for m in closed] == ["unknown", "stopped", "stopped"]
    assert [m["alert"] for m in closed] == [m["id"] for m in alerts] and len(alerts) == 3
    assert closed[0]["time"] == alerts[0]["time"] and closed[0]["duration_s"] == 0.0  # it was not seen again
    clips = {m["alert"]: m["clip"] for m in messages(tmp_path, "alert_clip")}
    assert list(clips) == [m["id"] for m in alerts[1:]] and snapshot.stem == alerts[0]["id"]
    videos = sorted((tmp_path / "state" / "snapshots").glob("*.mp4"))
    assert [(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in videos] == sorted(
        (clip["file"], clip["sha256"]) for clip in clips.values()
    )
    for video in videos:
        with av.open(str(video)) as container:
            assert len(list(container.decode(video=0))) > 0


def test_running_box_serves_page_to_many_slow_clients(tmp_path: Path, tiny_model: Path, camera: str, start: Any) -> None:
    box = start(configure(tmp_path, tiny_model, camera))
    port = int(box.wait_for(PORT))
    box.wait_for("gate: alert: bare head")

    def ask(path: str, token: str) -> tuple[int, bytes]:
        return ask_page(port, path, token)

    assert ask("/api/state", "wrong-wrong-wrong-wrong")[0] == 401
    assert ask("/healthz", "")[0] == ask("/readyz", "")[0] == 200
    status, body = ask("/api/state", TOKEN)
    assert status == 200 and json.loads(body)["cameras"][0]["state"] == "live"
    assert ask("/cameras/gate/live.jpg", TOKEN)[1][:2] == b"\xff\xd8"
    assert b'ppe_edge_stage_seconds_count{stage="detect"}' in ask("/metrics", TOKEN)[1]

    def frames() -> int:
        return int(json.loads(ask("/api/state", TOKEN)[1])["cameras"][0]["frames"])

    slow = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(200)]
    for client in slow:
        with contextlib.suppress(OSError):
            client.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nt")
    before = frames()
    wait_until(lambda: frames() >= before + 10, 60, what="ten more frames")  # the camera and the page continue
    for client in slow:
        client.close()
    for text in (body.decode(), ask("/metrics", TOKEN)[1].decode(), "".join(box.log)):
        assert TOKEN not in text and PASSWORD not in text


def test_signal_handler_does_not_deadlock_with_main_thread() -> None:
    """A handler that waits for a lock held by the main thread would never return."""
    program = """
import os, signal, threading
from ppe_edge.startup import handle_signals
lock, stopped = threading.Lock(), threading.Event()
def stop():
    with lock:
        stopped.set()
handle_signals(stop, lambda: None)
with lock:
    os.kill(os.getpid(), signal.SIGTERM)
print(stopped.wait(20))
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


def test_signal_stops_while_main_thread_cannot_be_interrupted() -> None:
    """As when the signal arrives just before the main thread waits: here the main thread blocks it, so another one gets it."""
    program = """
import os, signal, threading
from ppe_edge.startup import handle_signals
stopped = threading.Event()
handle_signals(stopped.set, lambda: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
threading.Timer(20, os._exit, [1]).start()
stopped.wait()
print("stopped", flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "stopped\n", done.stderr
