"""Remote control of a running box: what the twin and `reload` apply, reject and leave for a restart."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import onnx
import pytest
from onnx import helper

from conftest import CONTRACT, GREY, RED  # isort: skip
from helpers import serving_folder, wait_until
from ppe_edge import application as application_module
from ppe_edge.application import Application
from ppe_edge.config import LIVE_FIELDS, EdgeSettings, load_settings
from ppe_edge.control import read_desired
from ppe_edge.delivery.sinks import escalate, notify
from ppe_edge.errors import EdgeError
from ppe_edge.runtime import Runtime
from ppe_edge.strict_yaml import read_yaml
from pydantic import BaseModel
from running_box import configure, delivered, running

from ppe_yolo.core.contract import ONNX_METADATA_KEY
from ppe_yolo.core.version import __version__

URLS_VARIABLES = {"sinks.notify.urls": notify.URLS_VARIABLE, "sinks.escalate.urls": escalate.URLS_VARIABLE}
# a new value for every setting; those of the running box are the defaults, and those of `base_document`
NEW_VALUES: dict[str, Any] = {
    "model.path": "ANOTHER MODEL",
    "model.url": "ITS ADDRESS",
    "model.sha256": "ITS HASH",
    "model.providers": ["CPUExecutionProvider"],
    "model.threads": 2,
    "state_dir": "elsewhere",
    "cameras.gate.source": "ANOTHER CLIP",
    "cameras.gate.fps": 7,
    "cameras.gate.pixel_aspect": 2.0,
    "cameras.gate.transport": "udp",
    "cameras.gate.open_timeout_s": 4,
    "cameras.gate.read_timeout_s": 4,
    "cameras.gate.frozen_after_s": 4,
    "cameras.gate.key_frame_timeout_s": 4,
    "cameras.gate.attention_after_s": 60.0,
    "cameras.gate.view_health": False,
    "cameras.gate.enabled": False,
    "cameras.gate.zones": {"door": [[0, 0], [1, 0], [1, 1]]},
    "cameras.gate.rules": {"lane": {"severity": "critical"}},
    "rules": {"lane": {"severity": "critical"}},
    "site.time_zone": "Asia/Tokyo",
    "site.shifts": {"early": "06:00-14:00"},
    "compliance.enabled": False,
    "compliance.keep_days": 5,
    "compliance.report": "day",
    **{
        f"{place}.{name}": value
        for place in ("rule", "cameras.gate.rule")
        for name, value in {
            "enabled": False,
            "violation_class": "helmet",
            "compliant_classes": ["helmet"],
            "inside": "helmet",
            "without": "helmet",
            "worn_at": "head",
            "severity": "critical",
            "schedule": ["Mon-Fri 06:00-18:00"],
            "exceptions": {"2027-12-24": []},
            "alarm_threshold": 0.9,
            "seconds": 2.5,
            "frames": 5,
            "of": 9,
            "hysteresis": 0.9,
            "cooldown_s": 4,
            "zones": {"door": [[0, 0], [1, 0], [1, 1]]},
        }.items()
    },
    "batch": 2,
    "tracker.high_score": 0.6,
    "tracker.low_score": 0.15,
    "tracker.min_overlap": 0.12,
    "tracker.enlarge": 0.7,
    "tracker.keep_s": 2.5,
    "snapshot.blur": False,
    "privacy.classes": ["none"],
    "snapshot.max_side": 640,
    "snapshot.quality": 70,
    "snapshot.max_bytes": 100_000,
    "clip.enabled": True,
    "clip.before_s": 4,
    "clip.after_s": 4,
    "sampler.enabled": True,
    "sampler.unsure_from": 0.3,
    "sampler.unsure_to": 0.6,
    "sampler.draft_from": 0.3,
    "sampler.per_hour": 5,
    "sampler.keep": 5,
    "sampler.blur": False,
    "sampler.upload": True,
    "verdicts.frames": "full",
    "verdicts.keep": 5,
    "outbox.max_mb": 5,
    "outbox.max_snapshot_days": 5,
    "outbox.max_message_days": 50,
    "outbox.keep_delivered": 5,
    "outbox.max_held": 5,
    "sinks.iothub.alerts_output": "a",
    "sinks.iothub.events_output": "e",
    "sinks.iothub.timeout_s": 5,
    "sinks.mqtt.host": "other",
    "sinks.mqtt.port": 1,
    "sinks.mqtt.topic": "t",
    "sinks.mqtt.client_id": "c",
    "sinks.mqtt.tls": False,
    "sinks.mqtt.ca_file": "ca.pem",
    "sinks.mqtt.cert_file": "cert.pem",
    "sinks.mqtt.key_file": "key.pem",
    "sinks.mqtt.username": "u",
    "sinks.mqtt.password": "p",
    "sinks.mqtt.timeout_s": 5,
    "sinks.mqtt.attach_snapshot": True,
    "sinks.mqtt.max_bytes": 5000,
    "sinks.mqtt.home_assistant": "homeassistant",
    "sinks.webhook.url": "http://127.0.0.1:9/x",
    "sinks.webhook.headers": {"a": "b"},
    "sinks.webhook.timeout_s": 5,
    "sinks.webhook.attach_snapshot": True,
    "sinks.webhook.max_bytes": 5000,
    "sinks.jsonl.path": "other.jsonl",
    "sinks.jsonl.max_mb": 5,
    "sinks.jsonl.keep_files": 2,
    "sinks.notify.title": "{camera}",
    "sinks.notify.body": "{camera}",
    "sinks.notify.repeated": "Again: ",
    "sinks.notify.attach_snapshot": False,
    "sinks.notify.min_interval_s": 5,
    "sinks.notify.quiet_hours": ["daily 20:00-06:00"],
    "sinks.escalate.title": "{camera}",
    "sinks.escalate.body": "{camera}",
    "sinks.escalate.repeated": "Again: ",
    "sinks.escalate.attach_snapshot": False,
    "sinks.escalate.min_interval_s": 5,
    "sinks.escalate.quiet_hours": ["daily 20:00-06:00"],
    "sinks.escalate.after_min": 5,
    "twin.enabled": True,
    "web.enabled": True,
    "web.host": "localhost",
    "web.port": 5,
    "web.token": "sixteen-or-more-characters",
    "web.viewer_token": "sixteen-or-more-characters",
    "log_level": "ERROR",
}
# settings that are only valid together with others
COMPANIONS: dict[str, dict[str, Any]] = {
    "model.url": {"model.sha256": NEW_VALUES["model.sha256"]},
    "model.sha256": {"model.url": NEW_VALUES["model.url"]},
    "rule.enabled": {"rules": {"lane": {"enabled": True}}},
    "cameras.gate.rule.enabled": {"cameras.gate.rules": {"lane": {"enabled": True}}},
    **{f"{place}.schedule": {"site.time_zone": "UTC"} for place in ("rule", "cameras.gate.rule")},
    **{f"{place}.exceptions": {"site.time_zone": "UTC"} for place in ("rule", "cameras.gate.rule")},
    **{f"sinks.{sink}.quiet_hours": {"site.time_zone": "UTC"} for sink in ("notify", "escalate")},
    "sampler.upload": {"sinks.iothub.timeout_s": 10},
    "cameras.gate.zones": {"cameras.gate.rule": {"zones": ["door"]}},
    "web.viewer_token": {"web.token": "another-token-of-operators"},
    "sinks.mqtt.cert_file": {"sinks.mqtt.key_file": "key.pem"},
    "sinks.mqtt.key_file": {"sinks.mqtt.cert_file": "cert.pem"},
    "sinks.mqtt.password": {"sinks.mqtt.username": "u"},
    **{f"sinks.mqtt.{name}": {"sinks.mqtt.host": "h"} for name in ("port", "topic", "client_id", "tls", "ca_file", "username")},
}


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of all settings; `gate` stands for the name of a camera."""
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None or name == "rules":  # rules have the settings of `rule`
            yield f"{prefix}{name}"
        else:
            yield from settings_of(inner, f"{prefix}{name}.gate." if name == "cameras" else f"{prefix}{name}.")


