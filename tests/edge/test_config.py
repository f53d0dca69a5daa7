"""Loading of edge.yaml: precedence of the sources, and errors in one line without passwords."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from ppe_edge.config import EdgeSettings, load_settings
from ppe_edge.deployment import require_valid
from ppe_edge.errors import EdgeError
from ppe_edge.page_rules import PageRule, PageRules

from ppe_yolo.core.contract import ModelContract

PASSWORD = "s3cret-of-the-gate"
ADDRESS = f"rtsp://admin:{PASSWORD}@192.0.2.7/stream"


def write(folder: Path, **changes: Any) -> Path:
    """Writes a complete configuration with some keys changed."""
    document = {
        "model": {"path": "model.onnx"},
        "state_dir": str(folder / "state"),
        "cameras": {"gate": {"source": ADDRESS, "fps": 5}},
        **changes,
    }
    path = folder / "edge.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}))
    return path


def error_of(path: Path, desired: dict[str, Any] | None = None) -> str:
    with pytest.raises(EdgeError) as caught:
        load_settings(path, desired)
    text = str(caught.value)
    assert "\n" not in text and PASSWORD not in text
    return text


def test_load_settings_fills_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path))
    assert settings.cameras["gate"].fps == 5 and settings.cameras["gate"].address == ADDRESS
    assert settings.web.host == "127.0.0.1" and settings.web.token is None
    assert not settings.sampler.enabled and settings.snapshot.blur and not settings.twin.enabled


def test_settings_text_hides_passwords(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, web={"token": PASSWORD}))
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert PASSWORD not in text


def test_twin_overrides_environment_which_overrides_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, batch=3, rule={"alarm_threshold": 0.3, "cooldown_s": 7})
    monkeypatch.setenv("PPE_EDGE__BATCH", "4")
    monkeypatch.setenv("PPE_EDGE__CAMERAS__GATE__SOURCE", "rtsp://env@192.0.2.9/")
    monkeypatch.setenv("PPE_EDGE__WEB__TOKEN", "sixteen-or-more-characters")
    settings = load_settings(path)
    assert settings.batch == 4 and settings.cameras["gate"].address == "rtsp://env@192.0.2.9/"
    assert settings.cameras["gate"].fps == 5  # the other settings of the camera come from the file
    assert settings.web.token is not None and settings.web.token.get_secret_value() == "sixteen-or-more-characters"
    settings = load_settings(path, {"batch": 5, "rule": {"alarm_threshold": 0.6}})
    assert settings.batch == 5
    assert (settings.rule.alarm_threshold, settings.rule.cooldown_s) == (0.6, 7)


def test_camera_rule_overrides_general_rule(tmp_path: Path) -> None:
    cameras = {"gate": {"source": ADDRESS, "rule": {"alarm_threshold": 0.7}}, "yard": {"source": "yard.mp4"}}
    settings = load_settings(write(tmp_path, cameras=cameras, rule={"cooldown_s": 9, "alarm_threshold": 0.4}))
    [gate] = settings.rules_of("gate").values()
    assert (gate.alarm_threshold, gate.cooldown_s) == (0.7, 9)
    assert settings.rules_of("yard") == {"default": settings.rule}


GATE = [[0, 0], [1, 0], [1, 1]]


def test_named_rules_take_settings_from_most_specific_place(tmp_path: Path) -> None:
    cameras = {
        "gate": {
            "source": ADDRESS,
            "zones": {"lane": GATE},
            "rule": {"zones": ["lane"]},
            "rules": {"night": {"cooldown_s": 4}},
        },
        "yard": {"source": "y.mp4", "rules": {"night": {"enabled": False}, "own": {"severity": "critical"}}},
    }
    rules = {"day": {"cooldown_s": 3}, "night": {"cooldown_s": 3, "alarm_threshold": 0.9}}
    settings = load_settings(write(tmp_path, cameras=cameras, rule={"cooldown_s": 2, "frames": 7}, rules=rules))
    gate, yard = settings.rules_of("gate"), settings.rules_of("yard")
    assert {name: (rule.cooldown_s, rule.frames, rule.alarm_threshold) for name, rule in gate.items()} == {
        "day": (3, 7, None), "night": (4, 7, 0.9),
    }  # fmt: skip
    assert gate["day"].zones == gate["night"].zones == {"lane": ((0, 0), (1, 0), (1, 1))}
    assert {name: (rule.cooldown_s, rule.severity) for name, rule in yard.items()} == {
        "day": (3, "warning"), "own": (2, "critical"),
    }  # fmt: skip
    names = [settings.key_of("gate", "day"), settings.key_of("gate", "night")]
    assert names == ["rules.day", "cameras.gate.rules.night"]


def test_schedule_with_off_and_dates_of_yaml_is_read(tmp_path: Path) -> None:
    """YAML reads off as false, and a date as a date."""
    path = write(tmp_path)
    schedule = "schedule: [Mon-Fri 06:00-18:00, Sat 07:00-12:00]"
    exceptions = "exceptions: {2026-12-24: off, 2026-12-27: 08:00-12:00}"
    path.write_text(f"{path.read_text()}site: {{time_zone: Europe/Berlin}}\nrules:\n  gate: {{{schedule}, {exceptions}}}\n")
    [rule] = load_settings(path).rules_of("gate").values()
    assert rule.schedule == ("Mon-Fri 06:00-18:00", "Sat 07:00-12:00")
    assert rule.exceptions == {date(2026, 12, 24): (), date(2026, 12, 27): ("08:00-12:00",)}
    desired = {"rules": {"gate": {"schedule": "daily 22:00-06:00", "exceptions": {"2026-12-24": "07:00-08:00"}}}}
    [changed] = load_settings(path, desired).rules_of("gate").values()
    assert changed.schedule == ("daily 22:00-06:00",) and changed.exceptions[date(2026, 12, 24)] == ("07:00-08:00",)


def test_disabled_camera_is_not_live(tmp_path: Path) -> None:
    cameras = {"gate": {"source": ADDRESS, "enabled": False}, "yard": {"source": "yard.mp4"}}
    path = write(tmp_path, cameras=cameras)
    assert list(load_settings(path).live_cameras) == ["yard"]
    assert "there is nothing to monitor" in error_of(path, {"cameras": {"yard": {"enabled": False}}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": None}, "edge.yaml: cameras: is missing"),
        ({"model": None}, "edge.yaml: model: is missing"),
        ({"cameras": {}}, "edge.yaml: cameras: Dictionary should have at least 1 item"),
        ({"colour": "red"}, "edge.yaml: colour: no such setting, expected one of model, state_dir, cameras, batch, tracker, "),
        ({"cameras": None, "camaras": {}}, "edge.yaml: camaras: no such setting, did you mean cameras? (and 1 more)"),
        ({"batch": 0}, "edge.yaml: batch: Input should be greater than or equal to 1, got 0"),
        ({"batch": True}, "edge.yaml: batch: expected a number, got true or false"),
        ({"cameras": {"gate": {"source": "a", "rule": {"alarm_threshold": True}}}}, "gate.rule.alarm_threshold: expected a nu"),
        ({"cameras": {"g\u0430te": {"source": "a"}}}, "has at most 32 characters, got 'g\\u0430te'"),
        ({"rule": {"\u00a0cooldown_s": 1}}, "no such setting, did you mean cooldown_s?, got '\\xa0cooldown_s'"),
        ({"batch": "many"}, "batch: Input should be a valid integer, unable to parse string as an integer, got 'many'"),
        ({"cameras": {"gate": {"source": ADDRESS, "fps": -1}}}, "cameras.gate.fps: Input should be greater than 0, got -1"),
        ({"cameras": {"gate": {"source": [ADDRESS]}}}, "cameras.gate.source: Input should be a valid string, got list"),
        ({"cameras": {"gate": {"url": ADDRESS}}}, "cameras.gate.url: no such setting, expected one of source, fps, "),
        ({"cameras": {"gate": {"rule": {"cooldown": 1}}}}, "gate.rule.cooldown: no such setting, did you mean cooldown_s?"),
        ({"sinks": {"mqtt": {"host": "x", "prot": 1}}}, "edge.yaml: sinks.mqtt.prot: no such setting, did you mean port?"),
        ({"cameras": {"gate": ADDRESS}}, "cameras.gate: expected settings, such as NAME: VALUE, got str"),
        ({"cameras": {"../gate": {"source": ADDRESS}}}, "cameras.../gate: expected a name of lower-case letters a-z, digits,"),
        ({"cameras": {"Gate 1": {"source": ADDRESS}}}, "edge.yaml: cameras.Gate 1: expected a name of lower-case letters a-z,"),
        ({"cameras": {"gate__1": {"source": ADDRESS}}}, "cameras.gate__1: expected a name without __ and without _ at its end"),
        ({"cameras": {"gate_": {"source": ADDRESS}}}, "environment variables such as PPE_EDGE__CAMERAS__GATE__SOURCE could"),
        ({"cameras": {"g" * 33: {"source": ADDRESS}}}, "at most 32 characters"),
        ({"sinks": {"mqtt": {"host": "x", "username": "u", "password": 12345}}}, "password: expected text, got a number: put"),
        ({"rule": {"zones": {date(2026, 12, 24): []}}}, "expected text, got a date: put it in quotes"),
        ({"rule": {"violation_class": False}}, "rule.violation_class: expected text, got true or false: put it in quotes"),
        ({"web": {"host": "0.0.0.0"}}, "web: host 0.0.0.0 can be reached from other machines: set a token"),
        ({"web": {"token": PASSWORD[:10]}}, "web.token: Value should have at least 16 items"),
        ({"model": {"path": "m.onnx", "url": f"http://x:{PASSWORD}@y/"}}, "model: url and sha256 must be set together"),
        ({"rule": {"zones": {"door": [[0, 0], [1, 1]]}}}, "rule.zones"),
        ({"cameras": {"gate": {"source": "a", "zones": {"door": [[0, 0], [1, 1]]}}}}, "gate.zones: zone 'door': expected"),
        ({"rule": {"zones": {"door": [[0, 0], [True, 0], [1, 1]]}}}, "rule.zones.door.1.0: expected a number, got true or fa"),
        ({"rules": {"a": {"zones": ["dor"]}}}, "rules.a.zones: no such zone 'dor', expected an outline, since the camera"),
        ({"rules": {"a": {"zones": [1]}}}, "rules.a.zones: expected names of zones, in quotes if YAML may read them"),
        ({"rules": {"a": {"inside": "none"}}}, "rules.a: inside and without name another class than violation_class"),
        ({"rules": {"a": {"colour": 1}}}, "rules.a.colour: no such setting, expected one of enabled, violation_class, "),
        ({"rules": {"A b": {}}}, "rules.A b: expected a name of lower-case letters"),
        ({"rules": {"a": {"enabled": False}}}, "cameras.gate.rules: every rule has enabled: false: disable the camera instead"),
        ({"rules": {"a": {"schedule": "Mon 06:00-18:00"}}}, "site.time_zone: is missing, the schedule of rules.a needs one"),
        ({"rules": {"a": {"schedule": []}}}, "rules.a.schedule: without an entry the rule is never on"),
        ({"rules": {"a": {"schedule": ["Mon 06:00-18:00", "daily 17:00-19:00"]}}}, "'daily 17:00-19:00' overlap on Mon: write"),
        ({"rules": {"a": {"exceptions": {"24.12.2027": "off"}}}}, "exceptions.24.12.2027: expected a date such as 2026-12-24"),
        ({"rules": {"a": {"exceptions": {"2027-12-24": "8-12"}}}}, "exceptions: 2027-12-24: expected times such as"),
        ({"site": {"time_zone": "Europe/Berlni"}}, "no such time zone 'Europe/Berlni', did you mean Europe/Berlin?"),
        ({"site": {"time_zone": "europe/berlin"}}, "did you mean Europe/Berlin?"),
        ({"site": {"time_zone": "../../etc/passwd"}}, "site.time_zone: no such time zone '../../etc/passwd', expected"),
        ({"rule": {"zones": {"door": [[0, 0], [1, 1], [1, 0], [0, 1]]}}}, "zone 'door': its outline crosses itself"),
        ({"rule": {"zones": {"door": [[0, 0], [0.5, 0.5], [1, 1]]}}}, "zone 'door': it encloses nothing"),
        ({"rule": {"zones": {"door": [[0, 0], [1, 0], [1, 1]] * 2}}}, "zone 'door': its outline crosses itself, or repeats"),
        ({"rule": {"zones": {"a\nb": [[0, 0], [1, 0], [1, 1]]}}}, "expected the name of a zone, 1 to 100 characters without"),
        ({"rule": {"zones": {"": [[0, 0], [1, 0], [1, 1]]}}}, "without line breaks, got ''"),
        ({"rule": {"zones": {"z" * 101: [[0, 0], [1, 0], [1, 1]]}}}, "got 'zzzz"),
        ({"cameras": {"gate": {"source": "rtsp://admin:pa"}}}, "cameras.gate.source: expected rtsp://USER:PASSWORD@HOST"),
    ],
)  # fmt: skip
def test_invalid_setting_is_one_line_with_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in error_of(write(tmp_path, **changes))


def test_camera_rule_that_contradicts_general_rule_is_rejected(tmp_path: Path) -> None:
    cameras = {"gate": {"source": ADDRESS, "rule": {"frames": 8}}}
    assert "frames" in error_of(write(tmp_path, cameras=cameras, rule={"frames": 3, "of": 4}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model: [", "expected YAML, got an error in line 1"),
        (
            b"model: {path: a}\ncameras:\n  gate: {source: a}\n  yard: {source: b}\n  gate: {source: c}\n",
            "an error in line 5: the key gate occurs twice, first in line 3",
        ),
        (b"batch: 1\nmodel: {path: a, path: b}\n", "an error in line 2: the key path occurs twice, first in line 2"),
        (b"batch: 1\n\nbatch: 2\n", "an error in line 3: the key batch occurs twice, first in line 1"),
        (
            b"cameras:\n  a: &a {source: a}\n  b: &b {fps: 2}\n  c:\n    <<: *a\n    <<: *b\n",
            "an error in line 6: the key << occurs twice, first in line 5: merge a list instead",
        ),
        (b"cameras:\n  on: {source: a}\n", "line 2: YAML reads the name on as true or false: put it in quotes"),
        (b"cameras:\n\n  1: {source: a}\n", "line 3: YAML reads the name 1 as a number: put it in quotes"),
        (b"cameras:\n  gate: {fps: 5,5}\n", "YAML reads the name 5 as a number: put it in quotes, or write a decimal number"),
        (b"rule:\n  exceptions: {2026-02-30: []}\n", "an error in line 2: there is no such date: correct it"),
        (b"web:\n  port: 010\n", "an error in line 2: this number is not written in decimal (YAML reads 010 as 8"),
        (b"cameras:\n  gate:\n    fps: 1:30\n", "an error in line 3: this number is not written in decimal"),
        (b"rule:\n  cooldown_s: 1:30.5\n", "an error in line 2: this number is not written in decimal"),
        (b'state_dir: a\nmodel: {path: "\\ud83d"}', "an error in line 2: this text has half a character"),
        (b"- a\n- b", "expected keys (model, state_dir, cameras, ...), got list"),
        (b"", "expected keys (model, state_dir, cameras, ...), got nothing"),
        (b"a: \x00\x01", "expected text in UTF-8, got something else at position 3"),
        ("source: für.mp4".encode("latin-1"), "expected text in UTF-8, got something else at position 9"),
        (
            b"model: {path: a}\nstate_dir: b\ncameras: {gate: {source: c}}\nsinks:\n",
            "sinks: expected settings, such as NAME: VALUE, got nothing",
        ),
        (b"a: !!python/object/apply:os.system ['true']", "expected YAML, got an error in line 1"),
        (b"a" * (1 << 21), "at most 1048576 bytes"),
    ],
)
def test_file_that_is_no_configuration_is_rejected(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "edge.yaml"
    path.write_bytes(content)
    assert words in error_of(path)


def test_missing_file_and_folder_are_rejected(tmp_path: Path) -> None:
    assert "got no such file" in error_of(tmp_path / "none.yaml")
    assert "got a folder" in error_of(tmp_path)


def test_misspelled_environment_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPE_EDGE__SINK__MQTT__PASSWORD", PASSWORD)
    message = error_of(write(tmp_path))
    assert message == "environment variable PPE_EDGE__SINK__MQTT__PASSWORD: no such setting, did you mean sinks?"


def test_environment_variable_with_one_underscore_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPE_EDGE_SERVICE_HOST", "10.0.0.1")  # as Kubernetes sets it
    monkeypatch.setenv("PPE_EDGE_WEB_PORT", "tcp://10.0.0.1:8080")
    path = write(tmp_path)
    assert load_settings(path)
    monkeypatch.setenv("PPE_EDGE_SINKS__MQTT__PASSWORD", PASSWORD)
    words = "no such setting, did you mean PPE_EDGE__SINKS__MQTT__PASSWORD?"
    assert error_of(path) == f"environment variable PPE_EDGE_SINKS__MQTT__PASSWORD: {words}"


@pytest.mark.parametrize("variable", ["PPE_EDGE__CAMERAS", "PPE_EDGE__SINKS__MQTT"])
def test_environment_variable_that_is_no_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, f"{{{PASSWORD}")
    monkeypatch.setenv(f"{variable}__GATE__FPS", "5")
    monkeypatch.setenv(f"{variable}__PASSWORD", PASSWORD)  # need not be JSON
    assert error_of(write(tmp_path)).startswith(f"environment variable {variable}: ")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("CAMERAS__GATE__SOUCE", ADDRESS, "cameras.gate.souce: no such setting, did you mean source?"),
        ("WEB__TOKEN", f"{PASSWORD}\r", "ends with a carriage return: save its file with the line ends of Linux"),
        ("BATCH", "many", "batch: Input should be a valid integer, unable to parse string as an integer, got 'many'"),
        ("CAMERAS", '{"gate": {"fps": -1}}', "cameras.gate.fps: Input should be greater than 0, got -1"),
        ("RULE__ZONES", '{"door": [[0, 0], [1, "x"], [1, 1]]}', "rule.zones.door.1.1: Input should be a valid number"),
        ("web__port", "99999", "web.port: Input should be less than or equal to 65535, got str"),
    ],
)
def test_invalid_environment_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"PPE_EDGE__{variable}", value)
    assert error_of(write(tmp_path)).startswith(f"environment variable PPE_EDGE__{variable}: {words}")


def test_environment_variable_is_not_named_for_errors_of_other_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPE_EDGE__CAMERAS__GATE__FPS", "3")
    monkeypatch.setenv("PPE_EDGE__BATCH", "4")
    cameras = {"gate": {"source": ADDRESS, "transport": "pigeon"}}
    assert error_of(write(tmp_path, cameras=cameras)).startswith(f"{tmp_path}/edge.yaml: cameras.gate.transport: ")
    assert error_of(write(tmp_path), {"batch": 0}).startswith("twin: batch: ")


def test_twin_is_named_for_its_errors(tmp_path: Path) -> None:
    assert error_of(write(tmp_path), {"batch": True}) == "twin: batch: expected a number, got true or false"


def test_every_setting_has_description() -> None:
    def undescribed(model: Any, path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            inner = field.annotation
            if hasattr(inner, "model_fields"):
                found += undescribed(inner, f"{path}{name}.")
            elif not field.description:
                found.append(f"{path}{name}")
        return found

    assert undescribed(EdgeSettings, "") == []


def test_shipped_example_is_valid() -> None:
    settings = load_settings(Path(__file__).parents[2] / "edge" / "edge.yaml")
    assert settings.live_cameras and settings.state_dir == Path("/var/lib/ppe_edge")


def test_merge_keys_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(
        "model: {path: m.onnx}\nstate_dir: state\ncameras:\n  gate: &gate {source: a.mp4, fps: 2, rule: &slow {seconds: 4}}\n"
        "  yard:\n    <<: *gate\n    source: b.mp4\n    rules: {walk: &walk {<<: *slow, seconds: 3}}\nrule: {<<: *walk}\n"
    )
    settings = load_settings(path)
    assert settings.cameras["yard"].fps == 2 and settings.rule.seconds == 3


def test_emoji_in_the_escapes_of_json_is_one_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its halves cannot be stored."""
    path = write(tmp_path)
    path.write_text(json.dumps(yaml.safe_load(path.read_text()) | {"rule": {"zones": {"👷": [[0, 0], [1, 0], [1, 1]]}}}))
    assert "\\ud83d" in path.read_text() and set(load_settings(path).rule.zones) == {"👷"}
    monkeypatch.setenv("PPE_EDGE__RULE__ZONES", '{"\\ud83d": [[0, 0], [1, 0], [1, 1]]}')
    assert "without line breaks, got '\\ud83d'" in error_of(path)


