"""The messages that leave the box: one versioned JSON schema, kept beside this file as alert.schema.json."""

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

SCHEMA_FILE = Path(__file__).with_name("alert.schema.json")

UtcTime = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]
StorageTrouble = Literal["snapshots_dropped", "alerts_dropped", "snapshot_not_stored", "messages_held"]
End = Literal["seen", "stopped", "unknown"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def utc(seconds: float) -> datetime:
    """UTC epoch seconds as a time of the schema."""
    return datetime.fromtimestamp(seconds, UTC)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class ModelReference(_Strict):
    """The model that saw it."""

    name: str = Field(description="The model's file name.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of the model's file.")
    provenance: Mapping[str, Any] = Field(default_factory=dict, description="Where it comes from, out of its contract.")


class SnapshotReference(_Strict):
    """The picture of an alert; it stays on the box, in the state folder's snapshots/."""

    file: str = Field(description="File name of the JPEG.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of the JPEG.")


class _Message(_Strict):
    schema_version: Literal[1] = 1
    id: str = Field(default_factory=lambda: str(uuid.uuid4()), description="Unique; a copy of a message has the same.")
    time: UtcTime = Field(description="When it happened, UTC.")
    redelivered: bool = Field(default=False, description="A message with this id may have been delivered before.")

    def to_json(self) -> str:
        """The message as one line of JSON."""
        return self.model_dump_json(by_alias=True)


class Alert(_Message):
    """A violation has begun."""

    kind: Literal["alert"] = "alert"
    camera: str
    class_name: str = Field(alias="class", description="What the camera saw.")
    score: Fraction
    box_xyxy: tuple[float, float, float, float] = Field(description="Left, top, right, bottom; pixels of the frame.")
    frame_size: tuple[int, int] = Field(description="Height, width of the frame; pixels.")
    track: int = Field(description="The tracked head; unique for a camera until the runtime restarts.")
    zone: str | None = None
    violation: str = Field(description="The same in the alert and in the message that closes it.")
    model: ModelReference
    snapshot: SnapshotReference | None = Field(default=None, description="Null when there is none, or none any more.")


class AlertClosed(_Message):
    """A violation has ended."""

    kind: Literal["alert_closed"] = "alert_closed"
    camera: str
    class_name: str = Field(alias="class")
    track: int
    zone: str | None = None
    violation: str
    alert: str | None = Field(default=None, description="The id of the alert that this closes.")
    started: UtcTime = Field(description="Since when; the time of the alert when `end` is unknown.")
    duration_s: float = Field(ge=0.0, description="How long it lasted, seconds; at least so long unless `end` is seen.")
    end: End = Field(
        default="seen",
        description="seen: the helmet is on, or the head gone. stopped: nobody looks any more, since box, camera or rule was "
        "stopped or changed. unknown: the box was killed or lost power; told at the next start, `time` is the last time known.",
    )
    model: ModelReference


class CameraEventMessage(_Message):
    """Something happened to a camera, not in front of it."""

    kind: Literal["camera_event"] = "camera_event"
    camera: str
    event: str = Field(description="connected, lost, frozen, resumed, resolution_changed, ended, decode_errors, ...")
    detail: str = ""


class StorageEvent(_Message):
    """The box had to give something up, or could not store something."""

    kind: Literal["storage_event"] = "storage_event"
    event: StorageTrouble
    count: int = Field(ge=1)
    detail: str = ""


Message = Alert | AlertClosed | CameraEventMessage | StorageEvent
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def parse_message(text: str | bytes) -> Message:
    """Reads what `to_json` wrote.

    Raises:
        pydantic.ValidationError: Not a message of this schema's version.
    """
    return _ADAPTER.validate_json(text)


def json_schema() -> dict[str, Any]:
    """The JSON schema of everything that leaves the box."""
    schema = _ADAPTER.json_schema(mode="serialization", by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ppe_edge messages", **schema}


def schema_text() -> str:
    """The content of alert.schema.json; `python -m ppe_edge.delivery.messages` prints it."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
