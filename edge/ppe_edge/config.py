"""edge.yaml: all settings of the box. Each section is described next to the code that uses it.

Precedence: the module twin overrides environment variables (`PPE_EDGE__WEB__TOKEN`), which override the file. Passwords belong
into the environment. Errors are one line and never show a value that may be a password.
"""

import difflib
import functools
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ppe_edge.cameras.sources import SourceConfig
from ppe_edge.compliance.config import ComplianceConfig
from ppe_edge.delivery.outbox.config import OutboxConfig
from ppe_edge.delivery.sinks import SinksConfig, escalate, notify
from ppe_edge.errors import EdgeError
from ppe_edge.iot.twin import TwinConfig
from ppe_edge.model.store import ModelConfig
from ppe_edge.page_rules import FILE as PAGE_RULES
from ppe_edge.page_rules import PageRules, hint_for_page_rules, read_page_rules
from ppe_edge.pictures.clip import ClipConfig
from ppe_edge.pictures.privacy import PrivacyConfig
from ppe_edge.pictures.sampler import SamplerConfig
from ppe_edge.pictures.snapshot import SnapshotConfig
from ppe_edge.rules.config import DEFAULT_RULE, Polygon, RuleConfig, check_polygons
from ppe_edge.rules.tracker import TrackerConfig
from ppe_edge.site import SiteConfig
from ppe_edge.strict_yaml import kind_of, read_yaml
from ppe_edge.verdicts.config import VerdictsConfig
from ppe_edge.web.config import WebConfig

_log = logging.getLogger(__name__)
_PREFIX, _NEARLY_PREFIX = "PPE_EDGE__", "PPE_EDGE_"  # of environment variables, and what people write by mistake
# `reload` and the twin apply these while the box runs. The others need a restart: they name files, ports and secrets of this
# machine, or concern threads that are created once. A new one also needs `Runtime.deploy` or `Deployment.looks_alike`, which
# replace what uses it; `test_reload_applies_every_setting_or_lists_it` checks that.
LIVE_FIELDS = frozenset({"cameras", "site", "rule", "rules", "tracker", "snapshot", "privacy", "sampler", "batch", "model"})
# errors that show the wrong value, because it cannot be a password: expected a number, a boolean or one of a few words
_SHOWN = {"int_parsing", "float_parsing", "bool_parsing", "literal_error", "enum", "int_from_float"}


def _escaped(name: str) -> str:
    """Returns a name with escapes, if it has characters that look like others, or like none."""
    return "" if name.isascii() and name.isprintable() else f", got {name[:40]!a}"


def check_name(name: str) -> str:
    """Returns the name of a camera or a rule; raises ValueError if it is none."""
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,31}", name):
        raise ValueError(
            "expected a name of lower-case letters a-z, digits, - and _ that starts with a letter or a digit and has at most "
            f"32 characters{_escaped(name)}"
        )
    if "__" in name or name.endswith("_"):
        raise ValueError(
            "expected a name without __ and without _ at its end: environment variables such as "
            "PPE_EDGE__CAMERAS__GATE__SOURCE could not address it"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]  # of a camera or a rule


def _zones(zones: dict[str, Polygon]) -> dict[str, Polygon]:
    check_polygons(zones)
    return zones


Rules = Annotated[dict[Name, RuleConfig], Field(max_length=32)]


class CameraConfig(SourceConfig):
    """A camera: its address, and the settings that differ from the general ones."""

    enabled: bool = Field(True, description="Whether the camera is monitored; the twin removes a camera with false.")
    view_health: bool = Field(
        True,
        description="Whether a view that is covered, dark, overexposed, out of focus or turned away is reported. Turn it off "
        "for cameras that patrol, and off and on again after a camera was moved on purpose.",
    )
    zones: Annotated[dict[str, Polygon], AfterValidator(_zones)] = Field(
        default_factory=dict,
        description="Zones that rules can name: name -> corners (x, y) as fractions of width and height.",
    )
    rule: RuleConfig | None = Field(
        None, description="Settings of all rules of this camera; those that it omits come from the general ones."
    )
    rules: Rules = Field(
        default_factory=dict, description="Rules of this camera, and settings of general rules that differ here, by name."
    )


