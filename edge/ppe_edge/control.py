"""Remote control: validates, applies and answers requests of the module twin and direct methods."""

import base64
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ppe_edge.config import LIVE_FIELDS, EdgeSettings, check_name, first_error, load_settings
from ppe_edge.delivery.sinks.home_assistant import CONNECTED
from ppe_edge.deployment import Deployment, camera_rules
from ppe_edge.errors import EdgeError
from ppe_edge.model.store import ModelStore
from ppe_edge.page_rules import PageRule, PageRules, read_page_rules
from ppe_edge.rules.config import Polygon, RuleConfig
from ppe_edge.runtime import Runtime
from ppe_edge.strict_yaml import read_yaml
from ppe_edge.web.state import Editable
from ppe_edge.web.status import RuntimeStatus
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import replacing
from ppe_yolo.core.version import __version__

DESIRED_FILE = "desired.json"  # in the state folder: the twin's latest desired values, for a start without a connection

NEW = ""  # not a valid rule name; used to get the settings that a new rule would start with
Save = Callable[[Deployment, Deployment], None]

_log = logging.getLogger(__name__)


class Control:
    """Changes a `Runtime` while it runs. Thread-safe: one change at a time.

    Args:
        runtime: The running box.
        config_file: edge.yaml, the source of all settings that the twin does not mention.
        desired: The twin's desired values before the last restart; see `read_desired`.
        document: The active content of edge.yaml; by default, it is read.
    """

    def __init__(
        self,
        runtime: Runtime,
        config_file: Path,
        desired: Mapping[str, Any],
        document: Mapping[str, Any] | None = None,
    ) -> None:
        self._runtime = runtime
        self._file = config_file
        # the active one: a change on the page applies no other edits of the file
        self._document = read_yaml(config_file) if document is None else document
        self._desired = dict(desired)
        self._lock = threading.Lock()  # held from reading the settings until the new ones are deployed and saved

    def apply(self, desired: Mapping[str, Any]) -> None:
        """Applies all desired values of the twin, or none; settings that it does not mention come from the file.

        Raises:
            EdgeError: The values were rejected, with the reason. Nothing has changed.
        """
        outcome = self._runtime.telemetry.changes.labels
        with self._lock:
            try:
                self._require_applicable(desired)
                save = partial(self._save_desired, desired)
                document = read_yaml(self._file)
                wanted = load_settings(self._file, desired, document=document)
                needs_restart = self._apply_settings(wanted, save, "the desired values of the twin")
            except (UserError, TimeoutError) as error:
                outcome("rejected").inc()
                _log.warning("twin: rejected: %s", error)
                raise EdgeError(str(error)) from error
            outcome("accepted").inc()
            _log.info("twin: applied %s", ", ".join(sorted(desired)) or "no desired values")
            self._warn_of_restart(needs_restart)
            self._desired, self._document = dict(desired), document

    def reload(self, payload: Any = None) -> dict[str, Any]:
        """Direct method `reload`, and SIGHUP: applies what has changed in edge.yaml, and lists what needs a restart."""
        with self._lock:
            try:
                document = read_yaml(self._file)
                needs_restart = self._apply_settings(load_settings(self._file, self._desired, document=document))
            except (UserError, TimeoutError) as error:
                _log.warning("reload: rejected, nothing has changed: %s", error)
                return {"reloaded": False, "reason": str(error)}
            self._document = document
            _log.info("reload: applied %s", self._file)
            self._warn_of_restart(needs_restart)
            return {"reloaded": True, "needs_restart": needs_restart}

    def editable(self) -> Editable:
        """Returns the active rules and what people may choose on the page."""
        settings, contract = self._runtime.settings, self._runtime.deployment.model.contract
        return {
            "cameras": {
                name: {
                    "rules": {rule: config.model_dump(mode="json") for rule, config in settings.rules_of(name).items()},
                    "zones": camera.zones,
                    "new": _new_rule(settings, name).model_dump(mode="json"),
                }
                for name, camera in settings.live_cameras.items()
            },
            "classes": {name: contract.display_name(name) for name in contract.class_names},
            "thresholds": dict(contract.alarm_thresholds),
            "time_zone": settings.site.time_zone,
            "latest_change": read_page_rules(settings.state_dir).latest,
        }

    def change_rule(self, camera: str, rule: str, settings: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
        """Replaces a rule of a camera or adds one, now and at every later start. edge.yaml stays as it is.

        Args:
            camera: Name of the camera.
            rule: Name of the rule.
            settings: All settings of the rule, in the structure of edge.yaml; those that are missing have their defaults.
            before: The settings that the page showed, empty for a new rule; None if any may be replaced.

        Raises:
            UserError, TimeoutError: It was rejected, with the reason. Nothing has changed.
        """
        with self._lock:
            page, file = self._page_and_file(camera)
            now = self._runtime.settings.rules_of(camera).get(rule)
            wanted = _rule(rule, settings, file.cameras[camera].zones)
            if _differs(now, before):
                if now == wanted:  # sent again, because its answer was lost
                    return
                raise _changed_meanwhile()
            mqtt = self._runtime.settings.sinks.mqtt
            if now is None and rule == CONNECTED and mqtt is not None and mqtt.home_assistant:
                raise EdgeError(f"choose another name than {rule}: Home Assistant's state of the camera has this one")
            change = PageRule(settings=_own_settings(wanted, file, camera, rule), is_new=rule not in file.rule_names(camera))
            self._apply_page(page.changed(camera, rule, change), camera, rule, wanted)

    def remove_rule(self, camera: str, rule: str, before: Mapping[str, Any] | None = None) -> None:
        """Removes a rule of a camera, now and at every later start. edge.yaml stays as it is.

        Args:
            camera: Name of the camera.
            rule: Name of the rule.
            before: See `change_rule`. With it, a rule that is gone already is no error: the answer may have been lost.

        Raises:
            UserError, TimeoutError: It was rejected, with the reason. Nothing has changed.
        """
        with self._lock:
            page, file = self._page_and_file(camera)
            now = self._runtime.settings.rules_of(camera).get(rule)
            if now is None and before is not None:
                return
            if _differs(now, before):
                raise _changed_meanwhile()
            if now is None:
                raise EdgeError(item="rule", expected=f"a rule of the camera {camera}", got=repr(rule[:40]))
            change = PageRule(settings={"enabled": False}) if rule in file.rule_names(camera) else None
            self._apply_page(page.changed(camera, rule, change), camera, rule, None)

    def undo_rules(self, number: int | None = None) -> None:
        """Undoes the latest change of `change_rule` or `remove_rule`.

        Args:
            number: Number of the latest change that the page showed; None for any. A change that is already undone is no
                error: the answer may have been lost.

        Raises:
            UserError, TimeoutError: There is none, or the rules before it are no longer valid. Nothing has changed.
        """
        with self._lock:
            page = read_page_rules(self._runtime.settings.state_dir)
            if number is not None and number != page.latest:
                if page.latest < number <= page.count:
                    return
                raise _changed_meanwhile()
            page = page.undone()
            self._apply_rules(load_settings(self._file, self._desired, page, self._document), page)

    def _page_and_file(self, camera: str) -> tuple[PageRules, EdgeSettings]:
        """Returns what was changed on the page, and the settings without it."""
        file = load_settings(self._file, self._desired, PageRules(), self._document)
        if camera not in self._runtime.settings.live_cameras or camera not in file.cameras:
            raise EdgeError(item="camera", expected="a camera of the box", got=repr(camera[:40]))
        return read_page_rules(self._runtime.settings.state_dir), file

    def _apply_page(self, page: PageRules, camera: str, rule: str, wanted: RuleConfig | None) -> None:
        settings = load_settings(self._file, self._desired, page, self._document)
        expected = {name: kept for name, kept in self._runtime.settings.rules_of(camera).items() if name != rule}
        if settings.rules_of(camera) != expected | ({} if wanted is None else {rule: wanted}):
            raise EdgeError(
                "the module twin or an environment variable overrides the page, or rules.json was changed by hand",
                hint="change the rule there, or reload edge.yaml",
            )
        try:
            camera_rules(settings, self._runtime.deployment.model.contract, camera)
        except EdgeError as error:  # the page knows which rule it changes
            error.setting = (error.setting or "").removeprefix(f"{settings.key_of(camera, rule)}.") or None
            raise
        self._apply_rules(settings, page)

    def _apply_rules(self, wanted: EdgeSettings, page: PageRules) -> None:
        before = self._runtime.deployment
        after = replace(before, settings=before.settings.with_live_fields_of(wanted))  # the model stays open
        self._deploy(after, partial(_save_page, page), "the rules")

    def health(self, payload: Any = None) -> dict[str, Any]:
        """Direct method `health`."""
        status = RuntimeStatus(self._runtime)
        return {"alive": status.alive(), "ready": status.ready(), **status.state()}

    def reported(self) -> dict[str, Any]:
        """Returns the properties that the box reports to the twin, in addition to the outcome: software and active model."""
        reference = self._runtime.deployment.model.reference
        return {"version": __version__, "model": {"name": reference.name, "sha256": reference.sha256}}

    def snapshot(self, payload: Any = None) -> dict[str, Any]:
        """Direct method `snapshot`, payload {"camera": NAME}: returns the annotated frame as a JPEG in base64."""
        camera = payload.get("camera") if isinstance(payload, Mapping) else None
        jpeg = RuntimeStatus(self._runtime).live(camera) if isinstance(camera, str) else None
        if jpeg is None:
            known = ", ".join(sorted(self._runtime.pipelines))
            raise EdgeError(
                item="snapshot", expected=f"a camera that has delivered a frame, one of {known}", got=repr(str(camera)[:40])
            )
        return {"camera": camera, "jpeg_base64": base64.b64encode(jpeg).decode()}

    def _apply_settings(self, wanted: EdgeSettings, save: Save | None = None, saved: str = "") -> list[str]:
        """Replaces the running configuration; returns the settings that differ and need a restart.

        Args:
            wanted: The settings to apply, as far as that is possible while the box runs.
            save: Saves, for the next start, what the file does not hold; takes the former and the new deployment.
            saved: What it saves, in words.
        """
        before = self._runtime.deployment
        self._deploy(before.with_settings(before.settings.with_live_fields_of(wanted)), save, saved)
        return before.settings.restart_fields_changed_in(wanted)

    def _deploy(self, after: Deployment, save: Save | None, saved: str) -> None:
        """Replaces the running configuration and saves it, or does neither; see `_apply_settings`."""
        before = self._runtime.deployment
        self._runtime.between_frames(lambda: self._runtime.deploy(after))
        if save is None:
            return
        try:
            save(before, after)
        except OSError as error:
            # a change that is applied but not saved would be lost at the next restart
            self._runtime.between_frames(lambda: self._runtime.deploy(before))
            raise EdgeError(
                file=before.settings.state_dir,
                problem=f"cannot save {saved} ({error.strerror or error}), nothing was changed",
                hint="free disk space on the box, then apply them again",
            ) from error

    def _save_desired(self, desired: Mapping[str, Any], before: Deployment, after: Deployment) -> None:
        state_dir = after.settings.state_dir
        write_desired(state_dir, desired)
        if after.detector is not before.detector:
            try:
                ModelStore(state_dir, after.settings.model).activate(after.detector)
            except OSError:
                with contextlib.suppress(OSError):
                    write_desired(state_dir, self._desired)
                raise

    def _warn_of_restart(self, settings: Sequence[str]) -> None:
        if settings:
            _log.warning("%s: restart the box to apply %s", self._file, ", ".join(settings))

    def _require_applicable(self, desired: Mapping[str, Any]) -> None:
        for key in desired:
            if key not in LIVE_FIELDS:
                raise EdgeError(
                    setting=key,
                    problem="cannot be changed remotely",
                    hint=f"change it in {self._file.name} and restart the box",
                )
        if "model" in desired and not (isinstance(desired["model"], Mapping) and set(desired["model"]) == {"url", "sha256"}):
            raise EdgeError("model: expected url and sha256, and nothing else")


def _rule(name: str, settings: Mapping[str, Any], zones: Mapping[str, Polygon]) -> RuleConfig:
    """Returns a rule of the page; errors name the setting as the page does, without camera and rule."""
    try:
        check_name(name)
        rule = RuleConfig.model_validate(settings)
    except ValidationError as error:
        location, problem = first_error(error)
        setting, item = (str(location[0]), ".".join(map(str, location[1:]))) if location else (None, None)
        raise EdgeError(problem, setting=setting, item=item) from None
    except ValueError as error:
        raise EdgeError(str(error)) from None
    if not rule.enabled:
        raise EdgeError("remove the rule instead of disabling it", setting="enabled")
    try:
        return rule.with_zones_of(zones)
    except ValueError as error:
        raise EdgeError(str(error), setting="zones") from None


def _differs(now: RuleConfig | None, before: Mapping[str, Any] | None) -> bool:
    """Whether a rule differs from what somebody saw as `before`; False if that is None."""
    return before is not None and before != ({} if now is None else now.model_dump(mode="json"))


def _changed_meanwhile() -> EdgeError:
    return EdgeError("somebody else has changed the rules in the meantime", hint="press Discard to see them as they are now")


def _general_rule(settings: EdgeSettings, camera: str, name: str) -> RuleConfig | None:
    """Returns a rule of a camera; None if it is new and the general settings do not fit this camera, such as zones."""
    try:
        return settings.rule_of(camera, name)
    except ValueError:
        return None


def _own_settings(wanted: RuleConfig, file: EdgeSettings, camera: str, name: str) -> dict[str, Any]:
    """Returns the settings of a rule that differ from those without the page."""
    general, settings = _general_rule(file, camera, name), wanted.model_dump(mode="json")
    if general is None:
        return settings
    return {name: value for name, value in settings.items() if getattr(wanted, name) != getattr(general, name)}


def _new_rule(settings: EdgeSettings, camera: str) -> RuleConfig:
    """Returns what a new rule of a camera starts with: the general settings, without zones that the camera does not have."""
    general = _general_rule(settings, camera, NEW)
    if general is not None:
        return general
    own = settings.cameras[camera].rule
    return (settings.rule if own is None else own.over(settings.rule)).model_copy(update={"zones": {}})


def _save_page(page: PageRules, before: Deployment, after: Deployment) -> None:
    page.save(after.settings.state_dir)


def read_desired(state_dir: Path) -> dict[str, Any]:
    """Reads the twin's latest desired values; returns an empty dict if there are none, or if the file is damaged."""
    path = state_dir / DESIRED_FILE
    try:
        desired = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = str(error)
    else:
        if isinstance(desired, dict):
            return desired
        reason = f"it holds {type(desired).__name__}, not settings"
    # a box that does not start would be blind, and could not get them again
    _log.error("%s cannot be read (%s): the settings of edge.yaml apply until the twin sends its own again", path, reason)
    return {}


def write_desired(state_dir: Path, desired: Mapping[str, Any]) -> None:
    """Saves the twin's desired values, readable only by the owner: the address of a camera may contain a password."""
    with replacing(state_dir / DESIRED_FILE, 0o600) as temporary:
        temporary.write_text(json.dumps(desired))
