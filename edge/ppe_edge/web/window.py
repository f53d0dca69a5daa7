"""What a running box shows of itself: for the web page and for remote control."""

import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ppe_edge.pictures.snapshot import View, make_snapshot
from ppe_edge.runtime import ALERTS_SHOWN, BEAT, Runtime


class RuntimeWindow:
    """Looks at a `Runtime` from other threads, and costs a frame nothing: pictures are made when somebody asks."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pictures: dict[
            str, tuple[View, bytes | None]
        ] = {}  # camera -> the last picture that was made, for everybody who asks
        self._lock = threading.Lock()

    def alive(self) -> bool:
        """See `ppe_edge.web.server.Window`."""
        return not self._runtime.stopping and time.monotonic() - self._runtime.beat < BEAT

    def ready(self) -> bool:
        """See `ppe_edge.web.server.Window`."""
        return self.alive() and any(f.state == "live" for f in self._runtime.camera_figures().values())

    def trouble(self) -> str:
        """See `ppe_edge.web.server.Window`."""
        return self._runtime.outbox.trouble

    def live(self, camera: str) -> bytes | None:
        """See `ppe_edge.web.server.Window`."""
        pipeline = self._runtime.pipelines.get(camera)
        view = None if pipeline is None else pipeline.view
        if view is None:
            return None
        with self._lock:  # one at a time: who looks must not take the cores from the cameras
            known = self._pictures.get(camera)
            if known is None or known[0] is not view:
                config = self._runtime.settings.snapshot
                known = view, make_snapshot(view, config, view.alarmed)
                self._pictures = {k: v for k, v in self._pictures.items() if k in self._runtime.pipelines} | {camera: known}
            return known[1]

    def metrics(self) -> bytes:
        """See `ppe_edge.web.server.Window`."""
        return self._runtime.telemetry.text()

    def state(self) -> dict[str, Any]:
        """See `ppe_edge.web.server.Window`."""
        runtime = self._runtime
        reference = runtime.model.reference
        return {
            "trouble": self.trouble(),
            "uptime": time.monotonic() - runtime.started_at,
            "model": {"name": reference.name, "sha256": reference.sha256, "provider": runtime.detector.provider},
            "cameras": [self._camera(name) for name in sorted(runtime.camera_figures())],
            "alerts": [row(message) for message in runtime.outbox.recent(ALERTS_SHOWN)],
            "sinks": [{"name": k, "waiting": v} for k, v in sorted(runtime.outbox.stats().pending.items())],
        }

    def _camera(self, name: str) -> dict[str, Any]:
        figures = self._runtime.camera_figures().get(name)
        pipeline = self._runtime.pipelines.get(name)
        view = None if pipeline is None else pipeline.view
        return {
            "name": name,
            "state": figures.state if figures else "lost",
            "frames": figures.frames if figures else 0,
            "dropped": figures.dropped if figures else 0,
            "reconnects": figures.reconnects if figures else 0,
            "age": figures.age if figures else None,
            "number": view.frame.number if view else None,
            "violations": len(pipeline.open) if pipeline else 0,
        }


def row(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the page's table shows it."""
    kind = message["kind"]
    ended = "ended" if message.get("end", "seen") == "seen" else "end not seen"
    what = {"alert": f"alert: {message.get('class')}", "alert_closed": f"{ended}: {message.get('class')}"}.get(kind)
    return {
        "time": datetime.fromisoformat(message["time"]).timestamp(),
        "camera": message.get("camera", "box"),
        "zone": message.get("zone"),
        "what": what or f"{message.get('event', kind)} {message.get('detail', '')}".strip(),
        "score": message.get("score"),
        "duration": message.get("duration_s"),
    }
