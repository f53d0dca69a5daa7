"""What the page and the direct method `health` show, as JSON values without secrets."""

from typing import TypedDict


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
    """The whole box. `trouble` is empty if there is none; `uptime` is in seconds."""

    trouble: str
    uptime: float
    model: ModelState
    cameras: list[CameraState]
    alerts: list[MessageRow]
    sinks: list[SinkState]
