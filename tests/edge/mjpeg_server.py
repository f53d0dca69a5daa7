"""A real HTTP server that streams JPEGs as cameras do. The test chooses each frame."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

_FPS = 20
PASSWORD = "hunter2-geheim"


def noise(seed: int, height: int = 48, width: int = 64) -> bytes:
    """Returns a JPEG of noise, different for every seed."""
    return jpeg(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg(image: np.ndarray) -> bytes:
    """Encodes an image as JPEG."""
    return cv2.imencode(".jpg", image)[1].tobytes()


class MjpegServer:
    """Sends `frame(n)` as the n-th frame, `_FPS` times per second; nothing while it returns None."""

    def __init__(self, frame: Callable[[int], bytes | None]) -> None:
        self.frame, self.sent, self.connections = frame, 0, 0
        self._stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while not outer._stopping.wait(1 / _FPS):
                        body = outer.frame(outer.sent)
                        if body is not None:
                            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
                            self.wfile.write(head.encode() + body + b"\r\n")
                            outer.sent += 1
                except OSError:  # the reader disconnected
                    pass

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://admin:{PASSWORD}@127.0.0.1:{self._server.server_port}/video.mjpg?password={PASSWORD}"

    def __enter__(self) -> "MjpegServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