class EdgeSettings(BaseSettings):
    """All settings. Created by `load_settings`."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=False,
    )
    file_: ClassVar[Mapping[str, Any]] = {}  # the content of edge.yaml, which `_validated` sets in a subclass

    model: ModelConfig
    state_dir: Path = Field(description="Folder for data that must survive a restart: the outbox, downloaded models, samples.")
    cameras: dict[Name, CameraConfig] = Field(min_length=1, max_length=64, description="The cameras, by name.")
    batch: int = Field(8, ge=1, le=64, description="Maximum number of frames, from different cameras, per run of the model.")
    tracker: TrackerConfig = Field(default_factory=TrackerConfig, description="How heads are tracked.")
    rule: RuleConfig = Field(
        default_factory=RuleConfig,
        description="When a camera raises an alert. Named `rules` inherit these settings.",
    )
    rules: Rules = Field(default_factory=dict, description="Named rules that apply to all cameras.")
    site: SiteConfig = Field(default_factory=SiteConfig, description="The site that the box watches.")
    snapshot: SnapshotConfig = Field(default_factory=SnapshotConfig, description="The image that is stored with an alert.")
    privacy: PrivacyConfig = Field(
        default_factory=PrivacyConfig, description="Which classes are pixelated in all images that the box stores or shows."
    )
    clip: ClipConfig = Field(default_factory=ClipConfig, description="The video that follows an alert.")
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="Uncertain frames, kept for training.")
    verdicts: VerdictsConfig = Field(default_factory=VerdictsConfig, description="Frames of alerts, kept for training.")
    compliance: ComplianceConfig = Field(default_factory=ComplianceConfig, description="Compliance over time.")
    outbox: OutboxConfig = Field(default_factory=OutboxConfig, description="Storage of messages until they are delivered.")
    sinks: SinksConfig = Field(default_factory=SinksConfig, description="Destinations of alerts.")
    twin: TwinConfig = Field(default_factory=TwinConfig, description="Remote control through IoT Hub.")
    web: WebConfig = Field(default_factory=WebConfig, description="The local web page.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Minimum level of the log on standard error."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "EdgeSettings":
        if not self.live_cameras:
            raise ValueError("cameras: every camera has enabled: false, so there is nothing to monitor")
        for name in self.live_cameras:
            if not self.rules_of(name):
                raise ValueError(f"cameras.{name}.rules: every rule has enabled: false: disable the camera instead")
        if self.site.time_zone is None and (user := next(self._users_of_time_zone(), None)):
            raise ValueError(f"site.time_zone: is missing, {user} needs one, such as Europe/Berlin")
        if self.compliance.report == "shift" and not self.site.shifts:
            raise ValueError("site.shifts: is missing, compliance.report: shift needs shifts, such as early: 06:00-14:00")
        if self.sampler.upload and self.sinks.iothub is None:
            raise ValueError("sampler.upload: expected also sinks.iothub, which connects the box to IoT Hub")
        return self

    def _users_of_time_zone(self) -> Iterator[str]:
        for camera in self.live_cameras:
            scheduled = (rule for rule, config in self.rules_of(camera).items() if config.has_schedule)
            yield from (f"the schedule of {self.key_of(camera, rule)}" for rule in scheduled)
        for sink, people in (("notify", self.sinks.notify), ("escalate", self.sinks.escalate)):
            if people is not None and people.quiet_hours:
                yield f"sinks.{sink}.quiet_hours"

    @property
    def needs_hub(self) -> bool:
        """Whether the box connects to the hub of IoT Edge."""
        return self.twin.enabled or self.sinks.iothub is not None

    @property
    def live_cameras(self) -> dict[str, CameraConfig]:
        """The enabled cameras."""
        return {name: camera for name, camera in self.cameras.items() if camera.enabled}

    def rules_of(self, camera: str) -> dict[str, RuleConfig]:
        """Returns the enabled rules of a camera by name, with the outlines of their zones.

        A setting comes from the first of these that has it: the camera's rule of this name, the camera's `rule`, the general
        rule of this name, the general `rule`. Without `rules`, there is one rule, `DEFAULT_RULE`.

        Raises:
            ValueError: The settings of a rule contradict each other, or it names a zone that the camera does not have.
        """
        rules = {name: self.rule_of(camera, name) for name in self.rule_names(camera)}
        return {name: rule for name, rule in rules.items() if rule.enabled}

    def rule_of(self, camera: str, name: str) -> RuleConfig:
        """Returns a rule as `rules_of` does, enabled or not; one that the camera does not have has the general settings."""
        config, rule = self.cameras[camera], self.rule
        try:
            for layer in (self.rules.get(name), config.rule, config.rules.get(name)):
                rule = rule if layer is None else layer.over(rule)
            return rule.with_zones_of(config.zones)
        except ValidationError as error:
            location, message = first_error(error)
            raise ValueError(f"{_key([self.key_of(camera, name), *location])}: {message}") from None
        except ValueError as error:
            raise ValueError(f"{self.key_of(camera, name)}.zones: {error}") from None

    def rule_names(self, camera: str) -> tuple[str, ...]:
        """Returns the names of a camera's rules, enabled or not."""
        return tuple(dict.fromkeys((*self.rules, *self.cameras[camera].rules))) or (DEFAULT_RULE,)

    def key_of(self, camera: str, rule: str) -> str:
        """Returns where a rule of a camera is set, such as `rules.no_vest`."""
        config = self.cameras[camera]
        if rule in config.rules:
            return f"cameras.{camera}.rules.{rule}"
        if rule in self.rules:
            return f"rules.{rule}"
        return "rule" if config.rule is None else f"cameras.{camera}.rule"

    def with_live_fields_of(self, other: "EdgeSettings") -> "EdgeSettings":
        """Returns these settings with the `LIVE_FIELDS` of others."""
        return self.model_copy(update={name: getattr(other, name) for name in LIVE_FIELDS})

    def restart_fields_changed_in(self, other: "EdgeSettings") -> list[str]:
        """Returns the names of all settings that differ and cannot be applied without a restart."""
        fixed = [name for name in EdgeSettings.model_fields if name not in LIVE_FIELDS]
        return [name for name in fixed if getattr(self, name) != getattr(other, name)]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: the twin's desired values (given as arguments), the environment, the file."""
        environment = InitSettingsSource(settings_cls, _environment(cls.file_))
        return init_settings, environment, InitSettingsSource(settings_cls, dict(cls.file_))


