"""The processing of one camera's frames after the model: tracks, violations, alerts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ppe_edge.cameras.camera import Frame
from ppe_edge.clock import STEP
from ppe_edge.delivery.alert_writer import RenderSnapshot
from ppe_edge.delivery.messages import Alert, AlertClosed, End, ModelReference, utc
from ppe_edge.pictures.snapshot import Image, SnapshotConfig, View, draw, make_snapshot, possible_heads
from ppe_edge.rules.tracker import Tracker
from ppe_edge.rules.violations import RuleConfig, ViolationEnded, ViolationMonitor, ViolationStarted
from ppe_edge.telemetry import Telemetry
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections


@dataclass(frozen=True)
class Model:
    """What a pipeline needs to know about the model."""

    contract: ModelContract
    reference: ModelReference


class SubmitAlert(Protocol):
    """See `AlertWriter.submit`."""

    def __call__(self, message: Alert | AlertClosed, render: RenderSnapshot | None = None, label: str = "") -> None:
        """Queues a message with its snapshot; returns at once."""


class Pipeline:
    """The pipeline of one camera. Used by the processing thread only, except for `view`, which any thread may read.

    Args:
        camera: Name of the camera.
        tracker: Tracks the heads of this camera.
        rule: What counts as a violation.
        snapshot: How snapshots are rendered.
        model: The model that produces the detections.
        submit: Takes alerts and the messages that close them, in order.
        telemetry: Counts frames, and times the stages.

    Attributes:
        view: The latest frame with its tracks; None before the first.
        open: Violation id -> id of its alert, for violations that have not ended.

    Raises:
        EdgeError: The rule contradicts the model contract.
    """

    def __init__(
        self,
        *,
        camera: str,
        tracker: Tracker,
        rule: RuleConfig,
        snapshot: SnapshotConfig,
        model: Model,
        submit: SubmitAlert,
        telemetry: Telemetry,
    ) -> None:
        self.camera = camera
        self.view: View | None = None
        self.open: dict[str, str] = {}
        self.tracker = tracker
        self._monitor = ViolationMonitor(rule, model.contract)
        self._snapshot = snapshot
        self._model = model
        self._submit = submit
        self._telemetry = telemetry
        self._clocks: dict[str, tuple[float, bool]] = {}  # violation -> correction and certainty of its alert's time
        self._alarmed: frozenset[int] = frozenset()  # rebuilt only when a violation starts or ends
        self._processed = telemetry.processed.labels(camera)  # looked up once, not for every frame

    def continue_from(self, before: "Pipeline") -> None:
        """Takes over the open violations and cool-downs of the camera's pipeline for another rule or model.

        The old pipeline can be closed afterwards.
        """
        self.view = before.view
        self._monitor.take_over(before._monitor, same_tracks=self.tracker is before.tracker)
        self._alarmed = self._monitor.alarmed_tracks()
        for violation in self._monitor.open_violations():
            if violation in before.open:
                self.open[violation] = before.open.pop(violation)
                self._clocks[violation] = before._clocks.pop(violation)

    def process(self, frame: Frame, detections: Detections) -> None:
        """Updates the tracks with a frame's detections, and submits alerts for violations that start or end."""
        start = time.perf_counter()
        self._follow_resolution(frame)
        tracks = self.tracker.update(detections, frame.time)
        tracked = time.perf_counter()
        changes = self._monitor.update(tracks, frame.image.shape[:2], frame.time)
        self._telemetry.observe("track", tracked - start)
        self._telemetry.observe("rules", time.perf_counter() - tracked)
        if changes:
            self._alarmed = self._monitor.alarmed_tracks()
        self.view = View(
            frame=frame,
            tracks=tuple(tracks),
            contract=self._model.contract,
            heads_xyxy=possible_heads(detections, self._monitor.thresholds),
            thresholds=self._monitor.thresholds,
            alarmed=self._alarmed,
        )
        self._report(changes, self.view)
        self._processed.inc()

    def _follow_resolution(self, frame: Frame) -> None:
        """Keeps tracks and violations when a camera changes its resolution."""
        if self.view is None or self.view.frame.image.shape == frame.image.shape:
            return
        before, after = self.view.frame.image.shape, frame.image.shape
        self.tracker.rescale(after[1] / before[1], after[0] / before[0])
        self._monitor.rescale(after[1] / before[1], after[0] / before[0])

    def annotated(self, view: View) -> Image:
        """Returns a copy of the frame with the detections drawn."""
        return draw(view, self._snapshot, view.alarmed)

    def close(self) -> None:
        """Closes all open alerts: the camera is no longer monitored."""
        if self.view is not None:
            self._report(self._monitor.close(), self.view, "stopped")

    def open_violations(self) -> dict[str, float]:
        """Returns when each open violation was last seen, in UTC epoch seconds."""
        return {v: last + self._correction_of(v)[0] for v, last in self._monitor.open_violations().items()}

    def _correction_of(self, violation: str) -> tuple[float, bool]:
        """Returns the correction for the end of a violation, and whether its times are certain.

        If the clock was set back since the alert, the end is told by the clock as it was set then, so that it is not earlier.
        """
        assert self.view is not None
        now = self.view.frame
        correction, certain = self._clocks[violation]
        certain = certain and now.is_time_certain and abs(now.correction - correction) < STEP
        return max(correction, now.correction), certain

    def _report(self, changes: Sequence[ViolationStarted | ViolationEnded], view: View, end: End = "seen") -> None:
        for change in changes:
            if isinstance(change, ViolationEnded):
                self._close_alert(change, end)
            else:
                self._raise_alert(change, view)

    def _raise_alert(self, change: ViolationStarted, view: View) -> None:
        contract = self._model.contract
        class_name = contract.class_names[change.label]
        left, top, right, bottom = (float(v) for v in change.box_xyxy)
        alert = Alert(
            camera=self.camera,
            time=utc(view.frame.wall_time),
            time_uncertain=not view.frame.is_time_certain,
            class_name=class_name,
            score=change.score,
            box_xyxy=(left, top, right, bottom),
            frame_size=(view.frame.image.shape[0], view.frame.image.shape[1]),
            track=change.track,
            zone=change.zone,
            violation=change.violation,
            model=self._model.reference,
        )
        self.open[change.violation] = alert.id
        self._clocks[change.violation] = view.frame.correction, view.frame.is_time_certain
        self._submit(alert, partial(make_snapshot, view, self._snapshot, {change.track}), contract.display_name(class_name))

    def _close_alert(self, change: ViolationEnded, end: End) -> None:
        correction, certain = self._correction_of(change.violation)
        del self._clocks[change.violation]
        closed = AlertClosed(
            camera=self.camera,
            time=utc(change.ended + correction),
            time_uncertain=not certain,
            class_name=self._model.contract.class_names[change.label],
            track=change.track,
            zone=change.zone,
            violation=change.violation,
            alert=self.open.pop(change.violation, None),
            started=utc(change.started + correction),
            duration_s=change.duration,
            end=end,
            model=self._model.reference,
        )
        self._submit(closed)
