"""Example messages."""

from typing import Any

from ppe_edge.delivery.messages import Alert, AlertClip, AlertClosed, CameraEventMessage, ModelReference, utc

MODEL = ModelReference(name="tiny.onnx", sha256="0" * 64, provenance={"recipe": "tiny"})
NOON = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def an_alert(number: int = 0, **changes: Any) -> Alert:
    values: dict[str, Any] = {
        "time": utc(NOON + number),
        "camera": "gate",
        "class_name": "none",
        "score": 0.75,
        "box_xyxy": (1.0, 2.0, 30.0, 40.0),
        "frame_size": (480, 640),
        "track": number,
        "zone": None,
        "violation": f"gate-{number}",
        "model": MODEL,
    }
    return Alert(**{**values, **changes})


def a_closing(number: int = 0, seconds: float = 5.0) -> AlertClosed:
    """The end of `an_alert(number)`, seen `seconds` later."""
    return AlertClosed(
        time=utc(NOON + number + seconds),
        camera="gate",
        class_name="none",
        track=number,
        violation=f"gate-{number}",
        started=utc(NOON + number),
        duration_s=seconds,
        model=MODEL,
    )


def a_clip(number: int = 0) -> AlertClip:
    """The clip of `an_alert(number)`."""
    return AlertClip(
        time=utc(NOON + number),
        camera="gate",
        class_name="none",
        score=0.75,
        track=number,
        violation=f"gate-{number}",
        alert=f"alert-{number}",
        offset_s=-5.0,
        duration_s=10.0,
    )


def a_camera_event(number: int = 0, **changes: Any) -> CameraEventMessage:
    return CameraEventMessage(**{"time": utc(NOON + number), "camera": "gate", "event": "lost", **changes})
