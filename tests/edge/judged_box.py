"""A box without cameras whose alert can be judged."""

from pathlib import Path
from typing import Any

import example_views
import numpy as np
from example_messages import an_alert
from example_views import CONTRACT, a_track
from ppe_edge.delivery.alert_history import AlertHistory
from ppe_edge.delivery.messages import Alert, AlertVerdict
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.monitoring.telemetry import Collected, Telemetry
from ppe_edge.pictures.snapshot import SnapshotConfig, View, make_snapshot
from ppe_edge.verdicts.config import Frames, VerdictsConfig
from ppe_edge.verdicts.desk import AlertDesk, Decision
from ppe_edge.verdicts.frames import AlertFrames
from ppe_edge.verdicts.viewings import ViewingRecord

from ppe_yolo.data.sources.voc import read_voc_annotation

NOISE = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
HEAD, NEIGHBOUR = (10.0, 20.0, 40.0, 60.0), (70.0, 20.0, 130.0, 60.0)  # the neighbour's box goes beyond the frame


def a_view(image: np.ndarray = NOISE) -> View:
    """A frame with the alarmed head, a worker with helmet, and a weak detection."""
    worker = a_track(NEIGHBOUR, 8, score=0.9, label=0)
    weak = a_track((0.0, 0.0, 9.0, 9.0), 9, score=0.2)
    return example_views.a_view(image, a_track(HEAD, score=0.8), worker, weak, alarmed=frozenset({7}))


class Box:
    """A box with a sink whose messages nobody takes, and one alert."""

    def __init__(self, folder: Path, frames: Frames, keep: int = 500) -> None:
        self.folder, self.time_zone = folder, "Asia/Tokyo"
        self.outbox = Outbox(OutboxConfig(), folder, ["hub"])
        self.telemetry = Telemetry(Collected(dict, dict, lambda: True))
        self.frames = AlertFrames(VerdictsConfig(frames=frames, keep=keep), folder, 90.0)
        self.desk = AlertDesk(
            history=AlertHistory(folder / "outbox.db"),
            outbox=self.outbox,
            frames=self.frames,
            viewings=ViewingRecord(folder / "viewings.jsonl"),
            telemetry=self.telemetry,
            contract=lambda: CONTRACT,
            threshold=lambda alert: 0.5,
            time_zone=lambda: self.time_zone,
            topology=lambda: {"gate": ["default"], "yard": ["default", "vest"]},
        )
        self.alert = self.raise_alert()
        self.alerts = [self.alert]

    def close(self) -> None:
        self.desk.history.close()
        self.outbox.close()

    def raise_alert(self, image: np.ndarray = NOISE, **changes: Any) -> Alert:
        alert = an_alert(7, box_xyxy=HEAD, frame_size=(80, 120), **changes)
        self.frames.keep(alert, a_view(image))
        self.outbox.put(alert, make_snapshot(a_view(image), SnapshotConfig(), {7}))
        return alert

    def decide(self, verdict: Any, **more: Any) -> AlertVerdict | None:
        past = self.desk.decide(self.alert.id, Decision(verdict=verdict, **more))
        return past and past.verdict

    def files(self) -> list[str]:
        """The files of frames and training data, without the name of the alert."""
        found = (f for place in ("frames", "training") for f in (self.folder / place).rglob("*") if f.is_file())
        return sorted(str(f.relative_to(self.folder)).replace(f"gate_{self.alert.id}", "x") for f in found)

    def annotation(self) -> list[tuple[str, tuple[float, ...]]]:
        [file] = (self.folder / "training" / "Annotations").iterdir()
        return [(item.class_name, item.box_xyxy) for item in read_voc_annotation(file).objects]
