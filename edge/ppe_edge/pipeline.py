"""What happens to one camera's pictures after the model: tracks, violations, alerts."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ppe_edge.cameras.camera import Frame
from ppe_edge.delivery.messages import Alert, AlertClosed, End, Message, ModelReference
from ppe_edge.pictures.snapshot import Image, SnapshotConfig, View, draw, make_snapshot, weak_heads
from ppe_edge.rules.tracker import Tracker
from ppe_edge.rules.violations import RuleConfig, ViolationEnded, ViolationMonitor, ViolationStarted
from ppe_edge.telemetry import Telemetry
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """The model at work, as a pipeline needs to know it."""

    contract: ModelContract
    reference: ModelReference


class Pipeline:
    """One camera's. Used by the processing thread alone, except for `view`, which anybody may read.

    Args:
        camera: Its name.
        tracker: Follows the camera's heads.
        rule: What counts as a violation.
        snapshot: How the picture of an alert is made.
        model: The model at work.
        put: Stores a message with its picture, and returns the message's id.
        telemetry: Told what was done, and how long it took.

    Raises:
        EdgeError: The rule contradicts the model's contract.
    """

    def __init__(
        self,
        camera: str,
        tracker: Tracker,
        rule: RuleConfig,
        snapshot: SnapshotConfig,
        model: Model,
        put: Callable[[Message, bytes | None], str],
        telemetry: Telemetry,
    ) -> None:
        self.camera = camera
        self.view: View | None = None
        self.open: dict[str, str] = {}  # violation -> id of the alert that told of it
        self.tracker = tracker
        self._monitor = ViolationMonitor(rule, model.contract)
        self._snapshot = snapshot
        self._model = model
        self._put = put
        self._telemetry = telemetry
        self._alarmed: frozenset[int] = frozenset()  # made anew only when a violation begins or ends
        self._processed = telemetry.processed.labels(camera)  # looked up once, not for every frame

    def take_over(self, before: "Pipeline") -> None:
        """Goes on where the camera's pipeline with another rule or model left off; that one may be closed then."""
        self.view = before.view
        self._monitor.take_over(before._monitor, same_tracks=self.tracker is before.tracker)
        self._alarmed = self._monitor.alarmed()
        for violation in self._monitor.lasting():
            if violation in before.open:
                self.open[violation] = before.open.pop(violation)

    def process(self, frame: Frame, detections: Detections) -> None:
        """Follows what was found, and tells of violations that begin or end."""
        start = time.perf_counter()
        tracks = self.tracker.update(detections, frame.time)
        tracked = time.perf_counter()
        changes = self._monitor.update(tracks, frame.image.shape[:2], frame.time)
        ruled = time.perf_counter()
        self._telemetry.observe("track", tracked - start)
        self._telemetry.observe("rules", ruled - tracked)
        if changes:
            self._alarmed = self._monitor.alarmed()
        self.view = View(
            frame, tuple(tracks), self._model.contract, weak_heads(detections), self._monitor.thresholds, self._alarmed
        )
        if changes:
            self._tell(changes, self.view)
            self._telemetry.observe("alert", time.perf_counter() - ruled)
        self._processed.inc()

    def annotated(self, view: View) -> Image:
        """A picture with what was found drawn into it."""
        return draw(view, self._snapshot, view.alarmed)

    def close(self) -> None:
        """Ends what goes on: nobody looks any more."""
        if self.view is not None:
            self._tell(self._monitor.close(self.view.frame.time), self.view, "stopped")

    def lasting(self) -> dict[str, float]:
        """See `ViolationMonitor.lasting`."""
        return self._monitor.lasting()

    def _tell(self, changes: Sequence[ViolationStarted | ViolationEnded], view: View, end: End = "seen") -> None:
        for change in changes:
            if isinstance(change, ViolationEnded):  # which is a ViolationStarted too
                self._closed(change, end)
            else:
                self._alert(change, view)

    def _alert(self, change: ViolationStarted, view: View) -> None:
        contract = self._model.contract
        picture = make_snapshot(view, self._snapshot, {change.track})
        alert = Alert(
            camera=self.camera,
            time=view.frame.time,
            class_name=contract.class_names[change.label],
            score=change.score,
            box_xyxy=tuple(float(v) for v in change.box_xyxy),
            frame_size=view.frame.image.shape[:2],
            track=change.track,
            zone=change.zone,
            violation=change.violation,
            model=self._model.reference,
        )
        self.open[change.violation] = self._put(alert, picture)
        self._telemetry.alerts.labels(self.camera, alert.kind).inc()
        _log.info("%s: alert, %s of track %d, score %.2f", self.camera, alert.class_name, alert.track, alert.score)

    def _closed(self, change: ViolationEnded, end: End) -> None:
        closed = AlertClosed(
            camera=self.camera,
            time=change.ended,
            class_name=self._model.contract.class_names[change.label],
            track=change.track,
            zone=change.zone,
            violation=change.violation,
            alert=self.open.pop(change.violation, None),
            started=change.started,
            duration_s=change.duration,
            end=end,
            model=self._model.reference,
        )
        self._put(closed, None)
        self._telemetry.alerts.labels(self.camera, closed.kind).inc()
        _log.info("%s: alert of track %d ended after %.1f s", self.camera, closed.track, closed.duration_s)
