"""View health on drawn material: an ordinary hour raises nothing, every fault is reported in time, and so is its end."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import get_args

import cv2
import numpy as np
import pytest
from drawn_view import DrawnCamera, Image, draw_scene
from ppe_edge.camera_watch import EVENT_OF
from ppe_edge.cameras import view_health
from ppe_edge.cameras.view_health import ACCEPT_S, CHECK_S, LABELS, ViewChange, ViewFault, ViewWatch

Frames = Callable[[DrawnCamera], Image]
IN_TIME = 60.0  # seconds within which a fault must be reported
DAY: Frames = DrawnCamera.day


def watched(watch: ViewWatch, frames: Iterator[Image], start: float = 0.0) -> list[tuple[float, ViewFault | None]]:
    """Shows frames to a watch, one per look; returns the changes, with seconds since the first frame."""
    changes = [(i * CHECK_S, watch.update(frame, start + i * CHECK_S)) for i, frame in enumerate(frames)]
    return [(seconds, change.fault) for seconds, change in changes if change is not None]


def minutes(camera: DrawnCamera, count: float, make: Frames) -> Iterator[Image]:
    for _ in range(round(count * 60 / CHECK_S)):
        yield make(camera)


def learnt(camera: DrawnCamera, make: Frames = DAY) -> ViewWatch:
    """A watch that has seen two ordinary minutes."""
    watch = ViewWatch()
    assert watched(watch, minutes(camera, 2, make)) == []
    return watch


def test_every_fault_has_event_and_label() -> None:
    assert EVENT_OF.keys() == LABELS.keys() == set(get_args(ViewFault))


def test_ordinary_material_raises_nothing() -> None:
    """Four minutes are dusk; all other changes come from one frame to the next."""
    camera = DrawnCamera(draw_scene(1))
    material: list[tuple[float, Frames]] = [
        (2, DAY),
        (1, lambda c: c.with_people(2, 120)),
        (1, lambda c: c.with_people(2, 330)),
        *((0.5, lambda c, light=light: c.day(light)) for light in np.linspace(1, 0.2, 8)),
        (2, DrawnCamera.lamps),
        (4, DrawnCamera.infrared),
        (1, lambda c: c.day(0.6)),
        (2, DrawnCamera.rain),
        (2, lambda c: c.with_lorry(0.55)),
        (1, DAY),
    ]
    watch = ViewWatch()
    frames = (frame for count, make in material for frame in minutes(camera, count, make))
    assert watched(watch, frames) == []
    assert watched(watch, minutes(camera, 1, lambda c: c.plain(0)), 3600.0)[0][1] == "covered"  # it is still watching


@pytest.mark.parametrize(
    ("fault", "make"),
    [
        pytest.param("covered", lambda c: c.plain(0), id="black"),
        pytest.param("covered", lambda c: c.plain(110), id="grey bag"),
        pytest.param("covered", lambda c: c.sprayed(0.85), id="sprayed"),
        pytest.param("overexposed", lambda c: c.plain(255), id="white"),
        pytest.param("out_of_focus", lambda c: c.defocused(2.5), id="slightly out of focus"),
        pytest.param("out_of_focus", lambda c: c.defocused(8), id="far out of focus"),
        pytest.param("turned", lambda c: c.turned(0.05), id="turned by a twentieth"),
        pytest.param("turned", lambda c: c.turned(0.25), id="turned by a quarter"),
        pytest.param("turned", DrawnCamera.turned_away, id="turned to another scene"),
    ],
)
def test_fault_and_its_end_are_reported_in_time(fault: ViewFault, make: Frames) -> None:
    camera = DrawnCamera(draw_scene(3))
    watch = learnt(camera)
    [(seconds, found)] = watched(watch, minutes(camera, 2, make), 120.0)
    assert found == watch.fault == fault and seconds <= IN_TIME
    [(seconds, found)] = watched(watch, minutes(camera, 2, DAY), 240.0)
    assert found is watch.fault is None and seconds <= IN_TIME


def test_fault_at_night_is_reported() -> None:
    camera = DrawnCamera(draw_scene(3))
    watch = learnt(camera, DrawnCamera.infrared)
    [(seconds, found)] = watched(watch, minutes(camera, 1, lambda c: c.plain(2)), 120.0)
    assert found == "covered" and seconds <= IN_TIME


@pytest.mark.parametrize(("level", "fault"), [(0, "covered"), (130, "covered"), (255, "overexposed")])
def test_camera_covered_from_the_start_is_reported_without_history(level: int, fault: ViewFault) -> None:
    def covered(camera: DrawnCamera) -> Image:
        """With the time and the name that cameras write into the frame, and the words of a recorder."""
        image = camera.plain(level)
        for text, at in (("2026-11-29 14:00:00", (10, 24)), ("CAMERA 01 GATE", (430, 345)), ("VIDEO LOSS", (260, 190))):
            cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255 - level,) * 3, 2)
        return image

    camera, watch = DrawnCamera(draw_scene(1)), ViewWatch()
    [(seconds, found)] = watched(watch, minutes(camera, 2, covered))
    assert found == fault and seconds <= IN_TIME
    assert [f for _, f in watched(watch, minutes(camera, 2, DAY), 120.0)] == [None]
    assert [f for _, f in watched(watch, minutes(camera, 1, lambda c: c.turned(0.5)), 240.0)] == ["turned"]  # it has learnt DAY


def test_flickering_light_raises_nothing() -> None:
    """Lamps or the automatic exposure change the brightness from frame to frame, which is no noise."""
    camera = DrawnCamera(draw_scene(3))
    watch, light = learnt(camera), cycle((0.6, 1.0))
    assert watched(watch, minutes(camera, 1, lambda c: c.day(next(light))), 120.0) == []


@pytest.mark.parametrize(
    ("fault", "make"),
    [
        # a seventh of the contrast is left, but neither the brightness nor the place of anything has changed
        pytest.param("covered", lambda c, x: c.frame((1 - 0.85 * x) * c.scene + 130 * 0.85 * x), id="mist"),
        pytest.param("out_of_focus", lambda c, x: c.defocused(0.3 + 6 * x), id="condensation"),
        pytest.param("turned", lambda c, x: c.turned(0.2 * x), id="loose mount"),
    ],
)
def test_fault_that_grows_slowly_is_reported(fault: ViewFault, make: Callable[[DrawnCamera, float], Image]) -> None:
    """It grows for two hours: over ten minutes, hardly anything changes."""
    camera = DrawnCamera(draw_scene(3))
    watch = learnt(camera)
    changes = [watch.update(make(camera, i / 120), 120.0 + 60 * i) for i in range(1, 121)]
    assert [change.fault for change in changes if change is not None] == [fault]


def test_dusk_of_an_hour_raises_nothing() -> None:
    """At its end, a sixteenth of the light is left, and most of the view is blank."""
    camera = DrawnCamera(draw_scene(3))
    watch = ViewWatch()
    light = [1.0] * 30 + [0.0625 ** min(1.0, i / 120) for i in range(150)]  # one look in 30 s
    assert [change for i, x in enumerate(light) if (change := watch.update(camera.day(x), 30.0 * i))] == []


def test_short_cover_is_not_reported() -> None:
    """Somebody cleans the lens for 15 s."""
    camera = DrawnCamera(draw_scene(3))
    watch = learnt(camera)
    assert watched(watch, minutes(camera, 0.25, lambda c: c.plain(20)), 120.0) == []
    assert watched(watch, minutes(camera, 1, DAY), 135.0) == []


def test_patrolling_camera_is_soon_known() -> None:
    """It shows four scenes in turn, each for half a minute."""
    scenes = [DrawnCamera(draw_scene(seed)) for seed in (11, 12, 13, 14)]
    watch = ViewWatch()
    frames = (frame for _ in range(3) for scene in scenes for frame in minutes(scene, 0.5, DAY))
    watched(watch, frames)  # the first turn looks like any other
    frames = (frame for _ in range(3) for scene in scenes for frame in minutes(scene, 0.5, DAY))
    assert watched(watch, frames, 360.0) == []


def test_turned_view_is_accepted_after_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_health, "ACCEPT_S", 120.0)
    camera, moved = DrawnCamera(draw_scene(3)), DrawnCamera(draw_scene(7))
    watch = learnt(camera)
    changes = watched(watch, minutes(moved, 6, DAY), 120.0)
    assert [fault for _, fault in changes] == ["turned", None]
    assert ACCEPT_S == 24 * 3600.0 and changes[1][0] - changes[0][0] == pytest.approx(120.0, abs=CHECK_S)
    assert [fault for _, fault in watched(watch, minutes(camera, 1, DAY), 480.0)] == ["turned"]  # the old view is now unusual


def test_rare_frames_are_enough() -> None:
    """One frame in 5 s."""
    camera, watch = DrawnCamera(draw_scene(3)), ViewWatch()
    frames = [*minutes(camera, 3, DAY), *minutes(camera, 3, lambda c: c.turned(0.3))]
    changes = [(5.0 * (i - 60), watch.update(frame, 5.0 * i)) for i, frame in enumerate(frames)]
    [(seconds, change)] = [(s, c) for s, c in changes if c is not None]
    assert change == ViewChange(fault="turned", detail="the view is turned away") and 0 < seconds <= IN_TIME


def test_looks_are_rare_and_memory_is_bounded() -> None:
    """At 25 frames per second, no frame between two looks is touched."""
    camera = DrawnCamera(draw_scene(3))
    watch, frame = learnt(camera), camera.day()
    before = {k: v for k, v in vars(watch).items() if k != "_last"}
    for i in range(int(25 * CHECK_S) - 1):
        assert watch.update(frame, 120.0 - CHECK_S + (i + 1) / 25) is None
    assert all(vars(watch)[k] is v for k, v in before.items())


def test_change_of_resolution_keeps_history_and_change_of_shape_forgets_it() -> None:
    camera = DrawnCamera(draw_scene(3))
    watch = learnt(camera)
    half = (frame[::2, ::2] for frame in minutes(camera, 1, DAY))
    assert watched(watch, half, 120.0) == []
    square = (frame[:, 140:500] for frame in minutes(camera, 2, DAY))
    assert watched(watch, square, 180.0) == []
    assert [fault for _, fault in watched(watch, (frame[:, :360] for frame in minutes(camera, 1, DAY)), 300.0)] == ["turned"]