def test_rule_named_as_a_topic_of_home_assistant_is_loaded(tmp_path: Path) -> None:
    """Only a new one is refused, on the page: a box that ran with it must start."""
    mqtt = {"host": "broker", "home_assistant": "homeassistant"}
    settings = load_settings(write(tmp_path, rules={"connected": {}}, sinks={"mqtt": mqtt}))
    assert set(settings.rules_of("gate")) == {"connected"}


def test_environment_variable_addresses_names_of_the_file_whatever_their_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = {"url": "http://hook/", "headers": {"Authorization": "of the file"}}
    zones = {"Gerüst": [[0, 0], [1, 0], [1, 1]], "door": [[0, 0], [1, 0], [1, 1]]}
    path = write(tmp_path, rule={"zones": zones}, site={"shifts": {"Early": "06:00-14:00"}}, sinks={"webhook": hook})
    monkeypatch.setenv("PPE_EDGE__SITE__SHIFTS__EARLY", "07:00-15:00")
    monkeypatch.setenv("PPE_EDGE__RULE__ZONES__GERÜST", "[[0, 0], [0.5, 0], [0.5, 1]]")
    monkeypatch.setenv("PPE_EDGE__SINKS__WEBHOOK__HEADERS__AUTHORIZATION", PASSWORD)
    settings = load_settings(path)
    assert settings.site.shifts == {"Early": "07:00-15:00"}
    assert settings.rule.zones["Gerüst"] == ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0)) and len(settings.rule.zones) == 2
    assert settings.sinks.webhook is not None
    assert {k: v.get_secret_value() for k, v in settings.sinks.webhook.headers.items()} == {"Authorization": PASSWORD}


