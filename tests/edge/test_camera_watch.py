"""When a camera needs attention, by its settings and its view."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ppe_edge import camera_watch
from ppe_edge.camera_watch import CameraWatch
from ppe_edge.cameras.camera import CameraReader
from ppe_edge.cameras.mailbox import FrameMailbox
from ppe_edge.config import load_settings
from ppe_edge.deployment import Deployment
from ppe_edge.model.store import ModelStore
from running_box import configure


class Watched:
    """A camera that is watched once a second, whose state and settings the test sets."""

    def __init__(self, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now, self._folder, self._model = 0, folder, model
        monkeypatch.setattr(camera_watch, "time", SimpleNamespace(monotonic=lambda: float(self._now), time=time.time))
        deployment = self._deployment()
        self.watch = CameraWatch("gate", deployment)
        self.reader = CameraReader("gate", deployment.settings.cameras["gate"], FrameMailbox(), lambda event: None)

    def _deployment(self, **camera: Any) -> Deployment:
        file = configure(self._folder, self._model, {"gate": {"source": "rtsp://127.0.0.1:9/", **camera}})
        settings = load_settings(file)
        return Deployment(settings, ModelStore(settings.state_dir, settings.model).open())

    def configure(self, **camera: Any) -> None:
        self.watch.deploy(self._deployment(**camera))

    def details(self, state: Any, minutes: float, outage: str = "") -> list[str]:
        """What is reported while the camera has a state."""
        self.reader.state, self.reader.outage, found = state, outage, []
        for _ in range(round(60 * minutes)):
            self._now += 1
            event = self.watch.check_attention(self.reader)
            found += [] if event is None else [f"{event.kind}: {event.detail}"]
        return found


@pytest.fixture
def gate(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, tiny_model, monkeypatch)


def test_reason_is_the_latest_one(gate: Watched) -> None:
    assert gate.details("lost", 8, "no answer in time") == []
    assert gate.details("lost", 2.1, "wrong password") == [
        "needs_attention: it has not worked reliably for 10 minutes; now lost: wrong password"
    ]
    assert gate.details("live", 10.1) == ["works_again: it had not worked reliably for 10 minutes"]


def test_faulty_view_counts_until_it_is_no_longer_checked(gate: Watched) -> None:
    assert gate.watch._view is not None
    gate.watch._view.fault = "covered"
    assert gate.details("live", 11) == [
        "needs_attention: it has not worked reliably for 10 minutes; now the view is covered or dark"
    ]
    gate.configure(view_health=False)
    assert gate.details("live", 60) == []


@pytest.mark.parametrize("lost_minutes", [5, 60])
def test_time_without_the_check_does_not_count(gate: Watched, lost_minutes: int) -> None:
    gate.details("lost", lost_minutes)
    gate.configure(attention_after_s=None)
    assert gate.details("lost", 60) + gate.details("live", 60) == []
    gate.configure()
    assert gate.details("live", 60) + gate.details("lost", 9.9) == []
    assert len(gate.details("lost", 0.2)) == 1


def test_file_needs_no_attention(gate: Watched, tmp_path: Path) -> None:
    gate.reader.config = gate.reader.config.model_copy(update={"source": type(gate.reader.config.source)(str(tmp_path))})
    assert gate.details("ended", 60) == []


def test_another_reader_and_rare_frames_are_not_slow(gate: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of settings replaces the reader, whose wait counts from 0 again. A wait counts when its frame is there."""
    monkeypatch.setattr(gate.watch._rate, "required", 0.01)
    gate.reader.state, found = "live", []
    for second in range(240):
        gate._now = second
        if second % 12 == 0:
            gate.watch._meter.add(float(second))
        gate.reader.waited_s = (second % 120) // 12 * 12.0
        found.append(gate.watch.check_rate(gate.reader))
    assert not any(found)
