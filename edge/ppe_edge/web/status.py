"""The state of a running box, for the web page and for remote control."""

import resource
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import assert_never

from ppe_edge.cameras.view_health import LABELS
from ppe_edge.compliance.periods import Row, Unit
from ppe_edge.delivery.messages import (
    Alert,
    AlertClip,
    AlertClosed,
    AlertVerdict,
    CameraEventMessage,
    ComplianceReport,
    Message,
    StorageEvent,
)
from ppe_edge.monitoring.telemetry import CameraFigures
from ppe_edge.pictures.snapshot import View, make_snapshot
from ppe_edge.rules.config import DEFAULT_SEVERITY
from ppe_edge.runtime import Runtime
from ppe_edge.web.state import BoxState, CameraState, MessageRow
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.version import __version__

ALERTS_SHOWN = 20


class RuntimeStatus:
    """Reads a `Runtime` from other threads. Costs nothing per frame: images are encoded when somebody asks for them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._latest: dict[str, tuple[View, bytes | None]] = {}  # camera -> the last image encoded, for all clients
        self._lock = threading.Lock()  # of `_latest`

    def alive(self) -> bool:
        """Whether frames are processed and alerts are stored."""
        return self._runtime.alive

    def ready(self) -> bool:
        """Whether a camera is live."""
        return self.alive() and any(figures.state == "live" for figures in self._runtime.camera_figures().values())

    def trouble(self) -> str:
        """A problem that needs attention, in one line; empty if there is none. Reveals nothing about the site."""
        return "; ".join(filter(None, (self._runtime.outbox.trouble, self._runtime.compliance.trouble)))

    def live(self, camera: str) -> bytes | None:
        """Returns the latest frame of a camera, annotated, as JPEG; None if there is none."""
        pipeline = self._runtime.pipelines.get(camera)
        view = None if pipeline is None else pipeline.view
        if view is None:
            return None
        with self._lock:  # one image at a time: viewers must not take the cores from the cameras
            known = self._latest.get(camera)
            if known is None or known[0] is not view:
                known = view, make_snapshot(view, self._runtime.settings.snapshot, view.alarmed)
                self._latest = {k: v for k, v in self._latest.items() if k in self._runtime.pipelines} | {camera: known}
            return known[1]

    def metrics(self) -> bytes:
        """Returns the metrics in the text format of Prometheus."""
        return self._runtime.telemetry.text()

    def state(self) -> BoxState:
        """Returns what the page shows."""
        runtime = self._runtime
        deployment = runtime.deployment
        reference, contract = deployment.model.reference, deployment.model.contract
        return {
            "trouble": self.trouble(),
            "uptime": time.monotonic() - runtime.started_at,
            "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,  # Linux counts in KiB
            "time": time.time(),
            "time_zone": runtime.settings.site.time_zone,
            "version": __version__,
            "model": {"name": reference.name, "sha256": reference.sha256, "provider": deployment.detector.provider},
            "cameras": [self._camera(name, figures) for name, figures in sorted(runtime.camera_figures().items())],
            "alerts": rows(runtime.outbox.recent(2 * ALERTS_SHOWN), contract),  # about half may be clips
            "sinks": [
                {"name": name, "waiting": figures.waiting, "set_aside": figures.set_aside, "error": figures.error}
                for name, figures in sorted(runtime.sink_figures().items())
            ],
        }

    def compliance(self, unit: Unit, days: int) -> tuple[datetime, list[Row]]:
        """Returns the compliance of the last days, and when its first period starts; may raise `sqlite3.Error`."""
        return self._runtime.compliance_archive().rows(unit, days, time.time())

    def shifts(self) -> list[str]:
        """Returns the names of the site's shifts."""
        return list(self._runtime.settings.site.shifts)

    def compliance_page(self, unit: Unit, days: int) -> str:
        """Returns the compliance of the last days as a page to print; raises `sqlite3.Error` if it cannot be read."""
        return self._runtime.compliance_archive().page(unit, days, time.time())

    def _camera(self, name: str, figures: CameraFigures) -> CameraState:
        pipeline = self._runtime.pipelines.get(name)
        view = None if pipeline is None else pipeline.view
        return {
            "name": name,
            "state": figures.state,
            "frames": figures.frames,
            "dropped": figures.dropped,
            "reconnects": figures.reconnects,
            "age": figures.age,
            "rate": figures.rate,
            "required_rate": figures.required_rate,
            "slow": figures.is_slow,
            "score_drift": figures.score_drift,
            "view_fault": None if figures.view_fault is None else LABELS[figures.view_fault],
            "number": view.frame.number if view else None,
            "violations": len(pipeline.open) if pipeline else 0,
        }


def rows(messages: Sequence[Message], contract: ModelContract) -> list[MessageRow]:
    """Returns the first messages that have a row, as rows of the page's table."""
    return list(islice(filter(None, (row(message, contract) for message in messages)), ALERTS_SHOWN))


def row(message: Message, contract: ModelContract) -> MessageRow | None:
    """Returns a message as a row of the page's table, classes by their display names; None for a clip, shown with its alert."""
    camera, zone, alert, score, duration = "box", None, None, None, None
    match message:
        case Alert():
            camera, zone, alert, score = message.camera, message.zone, message.id, message.score
            what = f"{_severity(message)}alert: {contract.display_name(message.class_name)}{_rule(message)}"
        case AlertClip():
            return None
        case AlertClosed():
            camera, zone, alert, duration = message.camera, message.zone, message.alert, message.duration_s
            what = f"{message.in_words()}: {contract.display_name(message.class_name)}{_rule(message)}"
        case AlertVerdict():
            camera, alert, what = message.camera, message.alert, f"{message.in_words(contract.display_name)}{_rule(message)}"
        case CameraEventMessage():
            camera, what = message.camera, _event(message)
        case StorageEvent():
            what = _event(message)
        case ComplianceReport():
            what = f"compliance report of the {f'shift {message.shift}' if message.shift else 'day'}"
        case _:
            assert_never(message)
    return {
        "time": message.time.timestamp(),
        "camera": camera,
        "zone": zone,
        "what": what,
        "alert": alert,
        "score": score,
        "duration": duration,
    }


def _event(message: CameraEventMessage | StorageEvent) -> str:
    name = message.event.replace("_", " ")
    return f"{name}: {message.detail}" if message.detail else name


def _rule(message: Alert | AlertClosed | AlertVerdict) -> str:
    return "" if message.rule is None else f" ({message.rule})"


def _severity(message: Alert) -> str:
    return "" if message.severity in (None, DEFAULT_SEVERITY) else f"{message.severity} "
