"""Verdicts: stored, sent, counted, and turned into training data that the library reads."""

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from example_messages import an_alert
from helpers import wait_until
from judged_box import NOISE, Box, a_view
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.errors import EdgeError
from ppe_edge.verdicts.config import VerdictsConfig
from ppe_edge.verdicts.desk import Decision
from ppe_edge.verdicts.frames import AlertFrames
from pydantic import ValidationError

from ppe_yolo.data.dataset import AnnotatedDataset


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    made = Box(tmp_path, getattr(request, "param", "full"))
    yield made
    made.close()


PENDING = ["frames/x.jpg", "frames/x.json"]
TRAINING = ["frames/x.json", "training/Annotations/x.xml", "training/JPEGImages/x.jpg"]
OTHER_HELMET = ("helmet", (70, 20, 120, 60))


def test_verdict_is_stored_sent_to_sinks_and_counted(box: Box) -> None:
    given = box.decide("false_alarm", actual="helmet", comment="white\n helmet\x07 \U0001f477\u200d\u2640")
    alert = box.outbox.claim("hub")
    assert alert is not None and alert.id == box.alert.id
    box.outbox.ack(alert)
    sent = box.outbox.claim("hub")
    assert sent is not None and given is not None
    body = json.loads(sent.message.to_json())
    assert {k: body[k] for k in ("kind", "schema_version", "alert", "violation", "camera", "verdict", "actual")} == {
        "kind": "alert_verdict", "schema_version": 2, "alert": box.alert.id, "violation": "gate-7", "camera": "gate",
        "verdict": "false_alarm", "actual": "helmet",
    }  # fmt: skip
    assert (body["acknowledged"], body["comment"], body["id"]) == (True, "white helmet \U0001f477\u200d\u2640", given.id)
    assert b'ppe_edge_verdicts_total{camera="gate",verdict="false_alarm"} 1.0' in box.telemetry.text()


def test_confirmed_frame_is_training_data_that_library_reads(box: Box) -> None:
    assert box.files() == PENDING
    box.decide("confirmed")
    assert box.files() == TRAINING
    assert box.annotation() == [("none", (10, 20, 40, 60)), OTHER_HELMET]
    modes = {stat.S_IMODE(f.stat().st_mode) for p in ("frames", "training") for f in (box.folder / p).rglob("*") if f.is_file()}
    assert modes == {0o600} and stat.S_IMODE((box.folder / "training").stat().st_mode) == 0o700
    dataset = AnnotatedDataset.open(box.folder / "training", on_error="skip", progress=False)
    [image] = [image for images in dataset.splits.values() for image in images]
    assert dataset.errors == [] and [item.class_name for item in image.objects] == ["none", "helmet"]


@pytest.mark.parametrize(
    ("actual", "objects"), [("helmet", [("helmet", (10, 20, 40, 60)), OTHER_HELMET]), ("other", [OTHER_HELMET])]
)
def test_false_alarm_corrects_label_in_draft(box: Box, actual: str, objects: list[object]) -> None:
    box.decide("confirmed")
    box.decide("false_alarm", actual=actual)
    assert box.annotation() == objects


def test_repeated_verdict_keeps_corrected_annotation(box: Box) -> None:
    box.decide("confirmed")
    [file] = (box.folder / "training" / "Annotations").iterdir()
    file.write_text(file.read_text().replace("helmet", "vest"))
    box.decide("confirmed")
    assert ("vest", OTHER_HELMET[1]) in box.annotation()
    file.unlink()  # the disk was full
    box.decide("confirmed")
    assert OTHER_HELMET in box.annotation()
    box.decide("false_alarm", actual="helmet")
    assert box.annotation()[0][0] == "helmet"


def test_frame_leaves_training_data_when_verdict_is_taken_back_or_cause_unknown(box: Box) -> None:
    box.decide("confirmed")
    box.decide("false_alarm")
    assert box.files() == PENDING
    box.decide("confirmed")
    assert box.decide(None, acknowledged=True) is not None
    assert box.files() == PENDING


