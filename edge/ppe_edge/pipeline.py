"""The processing of one camera's frames after the model: tracks, violations, alerts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypedDict

from ppe_edge.cameras.mailbox import Frame
from ppe_edge.common.clock import STEP
from ppe_edge.delivery.alert_writer import RenderSnapshot
from ppe_edge.delivery.messages import Alert, AlertClosed, End, ModelReference, utc
from ppe_edge.monitoring.telemetry import Telemetry
from ppe_edge.pictures.snapshot import Image, SnapshotConfig, View, draw, make_snapshot
from ppe_edge.rules.camera_rules import CameraRules
from ppe_edge.rules.config import DEFAULT_RULE, DEFAULT_SEVERITY, Severity
from ppe_edge.rules.tally import CountedTrack
from ppe_edge.rules.violations import ViolationEnded, ViolationStarted
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections


@dataclass(frozen=True)
class Model:
    """What a pipeline needs to know about the model."""

    contract: ModelContract
    reference: ModelReference


Count = Callable[[str, Sequence[CountedTrack], float], None]
KeepFrame = Callable[[Alert, View], None]
Record = Callable[[View, Sequence[Alert], bool], None]


class _Version2(TypedDict, total=False):
    schema_version: Literal[2]
    rule: str
    severity: Severity


class SubmitAlert(Protocol):
    """See `AlertWriter.submit`."""

    def __call__(self, message: Alert | AlertClosed, render: RenderSnapshot | None = None, label: str = "") -> None:
        """Queues a message with its snapshot; blocks while the queue is full."""


class Pipeline:
    """The pipeline of one camera. Used by the processing thread only, except for `view`, which any thread may read.

    Args:
        camera: Name of the camera.
        rules: Tracks the heads of this camera, and decides what is a violation.
        snapshot: How snapshots are rendered.
        hidden: Labels that are pixelated.
        model: The model that produces the detections.
        submit: Takes alerts and the messages that close them, in order.
        telemetry: Counts frames, and times the stages.
        count: Takes the camera, the tracks that have ended, and the correction of their times.
        keep_frame: Keeps the frame of an alert; called with the snapshot, in the alert writer's thread.
        record: Takes each frame for clips, the alerts that it raised, and whether to pixelate heads; None without clips.

    Attributes:
        view: The latest frame with its tracks; None before the first.
        open: Violation id -> id of its alert, for violations that have not ended.
    """

    def __init__(
        self,
        *,
        camera: str,
        rules: CameraRules,
        snapshot: SnapshotConfig,
        hidden: frozenset[int],
        model: Model,
        submit: SubmitAlert,
        telemetry: Telemetry,
        count: Count = lambda camera, counted, correction: None,
        keep_frame: KeepFrame = lambda alert, view: None,
        record: Record | None = None,
    ) -> None:
        self.camera = camera
        self.view: View | None = None
        self.open: dict[str, str] = {}
        self._rules = rules
        self._snapshot, self._hidden = snapshot, hidden
        self._model = model
        self._submit = submit
        self._telemetry = telemetry
        self._count = count
        self._keep_frame = keep_frame
        self._record = record
        self._clocks: dict[str, tuple[float, bool]] = {}  # violation -> correction and certainty of its alert's time
        self._alarmed: frozenset[int] = frozenset()  # rebuilt only when a violation starts or ends
        self._processed = telemetry.processed.labels(camera)  # looked up once, not for every frame

    def continue_from(self, before: "Pipeline") -> None:
        """Takes over the open violations and cool-downs of the camera's pipeline for another rule or model.

        The old pipeline can be closed afterwards.
        """
        self.view = before.view
        self._rules.continue_from(before._rules)
        self._alarmed = self._rules.alarmed_tracks()
        for violation in self._rules.open_violations():
            if violation in before.open:
                self.open[violation] = before.open.pop(violation)
                self._clocks[violation] = before._clocks.pop(violation)

    def process(self, frame: Frame, detections: Detections) -> None:
        """Updates the tracks with a frame's detections, and submits alerts for violations that start or end."""
        with self._telemetry.timed("track"):
            self._follow_resolution(frame)
            tracks = self._rules.track(detections, frame.time)
        with self._telemetry.timed("rules"):
            changes = self._rules.judge(detections, frame.image.shape[:2], frame.time, frame.wall_time)
        if changes:
            self._alarmed = self._rules.alarmed_tracks()
        self.view = View(
            frame=frame,
            tracks=tuple(tracks),
            contract=self._model.contract,
            detections=detections,
            thresholds=self._rules.thresholds,
            violating=self._rules.violating,
            alarmed=self._alarmed,
            hidden=self._hidden,
        )
        alerts = self._report(changes, self.view)
        if self._record is not None:
            self._record(self.view, alerts, self._snapshot.blur)
        self._report_counted(frame.correction)
        self._processed.inc()

    def _follow_resolution(self, frame: Frame) -> None:
        """Keeps tracks and violations when a camera changes its resolution."""
        if self.view is None or self.view.frame.image.shape == frame.image.shape:
            return
        before, after = self.view.frame.image.shape, frame.image.shape
        self._rules.rescale(after[1] / before[1], after[0] / before[0])

    def annotated(self, view: View) -> Image:
        """Returns a copy of the frame with the detections drawn."""
        return draw(view, self._snapshot, view.alarmed)

    def close(self) -> None:
        """Closes all open alerts: the camera is no longer monitored."""
        if self.view is not None:
            self._report(self._rules.close(), self.view)
            self._report_counted(self.view.frame.correction)

    def counted_now(self) -> tuple[str, list[CountedTrack], float]:
        """Returns the camera, the tracks that have not ended as they would count now, and the correction of their times."""
        return self.camera, self._rules.counted_now(), 0.0 if self.view is None else self.view.frame.correction

    def _report_counted(self, correction: float) -> None:
        if counted := self._rules.take_counted():
            self._count(self.camera, counted, correction)

    def open_violations(self) -> dict[str, float]:
        """Returns when each open violation was last seen, in UTC epoch seconds."""
        return {v: last + self._correction_of(v)[0] for v, last in self._rules.open_violations().items()}

    def _correction_of(self, violation: str) -> tuple[float, bool]:
        """Returns the correction for the end of a violation, and whether its times are certain.

        If the clock was set back since the alert, the end uses the earlier setting, so that it never precedes the alert.
        """
        assert self.view is not None
        now = self.view.frame
        correction, certain = self._clocks[violation]
        certain = certain and now.is_time_certain and abs(now.correction - correction) < STEP
        return max(correction, now.correction), certain

    def _report(self, changes: Sequence[ViolationStarted | ViolationEnded], view: View) -> list[Alert]:
        """Submits the messages about changes; returns the alerts among them."""
        alerts = []
        for change in changes:
            if isinstance(change, ViolationEnded):
                self._close_alert(change, "stopped" if change.stopped else "seen")
            else:
                alerts.append(self._raise_alert(change, view))
        return alerts

    def _raise_alert(self, change: ViolationStarted, view: View) -> Alert:
        contract = self._model.contract
        class_name = contract.class_names[change.label]
        left, top, right, bottom = (float(v) for v in change.box_xyxy)
        alert = Alert(
            **self._version_2(change.rule),
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
        self._submit(alert, partial(self._keep_frame_and_render, alert, view), contract.display_name(class_name))
        return alert

    def _keep_frame_and_render(self, alert: Alert, view: View) -> bytes | None:
        """Keeps the frame of an alert, and returns its snapshot; runs in the alert writer's thread."""
        self._keep_frame(alert, view)
        return make_snapshot(view, self._snapshot, {alert.track})

    def _close_alert(self, change: ViolationEnded, end: End) -> None:
        correction, certain = self._correction_of(change.violation)
        del self._clocks[change.violation]
        closed = AlertClosed(
            **self._version_2(change.rule),
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

    def _version_2(self, rule: str) -> "_Version2":
        """Returns the fields that version 2 of the messages adds; none if they would say nothing that version 1 does not."""
        severity = self._rules.severity_of(rule)
        if (rule, severity) == (DEFAULT_RULE, DEFAULT_SEVERITY):
            return {}
        return {"schema_version": 2, "rule": rule, "severity": severity}