def test_environment_variable_has_underscores_for_dashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a shell nor systemd accepts - in the name of a variable."""
    path = write(
        tmp_path, cameras={"gate-1": {"source": "a.mp4"}, "gate_2": {"source": "b.mp4"}, "gate-2": {"source": "c.mp4"}}
    )
    monkeypatch.setenv("PPE_EDGE__CAMERAS__GATE_1__SOURCE", ADDRESS)
    monkeypatch.setenv("PPE_EDGE__CAMERAS__GATE_2__FPS", "2")
    cameras = load_settings(path).cameras
    variable = "environment variable PPE_EDGE__CAMERAS__GATE_1__SOURCE"
    assert caplog.messages == [f"{variable}: sets cameras.gate-1 of edge.yaml, which is written with -"]
    assert cameras["gate-1"].source.get_secret_value() == ADDRESS
    assert {name: camera.fps for name, camera in cameras.items()} == {"gate-1": None, "gate_2": 2, "gate-2": None}
    monkeypatch.setenv("PPE_EDGE__CAMERAS__GATE_1__FPS", "fast")
    assert error_of(path).startswith("environment variable PPE_EDGE__CAMERAS__GATE_1__FPS: cameras.gate-1.fps: ")


def test_environment_variable_that_names_no_single_zone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, rule={"zones": {key: [[0, 0], [1, 0], [1, 1]] for key in ("Door", "door", "a__b")}})
    assert set(load_settings(path).rule.zones) == {"Door", "door", "a__b"}
    monkeypatch.setenv("PPE_EDGE__RULE__ZONES__A__B", "[[0, 0], [0.5, 0], [0.5, 1]]")
    assert error_of(path).startswith("environment variable PPE_EDGE__RULE__ZONES__A__B: rule.zones.a: ")
    monkeypatch.setenv("PPE_EDGE__RULE__ZONES__DOOR", "[[0, 0], [0.5, 0], [0.5, 1]]")
    both = "edge.yaml has both Door and door, and variables have no case: rename one of them"
    assert error_of(path) == f"environment variable PPE_EDGE__RULE__ZONES__DOOR: {both}"


def test_names_in_a_variable_that_differ_in_case_alone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, site={"shifts": {"Ab": "06:00-14:00"}})
    monkeypatch.setenv("PPE_EDGE__SITE__SHIFTS", '{"Ab": "07:00-15:00", "ab": "15:00-23:00"}')
    words = "sets Ab twice, in names that differ in case alone: remove one"
    assert error_of(path) == f"environment variable PPE_EDGE__SITE__SHIFTS: {words}"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"zones": {"lane": None}}, "cameras.gate.rule.zones: no such zone 'lane', expected an outline, since the "),
        ({"enabled": False}, "every rule has enabled: false: disable the camera instead"),
        ({"violation_class": "vest"}, "expected one of the model's classes helmet, none, got 'vest'"),
    ],
)
def test_error_of_a_change_on_the_page_says_the_way_out(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    path, state = write(tmp_path, cameras={"gate": {"source": "rtsp://192.0.2.7/"}}), tmp_path / "state"
    state.mkdir()
    PageRules().changed("gate", "default", PageRule(settings=settings)).save(state)
    with pytest.raises(EdgeError) as caught:
        require_valid(load_settings(path), ModelContract(("helmet", "none"), (64, 96), alarm_thresholds={"none": 0.5}))
    way_out = f"correct edge.yaml, or delete {state}/rules.json, then reload or restart"
    assert reason in str(caught.value) and str(caught.value).endswith(f": changed on the page Rules: {way_out}")


@pytest.mark.parametrize("sink", ["notify", "escalate"])
def test_missing_addresses_of_a_sink_name_their_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: str
) -> None:
    variable = f"PPE_EDGE__SINKS__{sink.upper()}__URLS"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(EdgeError, match=rf"^environment variable {variable}: sinks\.{sink}\.urls: is missing"):
        load_settings(write(tmp_path, sinks={sink: {}}))
