"""Runs the demo: a drawn site behind the address of a network camera, and the real box in front of it."""

import json
import os
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2

from ppe_edge.demo.site import DrawnSite
from ppe_edge.model.store import bundled_model
from ppe_edge.startup import handle_signals, prepare

FPS = 8
CONFIG = """\
# The configuration of `ppe-edge demo`. Your own looks the same, with the address of your camera.
model: {{path: {model}}}
state_dir: {state}
cameras:
  gate: {{source: {camera}, fps: {fps}}}
clip: {{enabled: true}}
sinks:
  jsonl: {{path: {alerts}}}
web: {{port: 0}}  # a free one
"""


def run() -> int:
    """Runs the demo until Ctrl-C; returns the exit code.

    Raises:
        EdgeError: The bundled model is missing, or no port can be bound.
    """
    model = bundled_model()
    with tempfile.TemporaryDirectory(prefix="ppe-edge-demo-") as name, _camera() as camera:
        folder = Path(name)
        config = folder / "edge.yaml"
        values = {"model": model, "state": folder / "state", "camera": camera, "alerts": folder / "alerts.jsonl"}
        quoted = {key: json.dumps(str(value)) for key, value in values.items()}
        config.write_text(CONFIG.format(**quoted, fps=FPS), encoding="utf-8")
        os.environ["no_proxy"] = "127.0.0.1"  # FFmpeg would ask a proxy for the camera
        application = prepare(config, None)
        handle_signals(application.runtime.request_stop, application.reload)
        print(f"page:   {application.page}", flush=True)
        print(f"files:  {folder} (edge.yaml, alerts.jsonl, state), deleted at the end", flush=True)
        print(
            "A visitor without a helmet comes in: an alert and its clip follow within 15 seconds. Ctrl-C ends the demo.",
            flush=True,
        )
        if application.page and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            # some browsers keep the caller waiting until they are closed
            threading.Thread(target=webbrowser.open, args=(application.page,), daemon=True).start()
        return application.run()


@contextmanager
def _camera() -> Iterator[str]:
    """Serves the drawn site on this machine, as network cameras do (Motion JPEG); yields its address."""
    site = DrawnSite()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            start = time.monotonic()
            try:
                while True:
                    image = cv2.cvtColor(site.frame(time.monotonic() - start), cv2.COLOR_RGB2BGR)
                    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    time.sleep(1 / FPS)
            except OSError:  # the box has disconnected
                return

        def log_message(self, format: str, *arguments: object) -> None:
            """Logs nothing: the address is no business of the user."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="drawn-camera", daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/site.mjpg"
        finally:
            server.shutdown()