def set_in(document: dict[str, Any], setting: str, value: Any) -> None:
    *folders, name = setting.split(".")
    for folder in folders:
        document = document.setdefault(folder, {})
    document[name] = value


def user_of(runtime: Runtime, setting: str) -> object:
    """The part of the running box that uses a setting, which must be replaced or show the new value."""
    match setting.split("."):
        case ["site", "shifts"]:
            return runtime.settings.site.shifts
        case ["model", *_]:
            return runtime.detector
        case ["cameras", "gate", "attention_after_s"]:
            return runtime._watches["gate"]._deployment.settings.cameras["gate"].attention_after_s
        case ["cameras", "gate", "view_health"]:
            return runtime._watches["gate"]._view
        case ["cameras", "gate", name, *_] if name not in ("rule", "rules", "zones"):
            return runtime.readers.get("gate")
        case ["site" | "rule" | "rules" | "tracker" | "snapshot" | "privacy" | "cameras", *_]:
            return runtime.pipelines["gate"]
        case ["sampler", *_]:
            return runtime.sampler
        case ["batch"]:
            return runtime.settings.batch
    raise AssertionError(f"{setting}: which part of the box uses this setting?")


def test_reload_applies_every_setting_or_lists_it(
    tmp_path: Path,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    endless: Path,
    shelf: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(NEW_VALUES) == set(settings_of(EdgeSettings)) - set(URLS_VARIABLES), "add a new value for each new setting"
    another, sha256 = another_model(tiny_model, shelf[0] / "another.onnx")
    clip = make_clip(tmp_path / "another.mp4", [(GREY, 1500)])
    placeholders = {
        "ANOTHER MODEL": str(another), "ITS ADDRESS": f"{shelf[1]}/another.onnx", "ITS HASH": sha256, "ANOTHER CLIP": str(clip)
    }  # fmt: skip
    config = configure(tmp_path, tiny_model, {"gate": endless, "yard": endless})
    base = config.read_text()
    with running(config) as (runtime, control):
        for setting, value in NEW_VALUES.items():
            document = json.loads(base)
            for name, new in {**COMPANIONS.get(setting, {}), setting: value}.items():
                set_in(document, name, placeholders.get(new, new) if isinstance(new, str) else new)
            for section, required in {"sinks.mqtt": ("host", "h"), "sinks.webhook": ("url", "http://127.0.0.1:9/")}.items():
                if setting.startswith(section):
                    document["sinks"][section.removeprefix("sinks.")].setdefault(*required)
            before, top = runtime.deployment, setting.split(".")[0]
            part = user_of(runtime, setting) if top in LIVE_FIELDS else None
            config.write_text(json.dumps(document))
            with monkeypatch.context() as environment:
                for name, variable in URLS_VARIABLES.items():
                    if setting.startswith(name.removesuffix("urls")):
                        environment.setenv(variable, "json://127.0.0.1:9")  # the file must not hold it
                answer, wanted = control.reload(), load_settings(config)
            tops = {name.split(".")[0] for name in (setting, *COMPANIONS.get(setting, {}))}
            assert answer == {"reloaded": True, "needs_restart": sorted(tops - LIVE_FIELDS)}, setting
            assert getattr(runtime.settings, top) == getattr(wanted if top in LIVE_FIELDS else before.settings, top), setting
            assert top not in LIVE_FIELDS or user_of(runtime, setting) is not part, setting
            if tops & LIVE_FIELDS:
                config.write_text(base)
                assert control.reload() == {"reloaded": True, "needs_restart": []}


def test_reload_opens_new_session_for_changed_threads(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    config = configure(tmp_path, tiny_model, {"gate": endless})
    with running(config) as (runtime, control):
        assert runtime.detector.session.get_session_options().intra_op_num_threads == 1
        document = json.loads(config.read_text())
        document["model"]["threads"] = 2
        config.write_text(json.dumps(document))
        assert control.reload() == {"reloaded": True, "needs_restart": []}
        assert runtime.detector.session.get_session_options().intra_op_num_threads == 2
        detector = runtime.detector
        assert control.reload() == {"reloaded": True, "needs_restart": []}
        assert runtime.detector is detector  # nothing has changed


def test_reload_opens_model_that_was_replaced_in_place(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(tiny_model.read_bytes())
    with running(configure(tmp_path, model, {"gate": endless})) as (runtime, control):
        detector = runtime.detector
        model.write_bytes(b"no model")
        answer = control.reload()
        assert not answer["reloaded"] and "model.onnx" in answer["reason"] and runtime.detector is detector
        model.unlink()
        answer = control.reload()
        assert not answer["reloaded"] and "copy the model back; the running model continues" in answer["reason"]
        model.write_bytes(tiny_model.read_bytes() + b"\x08\x08")  # the same again: the version of the format
        assert control.reload() == {"reloaded": True, "needs_restart": []}
        assert runtime.detector.sha256 != detector.sha256


def test_apply_warns_of_changed_file_settings_that_need_restart(
    tmp_path: Path, tiny_model: Path, endless: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(tmp_path, tiny_model, {"gate": endless})
    with running(config) as (runtime, control):
        config.write_text(json.dumps({**json.loads(config.read_text()), "log_level": "ERROR", "state_dir": "elsewhere"}))
        control.apply({"batch": 2})
        assert "restart the box to apply state_dir, log_level" in caplog.text
        assert runtime.settings.batch == 2 and runtime.settings.state_dir == tmp_path / "state"
        assert control.reload() == {"reloaded": True, "needs_restart": ["state_dir", "log_level"]}


def test_apply_changes_rules_and_cameras_live(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    red = make_clip(tmp_path / "red.mp4", [(RED, 1500)])
    with running(configure(tmp_path, tiny_model, {"gate": red})) as (runtime, control):
        wait_until(lambda: delivered(tmp_path, "alert"))
        reader = runtime.readers["gate"]
        control.apply({"rule": {"alarm_threshold": 0.99, "hysteresis": 1.0}, "cameras": {"yard": {"source": str(red)}}})
        assert runtime.readers["gate"] is reader  # the source is the same
        assert runtime.settings.rules_of("yard")["default"].alarm_threshold == 0.99
        wait_until(lambda: delivered(tmp_path, "alert_closed"))  # by the new rule, under which nothing is a violation
        wait_until(lambda: (view := runtime.pipelines["yard"].view) is not None and view.frame.number > 10)
        assert len(delivered(tmp_path, "alert")) == 1
        control.apply({"cameras": {"gate": {"enabled": False}, "yard": {"source": str(red)}}})
        assert list(runtime.readers) == ["yard"]
        wait_until(
            lambda: [m for m in delivered(tmp_path, "alert") if m["camera"] == "yard"]
        )  # the rule of the file applies again
        assert read_desired(tmp_path / "state")["cameras"]["gate"] == {"enabled": False}
        assert (tmp_path / "state" / "desired.json").stat().st_mode & 0o077 == 0


def test_apply_adds_and_removes_rules_without_disturbing_others(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]
) -> None:
    """The rule that stays keeps its violation; the added one raises its own alert, which its removal closes."""
    red = make_clip(tmp_path / "red.mp4", [(RED, 1500)])
    config = configure(tmp_path, tiny_model, {"gate": red}, rules={"first": {"cooldown_s": 0}})
    with running(config) as (runtime, control):
        wait_until(lambda: delivered(tmp_path, "alert"))
        never, site = "Mon 00:00-00:01", {"time_zone": "UTC"}
        control.apply({"rules": {"second": {"severity": "critical"}, "never": {"schedule": never}}, "site": site})
        wait_until(lambda: len(delivered(tmp_path, "alert")) == 2)
        assert len(runtime.pipelines["gate"].open) == 2
        with pytest.raises(EdgeError, match=r"twin: rules.second.schedule: expected days and times"):
            control.apply({"rules": {"second": {"schedule": "now"}}})
        with pytest.raises(EdgeError, match=r"^rules.second.violation_class: expected one of .* got 'glove'"):
            control.apply({"rules": {"second": {"violation_class": "glove"}}})
        assert len(runtime.pipelines["gate"].open) == 2
        control.apply({})
        wait_until(lambda: delivered(tmp_path, "alert_closed"))
        [open_violation] = runtime.pipelines["gate"].open
    alerts, [closed, last] = delivered(tmp_path, "alert"), delivered(tmp_path, "alert_closed")
    assert [(a["rule"], a["severity"], a["schema_version"]) for a in alerts] == [
        ("first", "warning", 2), ("second", "critical", 2),
    ]  # fmt: skip
    assert (closed["rule"], closed["end"], closed["severity"]) == ("second", "stopped", "critical")
    assert last["violation"] == alerts[0]["violation"] == open_violation


@pytest.mark.parametrize("change", ["rule", "model", "tracker"])
def test_apply_does_not_repeat_alert_of_same_head(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], shelf: tuple[Path, str], change: str
) -> None:
    _, sha256 = another_model(tiny_model, shelf[0] / "new.onnx")
    desired: dict[str, Any] = {
        "rule": {"rule": {"alarm_threshold": 0.6}},
        "model": {"model": {"url": f"{shelf[1]}/new.onnx", "sha256": sha256}},
        "tracker": {"tracker": {"keep_s": 2.0}},
    }[change]
    clip = make_clip(tmp_path / "clip.mp4", [(RED, 1500)])
    with running(configure(tmp_path, tiny_model, {"gate": clip}, rule={"cooldown_s": 3600})) as (runtime, control):
        wait_until(lambda: delivered(tmp_path, "alert"))
        opened = dict(runtime.pipelines["gate"].open)
        control.apply(desired)
        if change == "tracker":  # tracks start again: nobody knows whether the head is the same
            wait_until(lambda: [m["end"] for m in delivered(tmp_path, "alert_closed")] == ["stopped"])
            assert runtime.pipelines["gate"].open == {}
        else:
            assert runtime.pipelines["gate"].open == opened
        number = runtime.pipelines["gate"].view.frame.number
        assert number < 1400, "the clip ends too soon to raise another alert"
        wait_until(lambda: runtime.pipelines["gate"].view.frame.number > number + 30)  # 3 s, twice the time that an alert needs
    assert len(delivered(tmp_path, "alert")) == 1  # the one before the change, in all three cases
    [closed] = delivered(tmp_path, "alert_closed")
    assert opened == {closed["violation"]: closed["alert"]}


@pytest.mark.parametrize(
    ("desired", "words"),
    [
        ({"rule": {"alarm_threshold": 7}}, "twin: rule.alarm_threshold: Input should be less than or equal to 1, got 7"),
        ({"rule": {"violation_class": "glove"}}, "expected one of the model's classes helmet, none"),
        ({"cameras": {"yard": {"source": "/nowhere.mp4"}}}, "cameras.yard.source: .* got no such file"),
        ({"cameras": {"gate": {"enabled": False}}}, "there is nothing to monitor"),
        ({"cameras": 7}, "twin: cameras: "),
        ({"web": {"token": "x" * 20}}, "web: cannot be changed remotely"),
        ({"state_dir": "/tmp"}, "state_dir: cannot be changed remotely"),
        ({"model": {"path": "/etc/passwd"}}, "model: expected url and sha256, and nothing else"),
        ({"model": {"url": "file:///etc/passwd", "sha256": "0" * 64}}, "expected http or https"),
        ({"batch": 2, "rule": {"frames": 9}}, "twin: rule: "),
    ],
)  # fmt: skip
def test_apply_rejects_invalid_request_and_changes_nothing(
    tmp_path: Path, tiny_model: Path, endless: Path, desired: dict[str, Any], words: str
) -> None:
    with running(configure(tmp_path, tiny_model, {"gate": endless})) as (runtime, control):
        before, readers = runtime.settings, dict(runtime.readers)
        with pytest.raises(EdgeError, match=words):
            control.apply(desired)
        assert runtime.settings is before and runtime.readers == readers
        assert not (tmp_path / "state" / "desired.json").exists()
        assert 'changes_total{outcome="rejected"} 1.0' in runtime.telemetry.text().decode()


def test_apply_is_rolled_back_if_it_cannot_be_saved(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    with running(configure(tmp_path, tiny_model, {"gate": endless})) as (runtime, control):
        before = runtime.settings
        (tmp_path / "state" / "desired.json").mkdir()  # in the way of the file
        with pytest.raises(
            EdgeError, match=r"cannot save the desired values of the twin .*, nothing was changed: free disk space"
        ):
            control.apply({"batch": 2})
        assert runtime.settings == before and runtime.settings.batch != 2
        (tmp_path / "state" / "desired.json").rmdir()
        control.apply({"batch": 2})
        assert runtime.settings.batch == 2 and read_desired(tmp_path / "state") == {"batch": 2}


@pytest.mark.parametrize("content", [b"", b'{"batch": 2', b"[2]", b"\xff"])
def test_damaged_desired_values_do_not_keep_the_box_from_starting(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "desired.json").write_bytes(content)
    assert read_desired(tmp_path) == {}
    assert "desired.json cannot be read (" in caplog.text
    assert "): the settings of edge.yaml apply until the twin sends its own again" in caplog.text


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a web server serves, and its address."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with serving_folder(folder) as address:
        yield folder, address


def another_model(tiny_model: Path, path: Path) -> tuple[Path, str]:
    """The same graph with another hash; its threshold is 0.6."""
    model = onnx.load(tiny_model)
    helper.set_model_props(model, {ONNX_METADATA_KEY: CONTRACT.to_json().replace('"none": 0.5', '"none": 0.6')})
    path.write_bytes(model.SerializeToString())
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_apply_swaps_model_and_restart_keeps_it(
    tmp_path: Path, tiny_model: Path, endless: Path, shelf: tuple[Path, str]
) -> None:
    folder, address = shelf
    _, sha256 = another_model(tiny_model, folder / "new.onnx")
    config = configure(tmp_path, tiny_model, {"gate": endless})
    with running(config) as (runtime, control):
        control.apply({"model": {"url": f"{address}/new.onnx", "sha256": sha256}})
        assert runtime.deployment.model.reference.sha256 == runtime.detector.sha256 == sha256
        assert sha256 in runtime.telemetry.text().decode()
        number = runtime.pipelines["gate"].view.frame.number if runtime.pipelines["gate"].view else -1
        wait_until(lambda: (view := runtime.pipelines["gate"].view) is not None and view.frame.number > number)
    restarted = Runtime(load_settings(config))
    assert restarted.deployment.model.reference.sha256 == sha256
    restarted.outbox.close()


def test_file_that_is_replaced_during_the_start_changes_nothing(
    tmp_path: Path, tiny_model: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path, tiny_model, {"gate": endless}, rule={"cooldown_s": 7})

    def replace_file(*arguments: Any) -> Runtime:
        config.write_text(config.read_text().replace('"cooldown_s": 7', '"cooldown_s": 8'))
        return Runtime(*arguments)

    monkeypatch.setattr(application_module, "Runtime", replace_file)
    document = read_yaml(config)
    application = Application(config, document, load_settings(config, document=document), None)
    assert read_yaml(config)["rule"]["cooldown_s"] == 8
    assert application._control._document["rule"]["cooldown_s"] == 7  # to which a change on the page is added
    application.runtime.outbox.close()


def test_apply_without_model_returns_to_configured_model(
    tmp_path: Path, tiny_model: Path, endless: Path, shelf: tuple[Path, str]
) -> None:
    folder, address = shelf
    _, sha256 = another_model(tiny_model, folder / "new.onnx")
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(tiny_model.read_bytes())
    config = configure(tmp_path, mine, {"gate": endless})
    own_sha256 = hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    own = {"version": __version__, "model": {"name": "mine.onnx", "sha256": own_sha256}}
    with running(config) as (runtime, control):
        assert control.reported() == own
        control.apply({"model": {"url": f"{address}/new.onnx", "sha256": sha256}, "batch": 2})
        fetched = control.reported()
        assert fetched["model"]["sha256"] == sha256
        mine.write_bytes(b"damaged")
        with pytest.raises(EdgeError, match=r"mine\.onnx"):
            control.apply({"batch": 3})
        assert control.reported() == fetched and runtime.settings.batch == 2
        mine.write_bytes(tiny_model.read_bytes())
        control.apply({"batch": 3})
        assert control.reported() == own and runtime.detector.path == mine and runtime.settings.batch == 3
        active = runtime.detector
        control.apply({"batch": 4})
        assert runtime.detector is active  # not opened again for every request
        assert not list((tmp_path / "state" / "models").iterdir())
    restarted = Runtime(load_settings(config, read_desired(tmp_path / "state")))
    assert restarted.detector.path == mine
    restarted.outbox.close()


@pytest.mark.parametrize("trouble", ["wrong hash", "no model", "without a contract", "not there", "closed"])
def test_apply_keeps_old_model_if_new_one_is_unusable(
    tmp_path: Path, tiny_model: Path, endless: Path, shelf: tuple[Path, str], trouble: str
) -> None:
    folder, address = shelf
    path, sha256 = another_model(tiny_model, folder / "new.onnx")
    if trouble == "wrong hash":
        sha256 = "0" * 64
    elif trouble == "no model":
        path.write_bytes(b"<html>not found</html>")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    elif trouble == "without a contract":
        model = onnx.load(tiny_model)
        del model.metadata_props[:]
        path.write_bytes(model.SerializeToString())
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    elif trouble == "not there":
        path.unlink()
    else:
        address = "http://127.0.0.1:9"
    with running(configure(tmp_path, tiny_model, {"gate": endless})) as (runtime, control):
        before = runtime.detector
        with pytest.raises(EdgeError, match=r"^model\.url: "):
            control.apply({"model": {"url": f"{address}/new.onnx", "sha256": sha256}})
        assert runtime.detector is before
        assert not list((tmp_path / "state" / "models").glob("*"))


def test_reload_applies_changed_file(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    config = configure(tmp_path, tiny_model, {"gate": endless})
    with running(config) as (runtime, control):
        document = json.loads(config.read_text())
        config.write_text(json.dumps({**document, "rule": {"cooldown_s": 5}, "log_level": "ERROR"}))
        assert control.reload() == {"reloaded": True, "needs_restart": ["log_level"]}
        assert runtime.settings.rule.cooldown_s == 5 and runtime.settings.log_level == "INFO"
        path, sha256 = another_model(tiny_model, tmp_path / "another.onnx")
        config.write_text(json.dumps({**document, "rule": {"cooldown_s": 5}, "model": {"path": str(path), "threads": 1}}))
        assert control.reload() == {"reloaded": True, "needs_restart": []}
        assert control.reported() == {"version": __version__, "model": {"name": "another.onnx", "sha256": sha256}}
        config.write_text("nonsense")
        answer = control.reload()
        assert not answer["reloaded"] and "expected keys" in answer["reason"]
        assert runtime.settings.rule.cooldown_s == 5
