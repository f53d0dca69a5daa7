"""The detections of a video, recorded once, and the alerts that a rule raises on them.

Everything is the box's own: the reader decodes and applies the camera's settings, the detector runs the model, and the pipeline
tracks, applies the rule and raises alerts. Replaying recorded detections costs a fraction of a millisecond per frame.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ppe_edge.cameras.camera import CameraReader
from ppe_edge.cameras.mailbox import Frame, FrameMailbox
from ppe_edge.cameras.sources import SourceConfig
from ppe_edge.delivery.alert_writer import RenderSnapshot
from ppe_edge.delivery.messages import Alert, AlertClosed
from ppe_edge.errors import EdgeError
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.monitoring.telemetry import Collected, Telemetry
from ppe_edge.pictures.snapshot import SnapshotConfig
from ppe_edge.pipeline import Model, Pipeline
from ppe_edge.rules.camera_rules import CameraRules
from ppe_edge.rules.config import DEFAULT_RULE, RuleConfig
from ppe_edge.rules.tracker import Track, Tracker, TrackerConfig
from ppe_yolo.core.detections import Detections

_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """What the rule needs to know about a frame.

    Attributes:
        seconds: Position in the video.
        size: (height, width), pixels.
        detections: What the model detected.
    """

    seconds: float
    size: tuple[int, int]
    detections: Detections


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The detections of a video.

    Attributes:
        name: Name of the camera.
        frames: Its processed frames.
        has_certain_times: Whether all timestamps of the video were usable.
        errors: Number of parts that could not be decoded.
        last_error: Why the latest of these could not be decoded; empty if there are none.
    """

    name: str
    frames: tuple[RecordedFrame, ...]
    has_certain_times: bool
    errors: int
    last_error: str

    @property
    def seconds(self) -> float:
        """Length of the video, its last frame included."""
        times = [frame.seconds for frame in self.frames]
        steps = [after - before for before, after in pairwise(times)]
        return times[-1] + (statistics.median(steps) if steps else 0.0)


@dataclass(frozen=True, kw_only=True)
class RaisedAlert:
    """An alert.

    Attributes:
        seconds: When it was raised, position in the video.
        until: When its violation ended.
        track: Id of the tracked head.
        score: Score of its detection.
        box_xyxy: Its box, pixels of the frame.
    """

    seconds: float
    until: float
    track: int
    score: float
    box_xyxy: tuple[float, float, float, float]


def record(
    name: str, camera: SourceConfig, detector: EdgeDetector, on_progress: Callable[[float], None] = lambda seconds: None
) -> Recording:
    """Runs the model on a video, as fast as possible.

    Args:
        name: Name of the camera.
        camera: The video, and the settings of the camera.
        detector: The model.
        on_progress: Called with the position after each frame.

    Raises:
        EdgeError: The video cannot be read to its end.
    """
    mailbox = FrameMailbox()
    reader = CameraReader(name, camera, mailbox, lambda event: None)
    frames: list[RecordedFrame] = []
    start, is_certain = 0.0, True
    reader.start()
    try:
        while True:
            taken = mailbox.take(1, _WAIT_S)
            if not taken and reader.state == "ended":
                break
            for frame in taken:
                start = frame.time if not frames else start
                is_certain = is_certain and frame.is_time_certain
                (detections,) = detector.detect([frame.image])
                size = (frame.image.shape[0], frame.image.shape[1])
                frames.append(RecordedFrame(frame.time - start, size, detections))
                on_progress(frames[-1].seconds)
    finally:
        mailbox.close()
        reader.stop(0.0)
    if reader.failure or not frames:
        raise EdgeError(reader.failure or "holds no frames", file=camera.address, item=name)
    return Recording(
        name=name, frames=tuple(frames), has_certain_times=is_certain, errors=reader.errors, last_error=reader.last_error
    )


class RecordedTracker(Tracker):
    """A tracker that keeps what it returns, so that several rules can be applied to the same tracks."""

    def __init__(self, config: TrackerConfig) -> None:
        super().__init__(config)
        self._recorded: list[list[Track]] = []
        self._replayed: int | None = None

    def update(self, detections: Detections, now: float) -> list[Track]:
        """See `Tracker.update`."""
        if self._replayed is None:
            self._recorded.append(super().update(detections, now))
            return self._recorded[-1]
        self._replayed += 1
        return self._recorded[self._replayed - 1]

    def rewind(self) -> None:
        """Starts again with the tracks of the first frame."""
        self._replayed = 0


@dataclass(frozen=True)
class Replay:
    """Replays recordings through the pipeline of the box.

    Attributes:
        model: The model that the recordings come from.
    """

    model: Model
    _trackers: dict[tuple[str, TrackerConfig], RecordedTracker] = field(default_factory=dict)
    _telemetry: Telemetry = field(default_factory=lambda: Telemetry(Collected(dict, dict, lambda: True)))

    def alerts(self, recording: Recording, tracker: TrackerConfig, rule: RuleConfig) -> Sequence[RaisedAlert]:
        """Returns the alerts that the box raises on a recording, in order.

        Raises:
            EdgeError: The rule contradicts the model.
        """

        def make_tracker(config: TrackerConfig, ids: Iterator[int]) -> RecordedTracker:
            key = (recording.name, config)
            if key in self._trackers:
                self._trackers[key].rewind()
            else:
                self._trackers[key] = RecordedTracker(config)
            return self._trackers[key]

        raised: dict[str, Alert] = {}
        ended: dict[str, AlertClosed] = {}

        def submit(message: Alert | AlertClosed, render: RenderSnapshot | None = None, label: str = "") -> None:
            if isinstance(message, Alert):
                raised[message.violation] = message
            else:
                ended[message.violation] = message

        pipeline = Pipeline(
            camera=recording.name,
            rules=CameraRules({DEFAULT_RULE: rule}, self.model.contract, tracker, make_tracker=make_tracker),
            snapshot=SnapshotConfig(),
            hidden=frozenset(range(len(self.model.contract.class_names))),
            model=self.model,
            submit=submit,
            telemetry=self._telemetry,
        )
        pixel = np.zeros(1, np.uint8)
        for number, frame in enumerate(recording.frames):
            image = np.broadcast_to(pixel, (*frame.size, 3))  # nobody looks at it
            position = frame.seconds
            pipeline.process(
                Frame(camera=recording.name, number=number, time=position, monotonic=position, image=image), frame.detections
            )
        pipeline.close()
        return [
            RaisedAlert(
                seconds=alert.time.timestamp(),
                until=ended[violation].time.timestamp(),
                track=alert.track,
                score=alert.score,
                box_xyxy=alert.box_xyxy,
            )
            for violation, alert in raised.items()
        ]
