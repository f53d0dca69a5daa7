"""What the page and the direct method `health` show, as JSON values without secrets."""

from typing import Any, TypedDict

from ppe_edge.rules.config import Polygon


class ModelState(TypedDict):
    """The active model, and the execution provider that runs it."""

    name: str
    sha256: str
    provider: str


class CameraState(TypedDict):
    """A camera; see `CameraFigures` in `monitoring.telemetry`. `number` is that of the latest frame; None before the first."""

    name: str
    state: str
    frames: int
    dropped: int
    reconnects: int
    age: float | None
    rate: float | None
    required_rate: float | None
    slow: bool
    score_drift: float | None
    view_fault: str | None
    number: int | None
    violations: int


class MessageRow(TypedDict):
    """A message of the outbox. `time` is in UTC epoch seconds, `duration` in seconds; `camera` may be the box itself.

    `alert` is the id of the alert that it is about, None for other messages.
    """

    time: float
    camera: str
    zone: str | None
    what: str
    alert: str | None
    score: float | None
    duration: float | None


class SinkState(TypedDict):
    """A sink; see `ppe_edge.monitoring.telemetry.SinkFigures`."""

    name: str
    waiting: int
    set_aside: int
    error: str | None


class BoxState(TypedDict):
    """The whole box. `trouble` is empty if there is none; `uptime` is in seconds, `memory` is the peak in bytes.

    `time` is that of its clock, UTC epoch seconds; `time_zone` is None if none is set; `version` is that of the software.
    """

    trouble: str
    uptime: float
    memory: int
    time: float
    time_zone: str | None
    version: str
    model: ModelState
    cameras: list[CameraState]
    alerts: list[MessageRow]
    sinks: list[SinkState]


class EditableCamera(TypedDict):
    """A camera: its rules by name with all settings, the zones that they may name, and the settings of a new rule."""

    rules: dict[str, dict[str, Any]]
    zones: dict[str, Polygon]
    new: dict[str, Any]


class Editable(TypedDict):
    """The active rules by camera, and what they may be changed to.

    `classes` has the display name and `thresholds` the alarm threshold of each class of the model; `latest_change` is
    the number of the change that can be undone, 0 for none.
    """

    cameras: dict[str, EditableCamera]
    classes: dict[str, str]
    thresholds: dict[str, float]
    time_zone: str | None
    latest_change: int
