"""Kills, freezes and restarts cameras, hub, mail server, web receiver and box at random, then counts what was lost.

    python tests/edge/chaos.py --seconds 600 [--cameras 8] [--seed 0] [--clip clip.mp4 --model model.onnx] [--keep DIR]
    python tests/edge/chaos.py --seconds 600 --spare-box      # one process: measures its memory and descriptors

Everything is real: RTSP servers of GStreamer, mosquitto with TLS as the hub of IoT Edge (port 8883 must be free), a mail server
and a web server on loopback, and `python -m ppe_edge` in a process of its own, killed with -9. Every alert has a clip and an
e-mail with its snapshot, every clip an e-mail of its own. Without --clip and --model, the cameras show drawn frames, and a
model detects their colours, so that there are many alerts. These cameras differ: H.264, H.265 and motion JPEG, 5 to 25 frames
per second, of which the box processes 1 to all; one loses every tenth frame, one lies on its side, and one never answers.
Prints the measurements; exit code 1 if a promise was broken.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from broker import HUB_PORT, Broker, Hub
from conftest import GREEN, RED, write_clip, write_tiny_model
from helpers import child_environment, free_port, wait_until
from ppe_edge.delivery.sinks import notify
from receivers import ReceiverProcess
from rtsp_server import RtspServer, Show, start_rtsp_server
from video_server import VideoServer

BACK_WITHIN_S = 15.0  # from the moment that the server of a camera works again, or that the box was started
STOPPED_WITHIN_S = 5.0
SETTLED_S = 20.0  # memory and descriptors of a process are compared from this age on
SERVERS = 4
CLIP = {"enabled": True, "before_s": 2, "after_s": 2}
MARK = "Again: "  # of repeated mails
CLIP_WITHIN_S = 15.0  # a clip is lost if the box is killed so soon after its alert
RATES = (5, 2, None, 1)  # `fps` of the cameras, in turn
SIZE = (64, 96)


@dataclass
class BoxProcess:
    """One process of the box."""

    started: float
    rss_mb: list[tuple[float, float]] = field(default_factory=list)  # (age, megabytes)
    descriptors: list[tuple[float, int]] = field(default_factory=list)


@dataclass
class Result:
    """Counts and measurements."""

    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    stored: int = 0  # messages in the outbox, all kinds
    alerts: int = 0
    alerts_logged: int = 0  # by the box, after they were stored in the outbox
    received: int = 0  # by the hub, copies included
    marked_copies: int = 0
    lost: list[str] = field(default_factory=list)
    lost_from_file: list[str] = field(default_factory=list)
    lost_from_web: list[str] = field(default_factory=list)
    unmarked_duplicates: list[str] = field(default_factory=list)
    clips: int = 0
    without_clip: list[str] = field(default_factory=list)  # alerts, see `Chaos.without_clip`
    clips_logged_missing: int = 0  # by the box
    mails: int = 0  # copies included
    marked_mails: int = 0
    without_mail: list[str] = field(default_factory=list)  # alerts and clips of which no mail arrived
    without_attachment: list[str] = field(default_factory=list)  # alerts whose mails have no snapshot, though there is one
    unmarked_mails: list[str] = field(default_factory=list)  # mails that arrived again without a mark
    not_closed_once: list[str] = field(default_factory=list)  # alerts that got no closing message, or more than one
    ends: dict[str, int] = field(default_factory=dict)  # how violations ended, according to the closing messages
    back_after_s: list[float] = field(default_factory=list)
    not_back: list[str] = field(default_factory=list)  # cameras that needed more than BACK_WITHIN_S
    rss_growth_mb: float = 0.0  # growth of the peak in the second half of any process, after it had settled
    rss_most_mb: float = 0.0
    rss_by_minute_mb: list[int] = field(default_factory=list)  # at the end of each minute of the longest process
    without_frames: list[str] = field(default_factory=list)  # cameras of which no frame was ever processed
    turned: list[list[int]] = field(default_factory=list)  # frame sizes in alerts of the camera that lies on its side
    descriptor_growth: int = 0
    descriptors_most: int = 0
    stop_s: float = 0.0
    exit_code: int | None = None
    died: list[int] = field(default_factory=list)  # exit codes of unrequested exits

    def broken_promises(self) -> list[str]:
        """Returns the broken promises. Ignores memory and descriptors, because a short run says little about them."""
        checks = {
            f"{len(self.lost)} messages did not reach the hub": self.lost,
            f"{len(self.lost_from_file)} messages did not reach the file": self.lost_from_file,
            f"{len(self.lost_from_web)} messages did not reach the web receiver": self.lost_from_web,
            f"{len(self.without_clip)} alerts have no clip, and the log does not name them": self.without_clip,
            f"{len(self.without_mail)} alerts or clips were not mailed": self.without_mail,
            f"{len(self.without_attachment)} mails have no snapshot": self.without_attachment,
            f"{len(self.unmarked_mails)} mails arrived again without a mark": self.unmarked_mails,
            f"{len(self.unmarked_duplicates)} messages were sent twice without a mark": self.unmarked_duplicates,
            f"{len(self.not_closed_once)} alerts were not closed exactly once": self.not_closed_once,
            f"more alerts in the log ({self.alerts_logged}) than in the outbox ({self.alerts})": self.alerts_logged
            > self.alerts,
            f"not back within {BACK_WITHIN_S:g} s: {self.not_back}": self.not_back,
            f"the box exited without a request: {self.died}": self.died,
            f"stopping took {self.stop_s:.1f} s, exit code {self.exit_code}": self.stop_s > STOPPED_WITHIN_S
            or self.exit_code != 0,
            "no alerts at all": self.alerts == 0,
            f"no frames of {self.without_frames}": self.without_frames,
            f"frames were not turned upright: {self.turned}": any(tuple(size) != SIZE for size in self.turned),
        }
        return [text for text, broken in checks.items() if broken]


class Chaos:
    """A site with cameras, hub and box.

    Args:
        folder: For all files.
        cameras: Number of cameras.
        seed: Of the random faults.
        clip: What the cameras show; None draws one.
        model: An ONNX file; None uses one that detects the colours of the drawn clip.
        spare_box: Whether the box is never killed.
    """

    def __init__(
        self,
        folder: Path,
        cameras: int,
        seed: int,
        clip: Path | None = None,
        model: Path | None = None,
        spare_box: bool = False,
    ) -> None:
        self.folder, self.random, self.result, self.spare_box = folder, random.Random(seed), Result(), spare_box
        self.model = model or write_tiny_model(folder / "tiny.onnx")
        count = min(SERVERS, cameras)
        shows = self._draw() if clip is None else [Show(str(clip))]
        # each server has cameras of different kinds
        turns = [shows[(n + n // count) % len(shows)] for n in range(cameras)]
        self.servers: list[RtspServer] = [start_rtsp_server(turns, cameras) for _ in range(count)]
        self.cameras = {f"cam{n}": self.servers[n % count] for n in range(cameras)}
        self.turned = VideoServer(folder / "turned.mp4", 90) if clip is None else None
        self.most_frames: Counter[str] = Counter()
        self.broker = Broker(folder / "broker", HUB_PORT)
        self.hub = Hub(self.broker)
        self.mail = ReceiverProcess("mail", folder / "mails.jsonl")
        self.web = ReceiverProcess("web", folder / "posts.jsonl")
        self.receivers = {"broker": self.broker, "mail server": self.mail, "web receiver": self.web}
        self.port = free_port()
        self.log = (folder / "ppe_edge.log").open("ab")
        self.processes: list[BoxProcess] = []
        self.kills: list[float] = []  # epoch seconds
        self.waiting: dict[str, tuple[float, float]] = {}  # camera -> (when it could be back, its frames then)
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.counts: Counter[str] = Counter()
        self._configure(drawn=clip is None)
        self.start_box()

    def _draw(self) -> list[Show]:
        """Draws what the cameras show: 2 s with a bare head, 2 s with a helmet, and so on."""

        def clip(name: str, fps: int, codec: str = "libx264", size: tuple[int, int] = SIZE) -> str:
            scenes = [(RED, 2 * fps), (GREEN, 2 * fps)] * 5
            # a camera that loses a key frame is blind until the next one
            return str(write_clip(self.folder / name, scenes, fps=fps, size=size, codec=codec, key_frames=4 * fps))

        clip("turned.mp4", 10, size=(SIZE[1], SIZE[0]))
        return [
            Show(clip("h264.mp4", 10)),
            Show(clip("h265.mp4", 25, "libx265"), "h265"),
            Show(clip("mjpeg.mp4", 5, "mjpeg"), "mjpeg"),
            Show(clip("lossy.mp4", 10), loss=0.1),
        ]

    def _configure(self, drawn: bool) -> None:
        rule = {"frames": 2, "of": 3, "cooldown_s": 0.5} if drawn else {"cooldown_s": 2}
        cameras: dict[str, dict[str, object]] = {
            name: {"source": server.url(n), "fps": RATES[n % len(RATES)] if drawn else 5}
            for n, (name, server) in enumerate(self.cameras.items())
        }
        if self.turned is not None:
            cameras |= {"turned": {"source": self.turned.url, "fps": 5}, "dead": {"source": "rtsp://127.0.0.1:9/none"}}
        document = {
            "model": {"path": str(self.model), "threads": 1},
            "state_dir": str(self.folder / "state"),
            "cameras": cameras,
            "rule": rule,
            "outbox": {"keep_delivered": 1_000_000},
            "sinks": {
                "iothub": {"timeout_s": 5},
                "jsonl": {"path": str(self.folder / "alerts.jsonl"), "max_mb": 1000},
                "webhook": {"url": f"http://127.0.0.1:{self.web.port}/", "timeout_s": 5, "attach_snapshot": True},
                "notify": {"body": "{alert}", "repeated": MARK, "min_interval_s": 0},
            },
            "clip": CLIP,
            "twin": {"enabled": True},
            "web": {"port": self.port},
        }
        (self.folder / "edge.yaml").write_text(json.dumps(document))  # JSON is valid YAML

    def start_box(self) -> None:
        address = f"mailto://127.0.0.1:{self.mail.port}?smtp=127.0.0.1&from=box@example.org&to=safety@example.org&mode=insecure"
        urls = {notify.URLS_VARIABLE: address}
        environment = child_environment(**self.broker.hub_environment(), **urls, OMP_NUM_THREADS="1")
        command = [sys.executable, "-m", "ppe_edge", "--config", str(self.folder / "edge.yaml")]
        self.box = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        self.processes.append(BoxProcess(time.monotonic()))
        for name in self.cameras:
            self._expect_back(name)

    def _expect_back(self, camera: str) -> None:
        self.waiting[camera] = (time.monotonic(), -1.0)

    # --- the faults

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self.due.append((time.monotonic() + seconds, action))

    def _between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def disturb_server(self, server: RtspServer) -> None:
        def recover() -> None:
            if frozen:
                server.send(signal.SIGCONT)
            else:
                server.start()
            for name, its in self.cameras.items():
                if its is server:
                    self._expect_back(name)
            self._later(self._between(16, 40), lambda: self.disturb_server(server))

        frozen = self.random.random() < 0.5
        self.counts["server frozen" if frozen else "server killed"] += 1
        if frozen:
            server.send(signal.SIGSTOP)
        else:
            server.kill()
        for name, its in self.cameras.items():
            if its is server:
                self.waiting.pop(name, None)
        self._later(self._between(1, 15), recover)

    def disturb_receiver(self, name: str) -> None:
        receiver = self.receivers[name]

        def recover() -> None:
            if frozen:
                receiver.thaw()
            else:
                receiver.start()
            self._later(self._between(6, 25), lambda: self.disturb_receiver(name))

        frozen = self.random.random() < 0.5
        self.counts[f"{name} {'frozen' if frozen else 'killed'}"] += 1
        if frozen:
            receiver.freeze()
        else:
            receiver.kill()
        self._later(self._between(1, 15), recover)

    def disturb_box(self) -> None:
        self.counts["box killed"] += 1
        self.kills.append(time.time())
        self.box.kill()
        self.box.wait()
        self._later(self._between(0, 2), self.start_box)
        self._later(self._between(15, 90), self.disturb_box)
        self.waiting.clear()

    # --- watching

    def frames(self) -> dict[str, float]:
        """Returns the number of processed frames per camera; empty if the box does not respond."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        found = re.findall(r'^ppe_edge_frames_processed_total\{camera="(\w+)"\} (\S+)$', text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def watch(self) -> None:
        now = time.monotonic()
        frames = self.frames()
        for name, value in frames.items():
            self.most_frames[name] = max(self.most_frames[name], int(value))
        for name, (since, before) in list(self.waiting.items()):
            if before < 0:
                self.waiting[name] = (since, frames.get(name, 0.0))
            elif frames.get(name, 0.0) > before + 1:  # one may have been in progress
                self.result.back_after_s.append(now - since)
                if now - since > BACK_WITHIN_S:
                    self.result.not_back.append(f"{name} after {now - since:.1f} s")
                del self.waiting[name]
            elif now - since > 3 * BACK_WITHIN_S:
                self.result.not_back.append(f"{name} not after {now - since:.1f} s")
                del self.waiting[name]
        if self.box.poll() is None:
            process = self.processes[-1]
            try:
                pages = int(Path(f"/proc/{self.box.pid}/statm").read_text().split()[1])
                count = len(list(Path(f"/proc/{self.box.pid}/fd").iterdir()))
            except OSError:
                return
            process.rss_mb.append((now - process.started, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
            process.descriptors.append((now - process.started, count))
        elif self.box.returncode != -signal.SIGKILL:
            self.result.died.append(self.box.returncode)
            self.start_box()

    def run(self, seconds: float) -> Result:
        """Disturbs the site for this long, waits until everything is delivered, and counts."""
        wait_until(lambda: self.cameras.keys() <= self.frames().keys(), 60, "the first answer of the box")
        for server in self.servers:
            self._later(self._between(3, 20), lambda server=server: self.disturb_server(server))  # type: ignore[misc]
        for name in self.receivers:
            self._later(self._between(3, 10), lambda name=name: self.disturb_receiver(name))  # type: ignore[misc]
        if not self.spare_box:
            self._later(self._between(10, 25), self.disturb_box)
        end = time.monotonic() + seconds
        started = time.monotonic()
        while time.monotonic() < end:
            self._step()
        self._settle()
        self.result.seconds = time.monotonic() - started
        self._count()
        return self.result

    def _step(self) -> None:
        now = time.monotonic()
        ready = [action for when, action in self.due if when <= now]
        self.due = [(when, action) for when, action in self.due if when > now]
        for action in ready:
            action()
        self.watch()
        time.sleep(0.25)

    def _settle(self) -> None:
        self.due.clear()
        for receiver in self.receivers.values():
            if receiver.alive:
                receiver.thaw()
            else:
                receiver.start()
        for server in self.servers:
            if server.process is not None:
                server.send(signal.SIGCONT)
            else:
                server.start()
        if self.box.poll() is not None:
            self.start_box()
        for name in self.cameras:
            self.waiting.setdefault(name, (time.monotonic(), -1.0))
        end = time.monotonic() + 3 * BACK_WITHIN_S + 5
        while self.waiting and time.monotonic() < end:
            self._step()
        for server in self.servers:  # no new alerts, so that the outbox can empty
            server.kill()
        if self.turned is not None:
            self.turned.close()
        with contextlib.suppress(TimeoutError):  # a clip that does not come is a broken promise, see `_count`
            wait_until(lambda: not self.without_clip(), CLIP_WITHIN_S, "the last clips", every_s=0.25)
        wait_until(lambda: not self.undelivered(), 300, "delivery of everything")  # mails take long on a busy machine
        started = time.monotonic()
        self.box.send_signal(signal.SIGTERM)
        self.result.exit_code = self.box.wait(30)
        self.result.stop_s = time.monotonic() - started

    def undelivered(self) -> int:
        """Returns the number of deliveries that wait in the outbox."""
        return int(self._select("SELECT count(*) FROM deliveries")[0])

    def without_clip(self) -> list[str]:
        """Returns alerts without a clip, unless the log says why, or the box was killed while it made the clip."""
        bodies = [json.loads(body) for body in self._select("SELECT body FROM messages")]
        with_clip = {body["alert"] for body in bodies if body["kind"] == "alert_clip" and body["clip"] is not None}
        raised = {body["id"]: datetime.fromisoformat(body["time"]).timestamp() for body in bodies if body["kind"] == "alert"}
        return [
            alert
            for alert in raised.keys() - with_clip - self._logged_without_clip()
            if not any(0 <= kill - raised[alert] < CLIP_WITHIN_S for kill in self.kills)
        ]

    def _logged_without_clip(self) -> set[str]:
        log = (self.folder / "ppe_edge.log").read_text(errors="replace")
        return set(re.findall(r": alert (\S+) has no clip: ", log))

    def _select(self, query: str) -> list[Any]:
        """Returns the first column of the rows that a query finds in the outbox."""
        with sqlite3.connect(f"file:{self.folder}/state/outbox.db?mode=ro", uri=True) as database:
            return [row[0] for row in database.execute(query)]

    def _count(self) -> None:
        result = self.result
        bodies = [json.loads(body) for body in self._select("SELECT body FROM messages")]
        late = set(self._select("SELECT id FROM messages JOIN deliveries USING (sequence)"))
        ids = {body["id"] for body in bodies} - late  # stored while stopping, and kept for the next start
        lines = [json.loads(line) for line in (self.folder / "alerts.jsonl").read_text().splitlines()]
        time.sleep(1.5)  # the last messages to the hub may be in flight
        received = [body for _, body in list(self.hub.telemetry)]
        unmarked = Counter(body["id"] for body in received if not body["redelivered"])
        result.faults = dict(self.counts)
        result.stored, result.received = len(bodies), len(received)
        alerts = [body["id"] for body in bodies if body["kind"] == "alert"]
        closings = [body for body in bodies if body["kind"] == "alert_closed"]
        closed = Counter(body["alert"] for body in closings)
        result.alerts = len(alerts)
        extra = ["turned"] if self.turned is not None else []
        result.without_frames = [name for name in (*self.cameras, *extra) if not self.most_frames[name]]
        result.turned = [b["frame_size"] for b in bodies if b["kind"] == "alert" and b["camera"] == "turned"]
        result.not_closed_once = sorted(key for key in {*alerts, *closed} if closed[key] != 1 or key not in alerts)
        result.ends = dict(Counter(body["end"] for body in closings))
        result.alerts_logged = (self.folder / "ppe_edge.log").read_text(errors="replace").count(": alert: ")
        result.marked_copies = sum(body["redelivered"] for body in received)
        result.lost = sorted(ids - {body["id"] for body in received})
        result.lost_from_file = sorted(ids - {body["id"] for body in lines})
        result.unmarked_duplicates = sorted(key for key, count in unmarked.items() if count > 1)
        posts = self.web.received()
        result.lost_from_web = sorted(ids - {post["id"] for post in posts})
        unmarked = Counter(post["id"] for post in posts if not post["redelivered"])
        result.unmarked_duplicates += sorted(key for key, count in unmarked.items() if count > 1)
        self._count_clips_and_mails([body for body in bodies if body["id"] in ids])
        for process in self.processes:
            rss = [value for age, value in process.rss_mb if age > SETTLED_S]
            descriptors = [float(value) for age, value in process.descriptors if age > SETTLED_S]
            result.rss_most_mb = max([result.rss_most_mb, *rss])
            result.descriptors_most = int(max([result.descriptors_most, *descriptors]))
            result.rss_growth_mb = max(result.rss_growth_mb, _growth(rss))
            result.descriptor_growth = max(result.descriptor_growth, int(_growth(descriptors)))
        longest = max(self.processes, key=lambda process: len(process.rss_mb))
        by_minute = {int(age // 60): round(value) for age, value in longest.rss_mb}  # the last value of each minute
        result.rss_by_minute_mb = list(by_minute.values())

    def _count_clips_and_mails(self, bodies: list[dict[str, Any]]) -> None:
        """Compares the alerts with their clips and e-mails; those that the box has just stored while it stops are left out."""
        result = self.result
        alerts = {body["id"]: body for body in bodies if body["kind"] == "alert"}
        clips = {body["alert"] for body in bodies if body["kind"] == "alert_clip" and body["clip"] is not None}
        result.without_clip = [alert for alert in self.without_clip() if alert in alerts]
        result.clips, result.clips_logged_missing = len(clips), len(self._logged_without_clip())
        mails = self.mail.received()
        result.mails = len(mails)
        unmarked: Counter[tuple[str, bool]] = Counter()
        attached: defaultdict[tuple[str, bool], set[str]] = defaultdict(set)  # (alert, whether it is the mail of its clip)
        for mail in mails:
            key = mail["text"], "video/mp4" in mail["attached"]
            unmarked[key] += not mail["subject"].startswith(MARK)
            attached[key].update(mail["attached"])
        result.marked_mails = len(mails) - unmarked.total()
        wanted = {(alert, False) for alert in alerts} | {(alert, True) for alert in clips}
        result.without_mail = sorted(f"{alert}{' clip' if is_clip else ''}" for alert, is_clip in wanted - attached.keys())
        result.without_attachment = sorted(
            alert for alert, body in alerts.items() if body["snapshot"] and attached.get((alert, False)) == set()
        )
        result.unmarked_mails = sorted(alert for (alert, _), count in unmarked.items() if count > 1)

    def close(self) -> None:
        """Stops everything."""
        if self.box.poll() is None:
            self.box.kill()
            self.box.wait()
        self.hub.__exit__()
        self.broker.__exit__()
        self.mail.kill()
        self.web.kill()
        for server in self.servers:
            server.kill()
        if self.turned is not None:
            self.turned.close()
        self.log.close()


def _growth(samples: list[float]) -> float:
    """Returns how much higher the peak of the second half is; peaks, because cameras reconnect all the time."""
    half = len(samples) // 2
    return max(samples[half:]) - max(samples[:half]) if half >= 40 else 0.0


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clip", type=Path, help="an MP4 with H.264")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--spare-box", action="store_true", help="never kill the box itself")
    parser.add_argument("--keep", type=Path, help="folder for logs, outbox and messages; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        chaos = Chaos(folder, options.cameras, options.seed, options.clip, options.model, options.spare_box)
        try:
            result = chaos.run(options.seconds)
        finally:
            chaos.close()
    for name, value in dataclasses.asdict(result).items():
        if name == "turned":
            value = f"{len(value)} alerts"
        if name == "back_after_s":
            value = f"{len(value)} times, at most {max(value, default=0.0):.1f}"
        print(f"{name:20} {round(value, 1) if isinstance(value, float) else value}")
    broken = result.broken_promises()
    print("\n".join(f"BROKEN: {text}" for text in broken) or "every promise was kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
