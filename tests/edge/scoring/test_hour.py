"""An hour of two cameras and three rules, in which the clocks are set back and the twin changes a schedule.

The box runs as always, except that its videos begin at a chosen moment. Their timestamps are its time, so the hour takes some
seconds.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ppe_edge.cameras import camera as camera_module
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.config import load_settings
from ppe_edge.control import Control
from ppe_edge.delivery.messages import Alert
from ppe_edge.errors import EdgeError
from ppe_edge.runtime import Runtime
from ppe_edge.scoring.figures import compare, figures_of
from ppe_edge.scoring.recording import RaisedAlert
from ppe_edge.scoring.truth import read_truth
from running_box import configure, delivered
from videos import write_video

from conftest import GREEN, GREY, RED, write_model  # isort: skip

# 02:40 in Berlin, in summer time; 20 minutes later, the clocks go back from 03:00 to 02:00. The quarter of a second keeps
# frames away from the edges of schedules.
BEGIN = datetime(2026, 10, 25, 0, 40, 0, 250_000, tzinfo=UTC)
HOUR, MIDDLE = 3600.0, 1800.0
FPS: dict[str, Fraction] = {"gate": Fraction(1), "yard": Fraction(1, 2)}

# Two people: (seconds, colour to the left, colour to the right) until the next row. Bare heads are red, helmets green.
SCENES = {
    "gate": [
        (0, GREY, GREY),
        (30, RED, GREY), (50, GREY, GREY),
        (290, RED, GREY), (320, GREY, GREY),
        (600, RED, GREY), (602, GREY, GREY),  # too short for an alert
        (900, RED, RED), (920, GREY, GREY),
        (1190, GREY, RED), (1210, GREY, GREY),  # while the clocks are set back
        (1500, GREEN, GREY), (1520, GREY, GREY),
        (1740, RED, GREY), (1770, GREY, GREY),
        (2100, RED, GREY), (2130, GREY, GREY),
        (2390, GREY, RED), (2420, GREY, GREY),
        (2700, RED, GREY), (2720, GREY, GREY),
        (3120, GREY, RED), (3140, GREY, GREY),
    ],
    "yard": [
        (0, GREY, GREY),
        (120, GREY, GREEN), (130, GREY, GREY),
        (360, GREEN, GREY), (370, GREY, GREY),
        (720, RED, GREY), (740, GREEN, GREY), (760, GREY, GREY),
        (1260, GREY, RED), (1270, GREY, GREY),
        (1860, GREY, GREEN), (1880, GREY, GREY),
        (2640, RED, GREY), (2660, GREY, GREY),
        (3300, GREY, GREEN), (3310, GREY, GREY),
    ],
}  # fmt: skip

LEFT = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]
RIGHT = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]
RULES = {
    # until the clocks show 02:50 for the last time, after 70 minutes of the videos; from the middle on, until 02:20, after 40
    "night": {"schedule": ["Sat 22:00-02:50"], "severity": "critical"},
    # from the first time that the clocks show 02:45, after 5 minutes
    "early": {"schedule": ["Sun 02:45-06:00"], "zones": {"left": LEFT}},
    "no_helmets": {"violation_class": "helmet", "zones": {"right": RIGHT}},
}
CHANGE = {"rules": {"night": {"schedule": ["Sat 22:00-02:20"]}}}

# What each rule must report. A violation begins with its rule.
TRUTH = {
    "night": """
        gate,0:30,0:50  gate,4:50,5:20  gate,15:00,15:20  gate,15:00,15:20  gate,19:50,20:10  gate,29:00,29:30  gate,35:00,35:30
        gate,39:50,40:00  yard,12:00,12:20  yard,21:00,21:10""",
    "early": """
        gate,5:00,5:20  gate,15:00,15:20  gate,29:00,29:30  gate,35:00,35:30  gate,45:00,45:20  yard,12:00,12:20
        yard,44:00,44:20""",
    "no_helmets": "yard,2:00,2:10  yard,31:00,31:20  yard,55:00,55:10",
}
STOPPED = [("gate", "night", 2399.0)]  # the only violation that is open when its rule ends

# Like the model of conftest.py, for the left and the right half of the image.
_GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
halves (uint8[batch, 64, 96, 3] images) => (float[batch, 2, 4] boxes_xyxy, float[batch, 2] scores, int64[batch, 2] labels)
<int64[5] shape = {0, 64, 2, 48, 3}, int64[2] area = {1, 3}, float white = {255}, int64[2] green_red = {1, 0},
 int64[1] blue = {2}, int64[1] one = {1}, int64[1] last = {2}, float floor = {0.1}, float nothing = {0}, int64[1] two = {2},
 int64[3] to_corners = {1, 1, 4}, float[1, 2, 4] places = {12, 16, 36, 48, 60, 16, 84, 48}>
{
  pixels = Cast <to = 1> (images)
  split = Reshape (pixels, shape)
  mean = ReduceMean <keepdims = 0> (split, area)
  parts = Div (mean, white)
  wanted = Gather <axis = 2> (parts, green_red)
  other = Gather <axis = 2> (parts, blue)
  beyond = Sub (wanted, other)
  is_there = Greater (beyond, floor)
  clean = Where (is_there, beyond, nothing)
  best, which = TopK <axis = 2> (clean, one)
  each_score = Squeeze (best, last)
  each_label = Squeeze (which, last)
  scores, order = TopK <axis = 1> (each_score, two)
  labels = GatherElements <axis = 1> (each_label, order)
  none_of_it = Mul (best, nothing)
  each_box = Add (none_of_it, places)
  row = Unsqueeze (order, last)
  rows = Tile (row, to_corners)
  boxes_xyxy = GatherElements <axis = 1> (each_box, rows)
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "halves.onnx", _GRAPH)


def draw_video(path: Path, camera: str) -> Path:
    fps, images = FPS[camera], list[np.ndarray]()
    for (start, left, right), (end, *_) in pairwise([*SCENES[camera], (HOUR, GREY, GREY)]):
        image = np.empty((64, 96, 3), np.uint8)
        image[:, :48], image[:, 48:] = left, right
        images += [image] * round((end - start) * fps)
    return write_video(path, images, fps=fps, options={"preset": "ultrafast"})


class Halt:
    """Holds the readers of the cameras in the middle of their videos, when all frames before it are processed."""

    def __init__(self, runtime: Runtime, parties: int) -> None:
        self._put, self._passed = runtime._mailbox.put, set[str]()
        self._barrier = threading.Barrier(parties + 1)
        runtime._mailbox.put = self._hold  # type: ignore[method-assign]

    def _hold(self, frame: Frame, wait: bool = False, unless: Callable[[], bool] = lambda: False) -> bool:
        if frame.time >= BEGIN.timestamp() + MIDDLE and frame.camera not in self._passed:
            self._passed.add(frame.camera)
            self.meet()
            self.meet()
        return self._put(frame, wait, unless)

    def meet(self) -> None:
        self._barrier.wait(60)


def test_hour_with_clock_and_schedule_change_raises_exactly_expected_alerts(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras: dict[str, Any] = {
        name: {"source": str(draw_video(tmp_path / f"{name}.mp4", name)), "view_health": False} for name in SCENES
    }
    cameras["gate"]["rules"] = {"no_helmets": {"enabled": False}}
    config = configure(tmp_path, model, cameras, site={"time_zone": "Europe/Berlin"}, rules=RULES)
    monkeypatch.setattr(camera_module, "steady_time", lambda monotonic: BEGIN.timestamp())
    monkeypatch.setattr("ppe_edge.common.clock._passed", 0.0)  # other tests have noted later times
    runtime = Runtime(load_settings(config))
    control = Control(runtime, config, {})
    halt = Halt(runtime, len(cameras))
    runtime.start()
    halt.meet()
    with pytest.raises(EdgeError, match="overlap"):
        control.apply({"rules": {"night": {"schedule": ["Sat 22:00-02:20", "Sun 02:00-03:00"]}}})
    control.apply(CHANGE)
    halt.meet()
    assert runtime.wait(120.0) and runtime.stop() and not runtime.failed

    closings = {body["violation"]: body for body in delivered(tmp_path, "alert_closed")}
    raised: dict[tuple[str, str], list[RaisedAlert]] = {(camera, rule): [] for camera in cameras for rule in RULES}
    for body in delivered(tmp_path, "alert"):
        alert, until = Alert.model_validate(body), closings.pop(body["violation"])["time"]
        where = {"track": alert.track, "score": alert.score, "box_xyxy": alert.box_xyxy}
        times = {"seconds": position(alert.time), "until": position(datetime.fromisoformat(until))}
        raised[alert.camera, alert.rule or ""].append(RaisedAlert(**times, **where))
    assert not closings
    for (camera, rule), alerts in raised.items():
        table = tmp_path / f"{rule}.csv"
        table.write_text("\n".join(["camera,start,end,kind", *(f"{row},violation" for row in TRUTH[rule].split())]))
        events = [event for event in read_truth(table, list(cameras), {"violation": "violation"}) if event.camera == camera]
        score = compare(camera, HOUR, events, alerts, tolerance=0.0)
        assert not score.false_alerts, (camera, rule)
        # at these rates, the third frame raises the alert, and the violation ends with the last frame that shows it
        assert [outcome.delay for outcome in score.outcomes] == [2 / FPS[camera]] * len(events), (camera, rule)
        ends = [outcome.alerts[0].until for outcome in score.outcomes]
        assert ends == [event.end - 1 / FPS[camera] for event in events], (camera, rule)
        figures = figures_of([score])
        assert (figures.found, figures.alerts_per_violation) == (len(events), 1.0 if events else None), (camera, rule)
    stopped = [body for body in delivered(tmp_path, "alert_closed") if body["end"] == "stopped"]
    assert [(body["camera"], body["rule"], position(datetime.fromisoformat(body["time"]))) for body in stopped] == STOPPED


def position(time: datetime) -> float:
    """Seconds from the first frame."""
    return round((time - BEGIN) / timedelta(seconds=1), 3)
