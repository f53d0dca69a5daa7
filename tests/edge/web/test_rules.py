"""Rules changed on the page: validated like those of edge.yaml, in force at once and after a restart, and undone."""

import http.client
import json
import re
from collections.abc import Iterator
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from ppe_edge import page_rules
from ppe_edge.config import load_settings
from ppe_edge.control import Control
from ppe_edge.delivery.sinks import SinksConfig
from ppe_edge.errors import EdgeError
from ppe_edge.page_rules import PageRule, PageRules, read_page_rules
from ppe_edge.rules.config import RuleConfig
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
        self.text = config.read_text()

    def post(
        self, path: str, body: object, token: str = OPERATOR, kind: str = "application/json", method: str = "POST"
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        connection.request(method, path, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def change(self, settings: dict[str, Any], rule: str = "default", camera: str = "gate", **more: Any) -> tuple[int, str]:
        """Saves a rule as the page does: all its settings, with some changed."""
        before = self.control.editable()["cameras"]["gate"]
        whole = {**before["rules"].get(rule, before["new"]), **settings}
        return self.post("/api/rules", {"camera": camera, "rule": rule, "settings": whole}, **more)

    def refusal(self, settings: dict[str, Any], rule: str = "default", camera: str = "gate") -> tuple[str | None, str]:
        """Saves a rule that is refused; returns the setting that is named, and the reason."""
        status, answer = self.change(settings, rule, camera)
        assert status == 409, answer
        values = json.loads(answer)
        return values["setting"], values["message"]

    def write(self, **changes: Any) -> None:
        """Edits edge.yaml."""
        self.config.write_text(json.dumps({**json.loads(self.text), **changes}))

    def rules(self) -> dict[str, RuleConfig]:
        """The rules in force, and those after a restart, which must be the same."""
        now = self.runtime.settings.rules_of("gate")
        assert load_settings(self.config).rules_of("gate") == now
        return now

    def zones(self) -> dict[str, Any]:
        return self.rules()["default"].zones


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, make_clip: Any) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box")
    clip = make_clip(folder / "endless.mp4", [((90, 90, 90), 1500)])
    camera = {"source": str(clip), "zones": FILE_ZONES, "rule": {"zones": ["lane"], "cooldown_s": 20}}
    config = configure(folder, tiny_model, {"gate": camera}, site={"time_zone": "Europe/Berlin"})
    with running(config) as (runtime, control):
        web = WebConfig(port=0, token=OPERATOR, viewer_token=VIEWER)
        server = WebServer(web, RuntimeStatus(runtime), runtime.desk, control)
        server.start()
        yield Box(runtime, control, config, server.port)
        assert server.stop(5.0)


@pytest.fixture
def box(served: Box) -> Box:
    """Nothing is changed."""
    (served.runtime.settings.state_dir / "rules.json").unlink(missing_ok=True)
    served.config.write_text(served.text)
    assert served.control.reload()["reloaded"]
    return served


def test_change_of_a_rule_that_another_operator_changed_meanwhile_is_refused(box: Box) -> None:
    seen = box.control.editable()["cameras"]["gate"]["rules"]["default"]
    assert box.change({"alarm_threshold": 0.6})[0] == 200  # by the other one
    place = {"camera": "gate", "rule": "default", "settings": {**seen, "severity": "critical"}}
    status, answer = box.post("/api/rules", {**place, "before": seen})
    assert status == 409 and "changed the rules in the meantime" in answer and box.rules()["default"].alarm_threshold == 0.6
    new = {**place, "rule": "night"}
    assert [box.post("/api/rules", {**new, "before": {}})[0] for _ in range(2)] == [200, 200]  # the first answer was lost
    other = {**new, "settings": {**seen, "severity": "info"}, "before": {}}
    assert box.post("/api/rules", other)[0] == 409 and box.rules()["night"].severity == "critical"
    seen = json.loads(box.post("/api/rules", None, method="GET")[1])["cameras"]["gate"]["rules"]["default"]
    assert box.post("/api/rules", {**place, "before": seen})[0] == 200


def test_repeated_removal_and_undo_change_nothing_more(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to the first one was lost."""
    monkeypatch.setattr(page_rules, "MAX_UNDO", 2)  # later, as many can be undone as before
    assert box.change({"cooldown_s": 7})[0] == box.change({"severity": "info"}, "night")[0] == 200
    seen = box.control.editable()
    night = {"camera": "gate", "rule": "night", "before": seen["cameras"]["gate"]["rules"]["night"]}
    assert box.post("/api/rules/remove", {**night, "before": {**night["before"], "severity": "critical"}})[0] == 409
    for _ in range(2):
        assert box.post("/api/rules/remove", night)[0] == 200 and set(box.rules()) == {"default"}
    undo = {"change": seen["latest_change"]}
    assert box.post("/api/rules/undo", undo)[0] == 409  # another removed the rule meanwhile
    for _ in range(2):
        assert box.post("/api/rules/undo", {"change": 3})[0] == 200 and set(box.rules()) == {"default", "night"}
    assert box.rules()["default"].cooldown_s == 7 and box.control.editable()["latest_change"] == undo["change"] == 2
    assert box.change({"cooldown_s": 8})[0] == 200
    assert box.post("/api/rules/undo", {"change": 3})[0] == 409 and box.rules()["default"].cooldown_s == 8


def test_new_rule_with_a_topic_of_home_assistant_is_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    assert box.change({}, "connected")[0] == 200  # without Home Assistant
    assert box.post("/api/rules/undo", {})[0] == 200
    sinks = SinksConfig.model_validate({"mqtt": {"host": "b", "home_assistant": "homeassistant"}})
    monkeypatch.setattr(Runtime, "settings", box.runtime.settings.model_copy(update={"sinks": sinks}))
    assert box.refusal({}, "connected")[1].startswith("choose another name than connected")


def test_changed_rule_replaces_that_of_file_now_and_after_restart(box: Box) -> None:
    text = box.config.read_text()
    assert box.zones() == FILE_ZONES
    changes = {"zones": {"door": DOOR, "<b>yard</b>": DOOR}, "severity": "critical", "schedule": ["Mon-Fri 06:00-18:00"]}
    status, answer = box.change({**changes, "exceptions": {"2027-12-24": []}, "alarm_threshold": 0.6})
    shown = json.loads(answer)["cameras"]["gate"]["rules"]["default"]
    assert status == 200 and shown["zones"]["door"] == [list(corner) for corner in DOOR]
    assert (shown["exceptions"], shown["cooldown_s"]) == ({"2027-12-24": []}, 20)
    rule = box.rules()["default"]
    assert (rule.zones, rule.severity, rule.schedule) == (
        {"door": DOOR, "<b>yard</b>": DOOR},
        "critical",
        ("Mon-Fri 06:00-18:00",),
    )
    assert rule.exceptions == {date(2027, 12, 24): ()} and rule.alarm_threshold == 0.6
    [stored] = read_page_rules(box.runtime.settings.state_dir).changes["gate"].values()
    assert set(stored.settings) == {*changes, "exceptions", "alarm_threshold"}  # the rest still comes from edge.yaml
    assert box.change({"zones": {}})[0] == 200 and box.zones() == {}  # the whole frame
    assert box.config.read_text() == text


def test_added_rule_applies_next_to_default_until_one_is_removed(box: Box) -> None:
    assert box.change({"violation_class": "helmet", "compliant_classes": [], "zones": {}}, "helmets")[0] == 200
    assert box.change({"severity": "info"}, "helmets")[0] == 200
    rules = box.rules()
    assert set(rules) == {"default", "helmets"} and rules["default"].zones == FILE_ZONES
    assert (rules["helmets"].violation_class, rules["helmets"].severity, rules["helmets"].cooldown_s) == ("helmet", "info", 20)
    assert box.post("/api/rules/remove", {"camera": "gate", "rule": "default"})[0] == 200 and set(box.rules()) == {"helmets"}
    status, answer = box.post("/api/rules/remove", {"camera": "gate", "rule": "helmets"})
    assert status == 409 and "every rule has enabled: false" in answer and set(box.rules()) == {"helmets"}
    for left in ({"default", "helmets"}, {"default", "helmets"}, {"default"}):
        assert box.post("/api/rules/undo", {})[0] == 200 and set(box.rules()) == left
    status, answer = box.post("/api/rules/undo", {})
    assert (status, json.loads(answer)) == (409, {"setting": None, "message": "there is nothing left to undo"})
    assert box.zones() == FILE_ZONES


@pytest.mark.parametrize(
    ("settings", "setting", "reason"),
    [
        ({"zones": {"door": DOOR[:2]}}, "zones", "zone 'door': expected three corners or more, got 2"),
        ({"zones": {"door": ((0, 0), (1, 1), (1, 0), (0, 1))}}, "zones", "zone 'door': its outline crosses itself"),
        ({"zones": ["yard"]}, "zones", "no such zone 'yard', expected one of lane"),
        ({"schedule": ["Mon-Fri 25:00-26:00"]}, "schedule", "expected times from 00:00 to 24:00"),
        ({"exceptions": {"2027-13-01": []}}, "exceptions", "2027-13-01: "),
        ({"alarm_threshold": 2}, "alarm_threshold", "Input should be less than or equal to 1, got 2"),
        ({"frames": 4}, None, "frames must be more than half of `of`"),
        ({"inside": "person"}, "inside", "expected one of the model's classes helmet, none, got 'person'"),
        ({"modell": "x"}, None, "modell: no such setting"),
        ({"enabled": False}, "enabled", "remove the rule instead of disabling it"),
    ],
)
def test_rule_is_refused_as_in_file(box: Box, settings: dict[str, Any], setting: str | None, reason: str) -> None:
    named, answer = box.refusal(settings)
    assert named == setting and answer.startswith(reason), answer
    assert box.zones() == FILE_ZONES and not (box.runtime.settings.state_dir / "rules.json").exists()


def test_name_of_rule_is_refused_as_in_file(box: Box) -> None:
    setting, answer = box.refusal({}, "<b>No vest</b>")
    assert setting is None and answer.startswith("expected a name of lower-case letters") and set(box.rules()) == {"default"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"camera": "gate", "rule": "default", "settings": "none"}, 400),
        ({"camera": "gate", "rule": "default", "settings": {}, "model": {"path": "x"}}, 400),
        ({"camera": "../gate", "rule": "default", "settings": {}}, 409),
        ("x" * 20_000, 413),
    ],
)
def test_unreadable_change_is_rejected_and_changes_nothing(box: Box, body: object, status: int) -> None:
    assert box.post("/api/rules", body)[0] == status and box.zones() == FILE_ZONES


def test_viewer_and_form_of_other_site_change_nothing(box: Box) -> None:
    place = {"camera": "gate", "rule": "default"}
    for path, body in (("", {**place, "settings": {}}), ("/remove", place), ("/undo", {})):
        assert box.post(f"/api/rules{path}", body, VIEWER)[0] == 403
        assert box.post(f"/api/rules{path}", body, kind="text/plain")[0] == 403  # a form of another site
    assert box.zones() == FILE_ZONES


def test_rule_that_twin_sets_is_not_changed(box: Box) -> None:
    control = Control(box.runtime, box.config, {"cameras": {"gate": {"rule": {"zones": {"door": DOOR}}}}})
    with pytest.raises(EdgeError, match="the module twin"):
        control.change_rule("gate", "default", {"zones": {}})
    assert box.zones() == FILE_ZONES
    control = Control(box.runtime, box.config, {"rules": {"vest": {}}})  # it would replace the default rule
    with pytest.raises(EdgeError, match="the module twin"):
        control.change_rule("gate", "lane", {"zones": {}})
    assert box.zones() == FILE_ZONES


def test_rule_is_added_to_those_of_environment_variables(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default rule, which the camera does not have, is not added."""
    monkeypatch.setenv("PPE_EDGE__RULES__VEST__SEVERITY", "critical")
    assert box.control.reload()["reloaded"] and set(box.rules()) == {"vest"}
    assert box.change({"severity": "info"}, "lane")[0] == 200 and set(box.rules()) == {"vest", "lane"}
    assert box.change({"cooldown_s": 7}, "vest")[0] == 200 and box.rules()["vest"].cooldown_s == 7


def test_saved_rule_applies_no_other_edit_of_file(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it read the model, which may just be copied."""

    def fail(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    batch = box.runtime.settings.batch
    box.write(batch=batch + 1, rule={"seconds": 3})
    with monkeypatch.context() as files:
        files.setattr("ppe_edge.deployment.sha256_file", fail)
        assert box.change({"cooldown_s": 7})[0] == 200
    now = box.runtime.settings
    assert (now.batch, now.rule.seconds, now.rules_of("gate")["default"].cooldown_s) == (batch, 1.5, 7)
    assert box.control.reload()["reloaded"] and box.runtime.settings.batch == batch + 1
    assert (box.rules()["default"].seconds, box.rules()["default"].cooldown_s) == (3, 7)


def test_general_rule_that_does_not_fit_a_camera_leaves_page_usable(box: Box) -> None:
    """The yard has no zone `lane`, and names its own for its rule."""
    cameras = json.loads(box.text)["cameras"]
    cameras["yard"] = {"source": cameras["gate"]["source"], "rules": {"own": {"zones": {"door": DOOR}}}}
    box.write(cameras=cameras, rule={"zones": ["lane"], "cooldown_s": 5})
    assert box.control.reload()["reloaded"]
    status, answer = box.post("/api/rules", None, method="GET")
    new = json.loads(answer)["cameras"]["yard"]["new"]
    assert status == 200 and (new["zones"], new["cooldown_s"]) == ({}, 5)
    assert box.change({"zones": {}, "cooldown_s": 10}, "more", "yard")[0] == 200
    assert box.runtime.settings.rules_of("yard")["more"].cooldown_s == 10


def test_damaged_file_is_answer_with_its_text(box: Box) -> None:
    path = box.runtime.settings.state_dir / "rules.json"
    path.write_text("{")
    status, answer = box.post("/api/rules", None, method="GET")
    assert status == 409 and json.loads(answer)["message"].startswith(f"{path}: expected the rules changed on the page")


def test_change_that_cannot_be_saved_is_taken_back(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PageRules, state_dir: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PageRules, "save", fail)
    status, answer = box.change({"zones": {"door": DOOR}})
    assert status == 409 and "nothing was changed" in answer and box.zones() == FILE_ZONES


def test_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text('{"changes": 5}')
    with pytest.raises(EdgeError, match=r"rules\.json: expected the rules changed .*delete it, then reload"):
        read_page_rules(tmp_path)


CRITICAL = {"severity": "critical"}


@pytest.mark.parametrize(
    ("names", "document", "rule", "is_new", "cameras"),
    [
        ("default", {"cameras": {"gate": {}}}, "default", False, {"gate": {"rule": CRITICAL}}),
        (
            *("default", {"cameras": {"gate": {"rule": {"seconds": 2}}}}, "default", False),
            {"gate": {"rule": {"seconds": 2, **CRITICAL}}},
        ),
        ("default", {"cameras": {"gate": {}}}, "vest", True, {"gate": {"rules": {"default": {}, "vest": CRITICAL}}}),
        (
            *("vest", {"cameras": {"gate": {}}, "rules": {"vest": {"seconds": 2}}}, "vest", False),
            {"gate": {"rules": {"vest": CRITICAL}}},
        ),
        ("lane", {"cameras": {"gate": {}}, "rules": {"lane": {}}}, "vest", True, {"gate": {"rules": {"vest": CRITICAL}}}),
        # edge.yaml no longer has the rule or the camera
        ("vest", {"cameras": {"gate": {}}, "rules": {"vest": {}}}, "default", False, {"gate": {}}),
        ("default", {"cameras": {"gate": {}}}, "vest", False, {"gate": {}}),
        ("default", {"cameras": {"yard": {}}}, "vest", True, {"yard": {}}),
    ],
)
def test_change_goes_where_rule_is_set(
    names: str, document: dict[str, Any], rule: str, is_new: bool, cameras: dict[str, Any]
) -> None:
    before = json.dumps(document)
    page = PageRules().changed("gate", rule, PageRule(settings=CRITICAL, is_new=is_new))
    assert page.over(document, lambda camera: [names])["cameras"] == cameras
    assert json.dumps(document) == before


def test_page_edits_every_setting_of_a_rule() -> None:
    source = (files("ppe_edge") / "web/static/rules.js").read_text(encoding="utf-8")
    fields = set(re.findall(r'\{ name: "(\w+)"', source))
    assert fields | {"zones", "enabled"} == set(RuleConfig.model_fields)  # zones are drawn; "Remove rule" disables
