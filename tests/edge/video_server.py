"""A real HTTP server that sends a video as fragmented MP4, in real time and again and again, with its rotation mark."""

import itertools
import threading
import time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av


class VideoServer:
    """Sends the video to every client from its beginning. `url` is its address.

    Args:
        video: A video without B-frames.
        rotation: Degrees by which players turn it, counter-clockwise.
    """

    def __init__(self, video: Path, rotation: int) -> None:
        self._stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp4")
                self.end_headers()
                try:
                    outer._send(video, rotation, self.wfile)
                except (OSError, av.error.FFmpegError):  # the reader disconnected
                    self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/video.mp4"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _send(self, video: Path, rotation: int, out: Any) -> None:
        with av.open(str(video)) as source:
            template = source.streams.video[0]
            rate = Fraction(template.average_rate or 10)
            packets = [(bytes(p), p.is_keyframe) for p in source.demux(template) if p.dts is not None]
            options = {"movflags": "frag_every_frame+empty_moov+default_base_moof", "flush_packets": "1"}
            with av.open(_Pipe(out), "w", format="mp4", options=options) as target:  # type: ignore[arg-type]
                stream = target.add_stream_from_template(template)
                stream.set_display_rotation(rotation)
                begin = time.monotonic()
                for number, (data, is_key) in enumerate(itertools.cycle(packets)):
                    packet = av.Packet(data)
                    packet.time_base, packet.stream, packet.is_keyframe = 1 / rate, stream, is_key
                    packet.pts = packet.dts = number
                    target.mux(packet)
                    if self._stopping.wait(max(0.0, begin + float(number / rate) - time.monotonic())):
                        return

    def close(self) -> None:
        """Ends all connections."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()


class _Pipe:
    """What libav needs of a file that cannot be rewound."""

    def __init__(self, out: Any) -> None:
        self.write = out.write
