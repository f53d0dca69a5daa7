"""A real HTTP server that streams JPEGs as cameras do. The test chooses each frame."""

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import cv2
import numpy as np
from helpers import serving

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

        self._handler, self._stack = Handler, contextlib.ExitStack()

    def __enter__(self) -> "MjpegServer":
        address = self._stack.enter_context(serving(self._handler))
        self.url = f"http://admin:{PASSWORD}@{address}/video.mjpg?password={PASSWORD}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._stack.close()