_ENVIRONMENT_ONLY: dict[tuple[str, ...], str] = {
    ("sinks", "notify", "urls"): notify.URLS_VARIABLE,
    ("sinks", "escalate", "urls"): escalate.URLS_VARIABLE,
}  # settings that hold passwords: edge.yaml may not


def load_settings(
    path: Path,
    desired: Mapping[str, Any] | None = None,
    page: PageRules | None = None,
    document: Mapping[str, Any] | None = None,
) -> EdgeSettings:
    """Reads and validates all settings.

    Args:
        path: edge.yaml.
        desired: The desired values of the module twin, in the same structure.
        page: Rules changed on the page; by default those in the state folder.
        document: Content of edge.yaml; by default, it is read.

    Raises:
        EdgeError: The file is missing or not YAML, or a value is invalid; names the file and the key.
    """
    document = read_yaml(path) if document is None else document
    for location, variable in _ENVIRONMENT_ONLY.items():
        if _holds(document, location):
            problem = f"{'.'.join(location)}: set it in the environment variable {variable}, because it holds passwords"
            raise EdgeError(f"{path}: {problem}")
    settings = _validated(document, path, desired)
    if page is not None:
        return _validated(page.over(document, settings.rule_names), None, desired)
    page, state_dir = read_page_rules(settings.state_dir), settings.state_dir
    if not page.changes:
        return settings
    try:
        return _validated(page.over(document, settings.rule_names), state_dir / PAGE_RULES, desired)
    except EdgeError as error:  # edge.yaml alone is valid
        error.hint = hint_for_page_rules(state_dir)
        raise


