"""Watches one camera: whether it works, whether enough of its frames are processed, and whether its scores drift."""

import time
from collections.abc import Mapping

from ppe_edge.cameras.attention import AttentionWatch
from ppe_edge.cameras.camera import CameraEvent, CameraReader, EventKind
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.cameras.rate import LagWatch, RateMeter, RateWatch
from ppe_edge.cameras.sources import Kind
from ppe_edge.cameras.view_health import LABELS, ViewFault, ViewWatch
from ppe_edge.deployment import Deployment
from ppe_edge.model.drift import DriftMeter
from ppe_edge.monitoring.telemetry import CameraFigures
from ppe_edge.rules.votes import frames_to_decide, required_rate
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.words import duration, plural

EVENT_OF: Mapping[ViewFault, EventKind] = {
    "covered": "view_covered",
    "overexposed": "view_overexposed",
    "out_of_focus": "view_out_of_focus",
    "turned": "view_turned",
}


class CameraWatch:
    """Watches one camera. Used by the processing thread only, except for `figures`.

    Args:
        name: Name of the camera.
        deployment: The running configuration.
    """

    def __init__(self, name: str, deployment: Deployment) -> None:
        self._name = name
        self._meter = RateMeter()
        self._dropped = 0  # frames, at the last check of the rate
        self._deployment = deployment
        self._rate = self._make_rate_watch()
        self._lag = LagWatch()
        self._view = ViewWatch() if self._has_view else None
        self._drift = self._make_drift_meter()
        self._attention = AttentionWatch()

    def deploy(self, new: Deployment) -> None:
        """Continues with another configuration; what it does not concern is kept."""
        old, self._deployment = self._deployment, new
        rate = self._make_rate_watch()
        if rate.required != self._rate.required:
            self._rate = rate
        if not self._has_view:
            if self._view is not None:  # nobody knows whether a faulty view has recovered
                self._attention = AttentionWatch()
            self._view = None
        elif self._view is None or not new.shows_alike(old, self._name):
            self._view = ViewWatch()
        if new.detector is not old.detector:
            self._drift = self._make_drift_meter()

    def add(self, frame: Frame, detections: Detections) -> CameraEvent | None:
        """Takes a processed frame; returns an event if the view has become faulty or has recovered."""
        self._meter.add(time.monotonic())
        if self._drift is not None:
            self._drift.add(detections.scores, frame.time)
        change = None if self._view is None else self._view.update(frame.image, frame.time)
        if change is None:
            return None
        kind: EventKind = "view_restored" if change.fault is None else EVENT_OF[change.fault]
        return CameraEvent(camera=self._name, time=frame.wall_time, kind=kind, detail=change.detail)

    def check_rate(self, reader: CameraReader) -> CameraEvent | None:
        """Returns an event if frames are processed too slowly, or in time again. Files are processed at any speed."""
        now = time.monotonic()
        drops, self._dropped = reader.dropped > self._dropped, reader.dropped
        if reader.config.ends:
            return None
        if reader.state != "live":
            self._meter.reset()
            self._lag.reset()
        rate = self._meter.rate(now)
        has_changed = self._rate.update(rate, now)
        lag_has_changed = rate is not None and self._lag.update(reader.waited_s, now)
        if rate is None or not (has_changed or lag_has_changed):
            return None
        detail = f"{plural(f'{rate:.2g}', 'frame')} per second processed, at least {self._rate.required:.2g} needed"
        if lag_has_changed and self._lag.is_behind:
            detail = (
                "the camera sends more than the box can decode (its reader hardly ever waits for data), so frames are late or "
                "lost: choose the camera's sub-stream, or lower its resolution or frame rate"
            )
        elif has_changed and self._rate.is_low:
            rules = self._deployment.settings.rules_of(self._name)
            frames = max(frames_to_decide(rule, rate) for rule in rules.values())
            cause = "the camera delivers no more"
            if self._lag.is_behind:
                cause = "the camera sends more than the box can decode"
            elif drops:
                cause = "the box is too slow for its cameras"
            detail += f" ({cause}); a violation is reported after {plural(frames, 'frame')}, {frames / rate:.2g} s"
        elif self._is_slow:  # for the other reason
            return None
        kind: EventKind = "slow" if self._is_slow else "rate_restored"
        return CameraEvent(camera=self._name, time=time.time(), kind=kind, detail=detail)

    def check_attention(self, reader: CameraReader) -> CameraEvent | None:
        """Returns an event if somebody must look after the camera, or if it works again. Files need none."""
        now, after_s = time.monotonic(), self._deployment.settings.cameras[self._name].attention_after_s
        if reader.config.ends or after_s is None:
            self._attention = AttentionWatch()
            return None
        fault = None if self._view is None else self._view.fault
        attention = self._attention.update(reader.state == "live" and fault is None, now, after_s)
        if attention is None:
            return None
        failed = f"not worked reliably for {duration(attention.failed_s)}"
        if attention.kind == "works_again":
            detail = f"it had {failed}"
        elif reader.state == "live" and fault is not None:
            detail = f"it has {failed}; now the view is {LABELS[fault]}"
        else:
            detail = f"it has {failed}; now {': '.join(filter(None, (reader.state, reader.outage)))}"
        return CameraEvent(camera=self._name, time=time.time(), kind=attention.kind, detail=detail)

    def figures(self, reader: CameraReader) -> CameraFigures:
        """Returns the counters of the camera; any thread may call it."""
        now, view, drift = time.monotonic(), self._view, self._drift
        return CameraFigures(
            state=reader.state,
            frames=reader.frames,
            dropped=reader.dropped,
            reconnects=reader.reconnects,
            errors=reader.errors,
            age=None if reader.last_frame_at is None else now - reader.last_frame_at,
            rate=self._meter.rate(now),
            required_rate=self._rate.required,
            is_slow=self._is_slow,
            view_fault=None if view is None else view.fault,
            score_drift=None if drift is None else drift.index(),
        )

    @property
    def _is_slow(self) -> bool:
        return self._rate.is_low or self._lag.is_behind

    @property
    def _has_view(self) -> bool:
        """Whether the view is watched. Not that of a folder: each image may show another scene."""
        camera = self._deployment.settings.cameras[self._name]
        return camera.view_health and camera.kind is not Kind.folder

    def _make_rate_watch(self) -> RateWatch:
        settings = self._deployment.settings
        fps = settings.cameras[self._name].fps
        return RateWatch(max(required_rate(rule, fps) for rule in settings.rules_of(self._name).values()))

    def _make_drift_meter(self) -> DriftMeter | None:
        expected = self._deployment.detector.contract.score_histogram
        return DriftMeter(expected) if any(expected) else None
