import json
from datetime import datetime, timedelta, timezone

import pytest
from example_messages import MODEL, NOON, an_alert
from hypothesis import given
from hypothesis import strategies as st
from ppe_edge.delivery.messages import SCHEMA_FILE, AlertClosed, CameraEventMessage, parse_message, schema_text, utc
from pydantic import ValidationError


def test_alert_to_json_matches_published_schema() -> None:
    body = json.loads(an_alert(3, id="b5a3c1c2-0000-4000-8000-000000000001", zone="gate-lane").to_json())
    assert body == {
        "schema_version": 1,
        "id": "b5a3c1c2-0000-4000-8000-000000000001",
        "kind": "alert",
        "camera": "gate",
        "time": "2027-01-15T08:00:03Z",
        "class": "none",
        "score": 0.75,
        "box_xyxy": [1.0, 2.0, 30.0, 40.0],
        "frame_size": [480, 640],
        "track": 3,
        "zone": "gate-lane",
        "violation": "gate-3",
        "model": {"name": "tiny.onnx", "sha256": "0" * 64, "provenance": {"recipe": "tiny"}},
        "snapshot": None,
        "redelivered": False,
    }


def test_schema_file_matches_code() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()


def test_schema_discriminates_all_kinds() -> None:
    schema = json.loads(schema_text())
    assert sorted(schema["discriminator"]["mapping"]) == [
        "alert", "alert_clip", "alert_closed", "alert_verdict", "camera_event", "compliance_report", "storage_event",
    ]  # fmt: skip
    assert "class" in schema["$defs"]["Alert"]["properties"] and "class_name" not in schema["$defs"]["Alert"]["properties"]


def test_to_json_converts_time_to_utc() -> None:
    half_past_nine = datetime(2027, 1, 15, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    message = CameraEventMessage(time=half_past_nine, camera="gate", event="lost")
    assert json.loads(message.to_json())["time"] == "2027-01-15T08:30:00Z"


def test_time_without_zone_is_rejected() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        CameraEventMessage(time=datetime(2027, 1, 15), camera="gate", event="lost")


@pytest.mark.parametrize("change", [{"score": 1.5}, {"score": float("nan")}, {"box_xyxy": (1, 2, 3)}, {"colour": "red"}])
def test_alert_with_invalid_value_is_rejected(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        an_alert(**change)


@given(st.text(max_size=20), st.floats(0, 1), st.integers(0), st.floats(0, 1e9))
def test_parse_message_restores_written_message(camera: str, score: float, track: int, seconds: float) -> None:
    alert = an_alert(camera=camera, score=score, track=track)
    closed = AlertClosed(
        time=utc(NOON),
        camera=camera,
        class_name="none",
        track=track,
        violation="v",
        started=utc(NOON - 1),
        duration_s=seconds,
        model=MODEL,
    )
    for message in (alert, closed):
        assert parse_message(message.to_json()) == message
        assert "\n" not in message.to_json()


def test_messages_have_unique_ids() -> None:
    assert len({an_alert().id for _ in range(100)}) == 100