def _validated(document: Mapping[str, Any], path: Path | None, desired: Mapping[str, Any] | None) -> EdgeSettings:
    class FromFile(EdgeSettings):
        file_: ClassVar[Mapping[str, Any]] = document

    _refuse_unusable_variables()
    try:
        settings = FromFile(**(desired or {}))
    except ValidationError as error:
        location, message = first_error(error)
        source: str | Path | None = "twin" if desired and _holds(desired, location) else path
        if variable := _ENVIRONMENT_ONLY.get(tuple(map(str, location))) or _variable(location, document, desired or {}):
            source = f"environment variable {variable}"
        # the original error shows the values, including passwords
        raise EdgeError(file=source, item=_key(location) or None, problem=message) from None
    except SettingsError as error:  # it names the section, not the variable
        section = re.search('field "([a-z_]+)"', str(error))
        variables = " or ".join(_variables_without_json(section[1] if section else ".+"))
        example = """PPE_EDGE__RULE__ZONES='["gate"]'"""
        raise EdgeError(f"environment variable {variables}: expected JSON, such as {example}") from None
    for given, source in ((document, path), (_environment(document), "environment variables"), (desired or {}, "twin")):
        if location := boolean_for_number(given, settings):
            raise EdgeError(file=source, item=_key(location), expected="a number", got="true or false")
    return settings