@pytest.mark.parametrize("box", ["none", "blurred", "full"], indirect=True)
def test_frame_is_kept_according_to_setting(box: Box) -> None:
    file = box.frames.find(box.alert)
    setting = box.frames._config.frames
    assert (file is None) == (setting == "none")
    if file is not None:
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB).astype(int)
        change = abs(image - NOISE)[22:58, 12:38].mean()  # in the alarmed head; the noise loses its colours to JPEG
        assert change > 60 if setting == "blurred" else change < 50
    assert box.decide("confirmed") is not None  # also without a frame


def test_viewing_is_recorded_before_frame_is_shown(box: Box) -> None:
    assert box.desk.frame(box.alert.id, "192.0.2.7") is not None
    assert box.desk.frame("00000000-0000-0000-0000-000000000000", "192.0.2.7") is None
    record = box.folder / "viewings.jsonl"
    [viewing] = [json.loads(line) for line in record.read_text().splitlines()]
    assert (viewing["alert"], viewing["address"]) == (box.alert.id, "192.0.2.7") and viewing["time"].endswith("+00:00")
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    record.unlink()
    record.mkdir()  # nothing can be written
    with pytest.raises(OSError):
        box.desk.frame(box.alert.id, "192.0.2.7")


def test_too_many_and_old_frames_are_deleted_with_their_annotations(tmp_path: Path) -> None:
    box = Box(tmp_path, "full", keep=3)
    box.decide("confirmed")
    for age, file in ((100, box.alert), (91, box.raise_alert(camera="old"))):
        found = box.frames.find(file)
        assert found is not None
        os.utime(found, (time.time() - age * 86400,) * 2)
    newer = [box.raise_alert() for _ in range(5)]
    assert sum(box.frames.find(alert) is not None for alert in newer) == 3
    assert len(box.files()) == 6 and not any("training" in file or "old" in file for file in box.files())
    box.close()


@pytest.mark.parametrize("ahead_days", [-100, 100])
def test_age_of_frame_is_measured_by_clock_of_outbox(tmp_path: Path, ahead_days: float) -> None:
    ages = [time.time() + ahead_days * 86400]
    frames = AlertFrames(VerdictsConfig(frames="full"), tmp_path, 90.0, lambda: ages[0])
    first, second, third = (an_alert(n) for n in range(3))
    frames.keep(first, a_view())
    ages[0] += 89 * 86400
    frames.keep(second, a_view())
    assert frames.find(first) is not None
    ages[0] += 2 * 86400
    frames.keep(third, a_view())
    assert [frames.find(alert) is not None for alert in (first, second, third)] == [False, True, True]


def test_old_frames_are_deleted_without_a_new_alert(box: Box) -> None:
    box.decide("confirmed")
    found = box.frames.find(box.alert)
    assert found is not None
    os.utime(found, (time.time() - 91 * 86400,) * 2)
    AlertFrames(VerdictsConfig(frames="none"), box.folder, 90.0).forget_old_soon()  # also after the setting was changed
    wait_until(lambda: box.files() == [])


def test_full_disk_refuses_verdict_and_costs_no_alert(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (box.folder / "frames").rename(box.folder / "away")
    (box.folder / "frames").write_text("a file in the way")
    box.raise_alert()
    assert "gate: cannot keep the frame of an alert" in caplog.text
    monkeypatch.setattr(Outbox, "trouble", "the disk is full")
    with pytest.raises(EdgeError, match="cannot be stored"):
        box.decide("confirmed")
    past = box.desk.history.alert(box.alert.id)
    assert past is not None and past.verdict is None


def test_unknown_alert_and_cause_change_nothing(box: Box) -> None:
    assert box.desk.decide("00000000-0000-0000-0000-000000000000", Decision(verdict="confirmed")) is None
    with pytest.raises(EdgeError, match="expected one of helmet, none, other"):
        box.decide("false_alarm", actual="../../etc")
    assert box.files() == PENDING
    for wrong in ({"verdict": "maybe"}, {"actual": "helmet"}, {"comment": "x" * 501}, {"by": "me"}):
        with pytest.raises(ValidationError):
            Decision(**wrong)  # type: ignore[arg-type]
