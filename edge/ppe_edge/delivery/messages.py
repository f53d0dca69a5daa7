"""The messages that leave the box, as typed models of one versioned JSON schema (`alert.schema.json`)."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from ppe_edge.cameras.camera import EventKind

COMPATIBILITY = (
    "A later version adds fields and kinds of messages; it never changes or removes one. A message has the lowest version "
    "that has all its fields. A box without `rules`, `severity`, `compliance.report` and `clip` in its settings, and whose "
    "alerts nobody judges on its page, sends version 1 only: a consumer of version 1 needs no change. Before you set one of "
    "them or judge alerts, let the consumer accept `schema_version` 2, and let it ignore fields and kinds that it does not "
    "know or read `rule` and `severity`. A message without them is of the rule `default` and of severity `warning`."
)
SCHEMA_FILE = Path(__file__).with_name("alert.schema.json")

UtcTime = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]
StorageProblem = Literal["snapshots_dropped", "alerts_dropped", "snapshot_not_stored", "messages_held", "message_set_aside"]
End = Literal["seen", "stopped", "unknown"]
Judgement = Literal["confirmed", "false_alarm"]
OTHER = "other"  # what caused a false alarm if it is no class of the model
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def utc(seconds: float) -> datetime:
    """Converts UTC epoch seconds to a time of the schema."""
    return datetime.fromtimestamp(seconds, UTC)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class ModelReference(_Strict):
    """The model that produced the detection."""

    name: str = Field(description="File name of the model.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the model file.")
    provenance: Mapping[str, Any] = Field(default_factory=dict, description="Provenance, as recorded in the model contract.")


class SnapshotReference(_Strict):
    """The snapshot of an alert. The file stays on the box, in snapshots/ of the state folder."""

    file: str = Field(description="File name of the JPEG.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the JPEG.")


class ClipReference(_Strict):
    """The clip of an alert. The file stays on the box, in snapshots/ of the state folder."""

    file: str = Field(description="File name of the MP4.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the MP4.")


class _Message(_Strict):
    schema_version: Literal[1, 2] = Field(
        default=1, description="2 if the message has fields of version 2, which name the version that added them; else 1."
    )
    id: str = Field(default_factory=lambda: str(uuid.uuid4()), description="Unique; every copy of a message has the same id.")
    time: UtcTime = Field(description="When it happened, in UTC.")
    redelivered: bool = Field(default=False, description="Whether a message with this id may have been delivered before.")

    def to_json(self) -> str:
        """Serialises the message as one line of JSON."""
        return self.model_dump_json(by_alias=True)


TimeUncertain = Annotated[
    bool,
    Field(
        exclude_if=lambda uncertain: not uncertain,  # consumers of the first version never see it while all is well
        description="True if the times may be wrong: the clock of the box was not set, or was set during the violation, or a "
        "video file has unusable timestamps. Absent otherwise.",
    ),
]


RuleName = Annotated[
    str | None,
    Field(
        exclude_if=lambda name: name is None,  # consumers of the first version never see it while a box has one rule
        description="Version 2: name of the rule. Absent if the camera has one rule, without a name and of severity warning.",
    ),
]
MessageSeverity = Annotated[
    Literal["info", "warning", "critical"] | None,
    Field(
        exclude_if=lambda severity: severity is None,
        description="Version 2: severity of the rule. Absent if `rule` is; it is then warning.",
    ),
]


class Alert(_Message):
    """A violation has started."""

    kind: Literal["alert"] = "alert"
    camera: str
    class_name: str = Field(alias="class", description="Class of the detection, as the model names it.")
    score: Fraction
    box_xyxy: tuple[float, float, float, float] = Field(description="Left, top, right, bottom in pixels of the frame.")
    frame_size: tuple[int, int] = Field(description="Height and width of the frame in pixels.")
    track: int = Field(description="Id of the tracked head; unique per camera until the box restarts.")
    zone: str | None = None
    violation: str = Field(description="Id of the violation; the same in the alert and in the message that closes it.")
    model: ModelReference
    snapshot: SnapshotReference | None = Field(default=None, description="Null if there is no snapshot, or no longer one.")
    time_uncertain: TimeUncertain = False
    rule: RuleName = None
    severity: MessageSeverity = None


class Sighting(_Strict):
    """The tracked detection of an alert in one frame."""

    offset_s: float = Field(description="Seconds after the alert; negative before it.")
    class_name: str = Field(alias="class", description="Class of the detection, as the model names it.")
    score: Fraction


class AlertClip(_Message):
    """The clip of an alert: the seconds before and after it, with heads pixelated. Kind of version 2."""

    kind: Literal["alert_clip"] = "alert_clip"
    schema_version: Literal[1, 2] = 2
    camera: str
    class_name: str = Field(alias="class")
    score: Fraction
    track: int
    zone: str | None = None
    violation: str
    alert: str = Field(description="Id of the alert.")
    offset_s: float = Field(description="Start of the clip, in seconds after the alert; usually negative.")
    duration_s: float = Field(ge=0.0, description="Duration in seconds; shorter if the camera or the box stopped meanwhile.")
    sightings: tuple[Sighting, ...] = Field(
        default=(), description="The tracked detection in the frames of the clip; without those in which it was not detected."
    )
    clip: ClipReference | None = Field(default=None, description="Null if it could not be stored, or is no longer there.")
    time_uncertain: TimeUncertain = False
    rule: RuleName = None
    severity: MessageSeverity = None


class AlertClosed(_Message):
    """A violation has ended."""

    kind: Literal["alert_closed"] = "alert_closed"
    camera: str
    class_name: str = Field(alias="class")
    track: int
    zone: str | None = None
    violation: str
    alert: str | None = Field(default=None, description="Id of the alert that this message closes.")
    started: UtcTime = Field(description="Start of the violation; the time of the alert if `end` is unknown.")
    duration_s: float = Field(ge=0.0, description="Duration in seconds; a lower bound unless `end` is seen.")
    end: End = Field(
        default="seen",
        description="seen: the helmet is on, or the head is gone. stopped: monitoring stopped, because the box, the camera or "
        "the rule was stopped or changed, or the schedule of the rule ended. "
        "unknown: the box was killed or lost power; sent at the next start, and `time` is "
        "when the violation was last known to be open.",
    )
    model: ModelReference
    time_uncertain: TimeUncertain = False
    rule: RuleName = None
    severity: MessageSeverity = None

    def in_words(self) -> str:
        """Returns how the alert ended in a few words."""
        return {"seen": "ended", "stopped": "monitoring stopped", "unknown": "end not seen"}[self.end]


class AlertVerdict(_Message):
    """Somebody judged an alert on the page. It replaces earlier verdicts on the same alert. Kind of version 2."""

    kind: Literal["alert_verdict"] = "alert_verdict"
    schema_version: Literal[1, 2] = 2
    camera: str
    violation: str
    alert: str = Field(description="Id of the alert.")
    verdict: Judgement | None = Field(default=None, description="Null while the alert is not judged, or no longer.")
    actual: str | None = Field(
        default=None,
        description="What caused a false alarm: a class as the model names it, `other` for something else; null if unknown.",
    )
    acknowledged: bool = Field(default=False, description="Whether somebody has taken note of the alert.")
    comment: str = ""
    rule: RuleName = None

    def in_words(self, display_name: Callable[[str], str]) -> str:
        """Returns the verdict in a few words, such as "false alarm: helmet".

        Args:
            display_name: Returns how people call a class of the model.
        """
        if self.verdict is None:
            return "acknowledged" if self.acknowledged else "not judged"
        actual = "something else" if self.actual == OTHER else self.actual and display_name(self.actual)
        return self.verdict.replace("_", " ") + (f": {actual}" if actual else "")


class CameraEventMessage(_Message):
    """The state of a camera has changed."""

    kind: Literal["camera_event"] = "camera_event"
    camera: str
    event: str = Field(description=f"{', '.join(get_args(EventKind))}; later versions of the box may add more.")
    detail: str = ""
    time_uncertain: TimeUncertain = False


class StorageEvent(_Message):
    """The box dropped data, could not store it, or set a message aside that a sink does not take."""

    kind: Literal["storage_event"] = "storage_event"
    event: StorageProblem
    count: int = Field(ge=1)
    detail: str = ""
    time_uncertain: TimeUncertain = False


class ComplianceFigure(_Strict):
    """Tracked objects of one camera, rule and zone; each counts once, by most of its frames."""

    camera: str
    rule: str
    zone: str | None = None
    compliant: int = Field(ge=0, description="Tracked objects without violation, such as heads with helmet.")
    violations: int = Field(ge=0, description="Tracked objects with violation, such as bare heads.")


class ComplianceReport(_Message):
    """The figures of a day or a shift. Sent only if `compliance.report` is set. Kind of version 2."""

    kind: Literal["compliance_report"] = "compliance_report"
    schema_version: Literal[1, 2] = 2
    period: Literal["day", "shift"]
    shift: str | None = Field(default=None, description="Name of the shift; null for a day.")
    started: UtcTime = Field(description="Start of the period.")
    ended: UtcTime = Field(description="End of the period.")
    figures: tuple[ComplianceFigure, ...]
    html: str = Field(description="The report as one HTML page, to be read or printed.")


Message = Alert | AlertClip | AlertClosed | AlertVerdict | CameraEventMessage | StorageEvent | ComplianceReport
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def parse_message(text: str | bytes) -> Message:
    """Parses the output of `to_json`.

    Raises:
        pydantic.ValidationError: The text is not a message of this schema version.
    """
    return _ADAPTER.validate_json(text)


def clip_of(alert: Alert, offset_s: float, duration_s: float, sightings: Iterable[Sighting] = ()) -> AlertClip:
    """Returns the message for the clip of an alert; `time` is that of the alert.

    Args:
        alert: The alert.
        offset_s: Start of the clip, in seconds after the alert.
        duration_s: Its duration in seconds.
        sightings: The head in its frames.
    """
    same = ("time", "camera", "class_name", "score", "track", "zone", "violation", "time_uncertain", "rule", "severity")
    values = {name: getattr(alert, name) for name in same}
    clip_id = str(uuid.uuid5(uuid.UUID(alert.id), "alert_clip"))
    times = {"offset_s": offset_s, "duration_s": duration_s}
    return AlertClip(**values, **times, id=clip_id, alert=alert.id, sightings=tuple(sightings))


def attachment_name(message: Message) -> str:
    """Returns the name of the file that belongs to an alert or a clip."""
    return clip_name(message.alert) if isinstance(message, AlertClip) else f"{message.id}.jpg"


def clip_name(alert_id: str) -> str:
    """Returns the name of the file with the clip of an alert."""
    return f"{alert_id}.mp4"


def close_unseen(alert: Alert, last_seen: float) -> AlertClosed:
    """Closes an alert whose end is unknown.

    The id derives from the alert's id: if this is repeated, the second message is a copy of the first.

    Args:
        alert: The alert.
        last_seen: When its violation was last known to be open, UTC epoch seconds.
    """
    return AlertClosed(
        schema_version=alert.schema_version,
        rule=alert.rule,
        severity=alert.severity,
        id=str(uuid.uuid5(uuid.UUID(alert.id), "alert_closed")),
        time=utc(last_seen),
        camera=alert.camera,
        class_name=alert.class_name,
        track=alert.track,
        zone=alert.zone,
        violation=alert.violation,
        alert=alert.id,
        started=alert.time,
        duration_s=max(0.0, last_seen - alert.time.timestamp()),
        end="unknown",
        model=alert.model,
        time_uncertain=alert.time_uncertain,
    )


def json_schema() -> dict[str, Any]:
    """Builds the JSON schema of all messages that leave the box."""
    schema = _ADAPTER.json_schema(mode="serialization", by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ppe_edge messages",
        "description": COMPATIBILITY,
        **schema,
    }


def schema_text() -> str:
    """Returns the content of alert.schema.json; `python -m ppe_edge.delivery.messages` prints it."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
