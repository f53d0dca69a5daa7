import json
from datetime import datetime, timedelta, timezone

import pytest
from alert_drawing import MODEL, NOON, an_alert
from hypothesis import given
from hypothesis import strategies as st
from ppe_edge.delivery.messages import SCHEMA_FILE, AlertClosed, CameraEventMessage, parse_message, schema_text, utc
from pydantic import ValidationError


def test_an_alert_is_the_json_that_was_agreed() -> None:
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


def test_the_schema_in_the_package_is_the_schema_of_the_code() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()


def test_the_schema_tells_the_four_kinds_apart() -> None:
    schema = json.loads(schema_text())
    assert sorted(schema["discriminator"]["mapping"]) == ["alert", "alert_closed", "camera_event", "storage_event"]
    assert "class" in schema["$defs"]["Alert"]["properties"] and "class_name" not in schema["$defs"]["Alert"]["properties"]


def test_times_are_told_in_utc() -> None:
    half_past_nine = datetime(2027, 1, 15, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    message = CameraEventMessage(time=half_past_nine, camera="gate", event="lost")
    assert json.loads(message.to_json())["time"] == "2027-01-15T08:30:00Z"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        CameraEventMessage(time=datetime(2027, 1, 15), camera="gate", event="lost")


@pytest.mark.parametrize("change", [{"score": 1.5}, {"score": float("nan")}, {"box_xyxy": (1, 2, 3)}, {"colour": "red"}])
def test_an_alert_that_cannot_be_true_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        an_alert(**change)


@given(st.text(max_size=20), st.floats(0, 1), st.integers(0), st.floats(0, 1e9))
def test_what_was_written_is_read_back(camera: str, score: float, track: int, seconds: float) -> None:
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


def test_every_message_has_an_id_of_its_own() -> None:
    assert len({an_alert().id for _ in range(100)}) == 100
