"""A real RTSP server (GStreamer) with any number of cameras that show a clip.

`start_rtsp_server(clip, 8)` starts it as a process of its own, which can be killed and frozen. The clip is an MP4 file with
H.264, or one `Show` per camera; the streams end with it, so `repeat` it for long tests. As a program it needs these Debian
packages: gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-{base,good,bad} and python3-gi.
"""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from helpers import free_port

PYTHON = "/usr/bin/python3"  # Debian's Python, which has python3-gi
_CHECK = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; Gst.init(None); "
    + ("assert all(Gst.ElementFactory.find(e) for e in ('qtdemux', 'h264parse', 'rtph264pay'))")
)
_PAYLOADS = {
    "h264": ("h264parse config-interval=-1", "rtph264pay name=pay0 pt=96"),
    "h265": ("h265parse config-interval=-1", "rtph265pay name=pay0 pt=96"),
    "mjpeg": ("jpegparse", "rtpjpegpay name=pay0 pt=26"),
}


@dataclasses.dataclass(frozen=True)
class Show:
    """What a camera shows.

    Attributes:
        clip: An MP4 file.
        codec: Its codec.
        loss: Share of its frames that never arrive.
        tracks: Number of its video tracks, which are equal.
    """

    clip: str
    codec: Literal["h264", "h265", "mjpeg"] = "h264"
    loss: float = 0.0
    tracks: int = 1


def repeat(video: Path, out: Path, times: int) -> Path:
    """Writes an MP4 file that repeats the H.264 stream of a video, without encoding it again."""
    import av

    with av.open(str(video)) as source:
        template = source.streams.video[0]
        packets = [(p.pts, p.dts, bytes(p), p.is_keyframe) for p in source.demux(template) if p.dts is not None]
        length = max(p[1] for p in packets) - packets[0][1] + (packets[1][1] - packets[0][1])
        with av.open(str(out), "w", format="mp4") as target:
            stream = target.add_stream_from_template(template)
            for i in range(times):
                for pts, dts, data, is_key in packets:
                    packet = av.Packet(data)
                    packet.pts, packet.dts, packet.is_keyframe = pts + i * length, dts + i * length, is_key
                    packet.time_base, packet.stream = template.time_base, stream
                    target.mux(packet)
    return out


@functools.cache
def missing() -> str | None:
    """Returns why no server can run here; None if one can."""
    if not Path(PYTHON).exists():
        return f"{PYTHON} is missing"
    check = subprocess.run([PYTHON, "-c", _CHECK], capture_output=True, text=True)
    return (
        None
        if check.returncode == 0
        else "GStreamer's RTSP server is missing (gir1.2-gst-rtsp-server-1.0, plugins, python3-gi)"
    )


class RtspServer:
    """The server process. `url(i)` is the address of camera i. With a password, the user `admin` logs in by digest."""

    def __init__(self, clip: Path | Sequence[Show], cameras: int, port: int | None = None, password: str = "") -> None:
        self.password = password
        self.shows = [Show(str(clip))] * cameras if isinstance(clip, Path) else list(clip)[:cameras]
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 30.0) -> "RtspServer":
        """Starts the process; returns when it accepts connections."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        shows = json.dumps([dataclasses.asdict(show) for show in self.shows])
        command = [PYTHON, __file__, shows, str(self.port), self.password]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + timeout
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                    return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the RTSP server did not start ({self.process.poll()})") from None
                time.sleep(0.05)

    def url(self, camera: int) -> str:
        """Returns the address of a camera, counted from 0."""
        return f"rtsp://127.0.0.1:{self.port}/cam{camera}"

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process: SIGKILL, SIGSTOP, SIGCONT."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kills the process, as a power cut would."""
        if self.process is not None:
            self.send(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def __enter__(self) -> "RtspServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def start_rtsp_server(clip: Path | Sequence[Show], cameras: int, port: int | None = None, password: str = "") -> RtspServer:
    """Starts a server and waits until it accepts connections."""
    return RtspServer(clip, cameras, port, password).start()


@contextlib.contextmanager
def answering(status: str) -> Iterator[int]:
    """Answers every DESCRIBE with a status and headers, such as "302 Found\r\nLocation: rtsp://host/a"; yields the port."""

    def serve_client(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, client.makefile("rb") as stream:
            while lines := [line.decode() for line in iter(lambda: stream.readline().strip(), b"")]:
                number = next(line for line in lines if line.lower().startswith("cseq"))
                answer = status if lines[0].startswith("DESCRIBE") else "200 OK"
                code, _, headers = answer.partition("\r\n")
                client.sendall(f"RTSP/1.0 {code}\r\n{number}\r\n{headers}\r\n\r\n".replace("\r\n" * 3, "\r\n" * 2).encode())

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve_client, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


def serve(shows: Sequence[Show], port: int, password: str) -> None:
    """Runs the server in this process."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    gi.require_version("GstRtsp", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(port))
    permissions = GstRtspServer.RTSPPermissions()
    for permission in ("access", "construct"):
        permissions.add_permission_for_role("user", f"media.factory.{permission}", True)
    if password:
        authority, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        authority.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        authority.add_digest("admin", password, token)
        server.set_auth(authority)
    for i, show in enumerate(shows):
        factory = GstRtspServer.RTSPMediaFactory()
        parser, payload = _PAYLOADS[show.codec]
        loss = f"! identity drop-probability={show.loss}" if show.loss else ""
        source = f'multifilesrc location="{show.clip}" loop=true caps="video/quicktime" ! qtdemux ! {parser} {loss} ! {payload}'
        factory.set_launch(f"( {' '.join(source.replace('pay0', f'pay{track}') for track in range(show.tracks))} )")
        factory.set_permissions(permissions)
        factory.set_shared(True)
        server.get_mount_points().add_factory(f"/cam{i}", factory)
    server.attach(None)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve([Show(**show) for show in json.loads(sys.argv[1])], int(sys.argv[2]), sys.argv[3])
