"""Zones drawn on the page: validated like those of edge.yaml, in force at once and after a restart, and undone."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ppe_edge.config import load_settings
from ppe_edge.control import Control
from ppe_edge.drawn_zones import DrawnZones, read_drawn_zones
from ppe_edge.errors import EdgeError
from ppe_edge.runtime import Runtime
from ppe_edge.web.config import WebConfig
from ppe_edge.web.server import WebServer
from ppe_edge.web.status import RuntimeStatus
from running_box import configure, running

OPERATOR, VIEWER = "operators-of-the-gate-0123", "viewers-of-the-gate-01234"
DOOR = ((0.1, 0.2), (0.9, 0.2), (0.5, 1.0))
FILE_ZONES = {"lane": ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))}


class Box:
    """A running box whose camera has a zone in edge.yaml, and its page."""

    def __init__(self, runtime: Runtime, control: Control, config: Path, port: int) -> None:
        self.runtime, self.control, self.config, self.port = runtime, control, config, port

    def post(self, path: str, body: object, token: str = OPERATOR) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def draw(self, zones: Any, rule: str = "default", camera: str = "gate", **more: Any) -> tuple[int, str]:
        return self.post("/api/zones", {"camera": camera, "rule": rule, "zones": zones}, **more)

    def zones(self) -> dict[str, Any]:
        """The zones in force, and those after a restart, which must be the same."""
        now = self.runtime.settings.rules_of("gate")["default"].zones
        assert load_settings(self.config).rules_of("gate")["default"].zones == now
        return now


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, make_clip: Any) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box")
    clip = make_clip(folder / "endless.mp4", [((90, 90, 90), 1500)])
    camera = {"source": str(clip), "zones": FILE_ZONES, "rule": {"zones": ["lane"]}}
    config = configure(folder, tiny_model, {"gate": camera})
    with running(config) as (runtime, control):
        web = WebConfig(port=0, token=OPERATOR, viewer_token=VIEWER)
        server = WebServer(web, RuntimeStatus(runtime), runtime.desk, control)
        server.start()
        yield Box(runtime, control, config, server.port)
        assert server.stop(5.0)


@pytest.fixture
def box(served: Box) -> Box:
    """Nothing is drawn."""
    (served.runtime.settings.state_dir / "zones.json").unlink(missing_ok=True)
    assert served.control.reload()["reloaded"]
    return served


def test_drawn_zones_replace_those_of_file_now_and_after_restart(box: Box) -> None:
    text = box.config.read_text()
    assert box.zones() == FILE_ZONES
    status, answer = box.draw({"door": DOOR, "<b>yard</b>": DOOR})
    assert status == 200 and json.loads(answer)["zones"]["gate"]["default"]["door"] == [list(corner) for corner in DOOR]
    assert box.zones() == {"door": DOOR, "<b>yard</b>": DOOR}
    assert box.draw({})[0] == 200 and box.zones() == {}  # the whole frame
    assert box.config.read_text() == text


def test_undo_takes_changes_back_one_by_one(box: Box) -> None:
    box.draw({"door": DOOR})
    box.draw({})
    assert box.post("/api/zones/undo", {})[0] == 200 and box.zones() == {"door": DOOR}
    assert box.post("/api/zones/undo", {})[0] == 200 and box.zones() == FILE_ZONES
    status, answer = box.post("/api/zones/undo", {})
    assert (status, answer) == (409, "there is no change of zones to undo\n") and box.zones() == FILE_ZONES


@pytest.mark.parametrize(
    ("zones", "reason"),
    [
        ({"door": DOOR[:2]}, "zone 'door': expected three corners or more, got 2"),
        ({"door": ((0, 0), (1, 0), (1, 1.5))}, "expected corners as fractions of width and height"),
        ({"door": ((0, 0), (1, 1), (1, 0), (0, 1))}, "its outline crosses itself"),
    ],
)
def test_zones_are_refused_as_in_file(box: Box, zones: Any, reason: str) -> None:
    status, answer = box.draw(zones)
    assert status == 409 and reason in answer and box.zones() == FILE_ZONES


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"camera": "gate", "rule": "default", "zones": {"door": "everywhere"}}, 400),
        ({"camera": "gate", "rule": "default", "zones": {}, "model": {"path": "x"}}, 400),
        ({"camera": "gate", "rule": "default", "zones": {str(n): DOOR for n in range(33)}}, 400),
        ({"camera": "../gate", "rule": "default", "zones": {}}, 409),
        ({"camera": "gate", "rule": "vest", "zones": {}}, 409),
        ("x" * 20_000, 413),
    ],
)
def test_unreadable_drawing_is_rejected_and_changes_nothing(box: Box, body: object, status: int) -> None:
    assert box.post("/api/zones", body)[0] == status and box.zones() == FILE_ZONES


def test_viewer_draws_nothing(box: Box) -> None:
    assert box.draw({}, token=VIEWER)[0] == box.post("/api/zones/undo", {}, VIEWER)[0] == 403
    assert box.zones() == FILE_ZONES


def test_zones_that_twin_sets_are_not_drawn(box: Box) -> None:
    control = Control(box.runtime, box.config, {"cameras": {"gate": {"rule": {"zones": {"door": DOOR}}}}})
    with pytest.raises(EdgeError, match="the module twin"):
        control.draw_zones("gate", "default", {})
    assert box.zones() == FILE_ZONES


def test_change_that_cannot_be_saved_is_taken_back(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: DrawnZones, state_dir: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DrawnZones, "save", fail)
    status, answer = box.draw({"door": DOOR})
    assert status == 409 and "nothing was changed" in answer and box.zones() == FILE_ZONES


def test_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "zones.json").write_text('{"zones": 5}')
    with pytest.raises(EdgeError, match=r"zones\.json: expected the zones drawn .*the zones of edge\.yaml apply then"):
        read_drawn_zones(tmp_path)


@pytest.mark.parametrize(
    ("document", "cameras"),
    [
        ({"cameras": {"gate": {}}}, {"gate": {"rule": {"zones": {"door": DOOR}}}}),
        ({"cameras": {"gate": {"rule": {"seconds": 2}}}}, {"gate": {"rule": {"seconds": 2, "zones": {"door": DOOR}}}}),
        # the one rule became a named one since: it is not known where its zones belong
        ({"cameras": {"gate": {}}, "rules": {"vest": {}}}, {"gate": {}}),
        ({"cameras": {"yard": {}}}, {"yard": {}}),
    ],
)
def test_drawn_zones_of_default_rule_go_where_it_is_set(document: dict[str, Any], cameras: dict[str, Any]) -> None:
    before = json.dumps(document)
    assert DrawnZones().changed("gate", "default", {"door": DOOR}).over(document)["cameras"] == cameras
    assert json.dumps(document) == before


def test_drawn_zones_of_named_rule_go_to_rule_of_camera() -> None:
    drawn = DrawnZones().changed("gate", "vest", {"door": DOOR})
    document = {"cameras": {"gate": {}}, "rules": {"vest": {"zones": ["lane"]}}}
    assert drawn.over(document)["cameras"] == {"gate": {"rules": {"vest": {"zones": {"door": DOOR}}}}}