def boolean_for_number(given: Mapping[Any, Any], read: Any, location: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Returns where a boolean stands for a number: pydantic reads it as 1 or 0, and `fps: on` as one frame per second."""
    for name, value in given.items():
        here, meant = (*location, str(name)), read.get(name) if isinstance(read, Mapping) else getattr(read, str(name), None)
        if isinstance(value, list | tuple) and isinstance(meant, list | tuple):  # such as the corners of a zone
            value, meant = dict(enumerate(value)), dict(enumerate(meant))
        if isinstance(value, bool) and isinstance(meant, int | float) and not isinstance(meant, bool):
            return here
        if isinstance(value, Mapping) and (found := boolean_for_number(value, meant, here)):
            return found
    return ()


def _variables_without_json(section: str) -> list[str]:
    """Returns the variables of a section that are no JSON: those for the most settings, since others need not be JSON."""
    names = [name for name in os.environ if re.fullmatch(f"{_PREFIX}{section}(__.*)?", name, re.IGNORECASE)]
    invalid = [name for name in names if not _is_json(os.environ[name])]
    return [name for name in invalid if name.count("__") == min(other.count("__") for other in invalid)]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _refuse_unusable_variables() -> None:
    """Refuses a variable that names no section: pydantic-settings ignores it, and a misspelled password would be missing.

    Also one that ends with a carriage return, as Docker reads it from a file with the line ends of Windows.
    """
    sections = list(EdgeSettings.model_fields)
    for variable, value in os.environ.items():
        name, problem = variable.upper(), ""
        if name.startswith(_PREFIX):
            section = name.removeprefix(_PREFIX).partition("__")[0].lower()
            if section not in sections:
                problem = _unknown(section, sections)
            elif value.endswith("\r"):
                problem = "ends with a carriage return: save its file with the line ends of Linux"
        elif name.startswith(_NEARLY_PREFIX):
            setting = name.removeprefix(_NEARLY_PREFIX)
            section, nested, _ = setting.partition("__")
            if section.lower() in sections and nested:  # Kubernetes sets variables such as PPE_EDGE_SERVICE_HOST
                problem = f"no such setting, did you mean {_PREFIX}{setting}?"
        if problem:
            raise EdgeError(f"environment variable {variable}: {problem}")


def _unknown(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    expected = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(known)}"
    return f"no such setting, {expected}{_escaped(name)}"


def _environment(file: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the environment sets. Names that people choose, such as those of zones, are written as in the file."""
    return {key: _named_as_in(file.get(key), value, (key,)) for key, value in EnvSettingsSource(EdgeSettings)().items()}


def _plain(name: object) -> str:
    """Returns a name as variables have it: without case, and with _ for -, which neither shells nor systemd accept."""
    return str(name).casefold().replace("-", "_")


@functools.cache  # once, although settings are read several times
def _warn_of_dash(variable: str | None, key: str) -> None:
    _log.warning("environment variable %s: sets %s of edge.yaml, which is written with -", variable, key)


def _named_as_in(file: Any, values: Any, location: tuple[str, ...]) -> Any:
    """Replaces the names in values by those of the file that differ in case alone, or in - for _.

    Raises:
        EdgeError: The file or a variable has two such names.
    """
    if not isinstance(values, Mapping) or not isinstance(file, Mapping):
        return values
    named: dict[Any, Any] = {}
    for name, value in values.items():
        but_for_case = [known for known in file if str(known).casefold() == name.casefold()]
        alike = but_for_case or [known for known in file if _plain(known) == _plain(name)]
        key = alike[0] if alike else name
        if len(alike) > 1 or key in named:
            where = f"environment variable {_variable_of((*location, name), parts=True)}"
            if key in named:
                raise EdgeError(f"{where}: sets {key} twice, in names that differ in case alone: remove one")
            both = f"{alike[0]} and {alike[1]}"
            raise EdgeError(f"{where}: edge.yaml has both {both}, and variables have no case: rename one of them")
        if alike and not but_for_case:
            _warn_of_dash(_variable_of((*location, name), parts=True), ".".join((*location, str(key))))
        named[key] = _named_as_in(file.get(key), value, (*location, name))
    return named


def first_error(error: ValidationError) -> tuple[Sequence[int | str], str]:
    """Returns the location of the first error, and what is wrong there, in one line such as `expected ..., got ...`."""
    errors = error.errors(include_url=False, include_context=False)
    # an unknown key is often a misspelling of the one that is missing
    first = min(errors, key=lambda entry: entry["type"] != "extra_forbidden")
    location = [part for part in first["loc"] if part != "[key]"]  # pydantic marks an invalid key so
    message = first["msg"].removeprefix("Value error, ")
    got = first["input"]
    if first["type"] == "extra_forbidden":
        message = _unknown(str(location[-1]), _siblings(location))
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"].startswith("date_"):
        message = "expected a date such as 2026-12-24"
    elif first["type"] == "string_type" and isinstance(got, bool | int | float | date):  # which may be a password
        kind = "true or false" if isinstance(got, bool) else "a date" if isinstance(got, date) else "a number"
        message = f"expected text, got {kind}: put it in quotes"
    elif first["type"] in _SHOWN or isinstance(got, bool | int | float):
        message += f", got {got!r}"
    elif first["type"] in ("dict_type", "model_type"):
        message = f"expected settings, such as NAME: VALUE, got {kind_of(got)}"
    elif not first["type"].startswith("value_error"):
        message += f", got {kind_of(got)}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return location, " ".join(f"{message}{more}".split())


def _key(location: Sequence[int | str]) -> str:
    return " ".join(".".join(map(str, location)).split())


def _siblings(location: Sequence[int | str]) -> list[str]:
    """Returns the settings that exist at the location of an unknown one."""
    kind: Any = EdgeSettings
    for part in location[:-1]:
        kind = kind.model_fields[part].annotation if hasattr(kind, "model_fields") else get_args(kind)[1]  # of dict[str, kind]
        if type(None) in get_args(kind):  # kind | None
            kind = get_args(kind)[0]
    return list(kind.model_fields)


def _variable(location: Sequence[int | str], file: Mapping[str, Any], desired: Mapping[str, Any]) -> str | None:
    """Returns the environment variable that a setting comes from; None if it comes from elsewhere."""
    if _holds(desired, location) or not _holds(_environment(file), location):
        return None
    return _variable_of(location, parts=not _holds(file, location))


def _variable_of(location: Sequence[int | str], *, parts: bool = False) -> str | None:
    """Returns the environment variable of a setting, or one that contains it as JSON, or with `parts` sets a part of it."""
    variables = {_plain(name): name for name in os.environ}
    names = [_plain(_PREFIX + "__".join(map(str, location[:end]))) for end in range(len(location), 0, -1)]
    if location and parts:
        names += [name for name in variables if name.startswith(f"{names[0]}__")]
    return next((variables[name] for name in names if name in variables), None)


def _holds(values: Any, location: Sequence[int | str]) -> bool:
    """Whether a part of the configuration sets a setting."""
    for part in location:
        if not isinstance(values, Mapping):  # a list is set as a whole
            return values is not None
        if part not in values:
            return False
        values = values[part]
    return True
