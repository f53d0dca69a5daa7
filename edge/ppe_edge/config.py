"""edge.yaml: every setting of the box, each part described beside the code that it steers.

What holds: the module twin over environment variables (`PPE_EDGE__WEB__TOKEN`) over the file. Passwords belong into the
environment. A mistake is told in one line that never shows what could be a password.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ppe_edge.cameras.sources import SourceConfig
from ppe_edge.delivery.outbox import OutboxConfig
from ppe_edge.delivery.sinks import SinksConfig
from ppe_edge.errors import EdgeError
from ppe_edge.iot.twin import TwinConfig
from ppe_edge.pictures.sampler import SamplerConfig
from ppe_edge.pictures.snapshot import SnapshotConfig
from ppe_edge.rules.tracker import TrackerConfig
from ppe_edge.rules.violations import RuleConfig
from ppe_edge.web.config import WebConfig

MAX_BYTES = 1024**2  # of edge.yaml
# What came is shown only where it cannot be a password: it should have been a number, a switch or one of a few words
_SHOWN = {"int_parsing", "float_parsing", "bool_parsing", "literal_error", "enum", "int_from_float"}


def _camera_name(name: str) -> str:
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,31}", name):
        raise ValueError(
            "expected a name of small letters a-z, digits, - and _, which begins with a letter or a digit and has at most "
            "32 characters"
        )
    return name


CameraName = Annotated[str, AfterValidator(_camera_name)]


class CameraConfig(SourceConfig):
    """A camera: where it is, and what is different about it."""

    enabled: bool = Field(True, description="Whether it is looked at; a twin takes a camera out with false.")
    rule: RuleConfig | None = Field(None, description="Its own rule; what it leaves out is as in the general one.")


class ModelConfig(BaseModel):
    """The model, as `ppe-yolo export` or `ppe-yolo quantize` wrote it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="The .onnx file, unless the twin names another one.")
    url: str | None = Field(None, description="By the twin: where a newer model is fetched from (https).")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="By the twin: the newer model's SHA-256.")
    providers: tuple[str, ...] | None = Field(
        None, description="onnxruntime's providers in order; those available when left out."
    )
    threads: int | None = Field(None, ge=1, le=256, description="Of one operation; onnxruntime's own choice when left out.")

    @model_validator(mode="after")
    def _url_with_hash(self) -> "ModelConfig":
        if (self.url is None) != (self.sha256 is None):
            raise ValueError("url and sha256 belong together")
        return self


class EdgeSettings(BaseSettings):
    """All settings. Made by `load_settings`."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="PPE_EDGE__",
        env_nested_delimiter="__",
        nested_model_default_partial_update=False,
    )
    file_: ClassVar[Mapping[str, Any]] = {}

    model: ModelConfig
    state_dir: Path = Field(description="Folder for what must outlive a restart: the outbox, fetched models, samples.")
    cameras: dict[CameraName, CameraConfig] = Field(min_length=1, max_length=64, description="Name -> camera.")
    batch: int = Field(8, ge=1, le=64, description="The most pictures, of different cameras, that one run of the model takes.")
    tracker: TrackerConfig = Field(default_factory=TrackerConfig, description="How heads are followed.")
    rule: RuleConfig = Field(default_factory=RuleConfig, description="What counts as a violation, for every camera.")
    snapshot: SnapshotConfig = Field(default_factory=SnapshotConfig, description="The picture that goes with an alert.")
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="Pictures that the model was unsure of.")
    outbox: OutboxConfig = Field(default_factory=OutboxConfig, description="What waits for delivery.")
    sinks: SinksConfig = Field(default_factory=SinksConfig, description="Where alerts go.")
    twin: TwinConfig = Field(default_factory=TwinConfig, description="Remote control by IoT Hub.")
    web: WebConfig = Field(default_factory=WebConfig, description="The local page.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="What is logged, on standard error.")

    @model_validator(mode="after")
    def _something_to_look_at(self) -> "EdgeSettings":
        if not self.live_cameras:
            raise ValueError("cameras: every camera has enabled: false, nothing to look at")
        for name in self.live_cameras:
            self.rule_of(name)
        return self

    @property
    def live_cameras(self) -> dict[str, CameraConfig]:
        """Those that are enabled."""
        return {name: camera for name, camera in self.cameras.items() if camera.enabled}

    def rule_of(self, camera: str) -> RuleConfig:
        """A camera's rule: its own where it says something, else the general one."""
        own = self.cameras[camera].rule
        if own is None:
            return self.rule
        return RuleConfig.model_validate({**self.rule.model_dump(), **{k: getattr(own, k) for k in own.model_fields_set}})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The twin's wishes (given as arguments), then the environment, then the file."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, dict(cls.file_))


def load_settings(path: Path, desired: Mapping[str, Any] | None = None) -> EdgeSettings:
    """Reads and checks everything.

    Args:
        path: edge.yaml.
        desired: What the module twin wants to be different, in the same shape.

    Raises:
        EdgeError: No such file, not YAML, or a value that cannot be; names the file and the key.
    """
    document = read_yaml(path)
    source = str(path) if desired is None else "twin"

    class FromFile(EdgeSettings):
        file_: ClassVar[Mapping[str, Any]] = document

    try:
        return FromFile(**(desired or {}))
    except ValidationError as error:
        place, mistake = first_mistake(error)
        if variable := _variable(place, desired or {}):
            source = f"environment variable {variable}"
        raise EdgeError(f"{source}: {mistake}") from None  # the error's own text shows what came, passwords too
    except ValueError as error:  # pydantic-settings: a variable of the environment that should be JSON and is not
        raise EdgeError(f"environment: {str(error).splitlines()[0]}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's keys.

    Raises:
        EdgeError: No such file, too large, not YAML, or not keys.
    """
    if not path.is_file():
        raise EdgeError(f"{path}: expected a configuration, got {'a folder' if path.is_dir() else 'no such file'}")
    if path.stat().st_size > MAX_BYTES:
        raise EdgeError(f"{path}: expected a configuration of at most {MAX_BYTES} bytes, got {path.stat().st_size}")
    try:
        document = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise EdgeError(f"{path}: expected YAML, got a mistake{line}: {problem}") from None
    if not isinstance(document, dict) or not all(isinstance(k, str) for k in document):
        raise EdgeError(f"{path}: expected keys (model, state_dir, cameras, ...), got {type(document).__name__}")
    return document


def first_mistake(error: ValidationError) -> tuple[Sequence[int | str], str]:
    """Where the first mistake is, and `cameras.gate.fps: expected ..., got ...` with how many more there are."""
    mistakes = error.errors(include_url=False, include_context=False)
    # a key that nobody knows is often the one that is missing, misspelt
    first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    place = [part for part in first["loc"] if part != "[key]"]  # pydantic's word for a name that is wrong itself
    key = ".".join(map(str, place))
    message = first["msg"].removeprefix("Value error, ")
    came = first["input"]
    if first["type"] == "extra_forbidden":
        known = _settings_beside(place)
        nearest = difflib.get_close_matches(str(place[-1]), known, n=1)
        message = f"no such setting, {f'did you mean {nearest[0]}?' if nearest else 'expected one of ' + ', '.join(known)}"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] in _SHOWN or isinstance(came, bool | int | float):
        message += f", got {came!r}"
    elif not first["type"].startswith("value_error"):
        message += f", got {type(came).__name__}"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return place, " ".join(f"{key}: {message}{more}".removeprefix(": ").split())


def _settings_beside(place: Sequence[int | str]) -> list[str]:
    """The settings that there are where an unknown one is."""
    kind: Any = EdgeSettings
    for part in place[:-1]:
        kind = kind.model_fields[part].annotation if hasattr(kind, "model_fields") else get_args(kind)[1]  # of dict[str, kind]
        if type(None) in get_args(kind):  # kind | None
            kind = get_args(kind)[0]
    return list(kind.model_fields)


def _variable(place: Sequence[int | str], desired: Mapping[str, Any]) -> str | None:
    """The variable of the environment that a setting comes from; None if that is not it."""
    if _holds(desired, place) or not _holds(EnvSettingsSource(EdgeSettings)(), place):
        return None
    variables = {name.upper(): name for name in os.environ}
    prefix = EdgeSettings.model_config["env_prefix"]
    # the setting's own, or one that holds it in JSON
    names = [prefix + "__".join(map(str, place[:end])).upper() for end in range(len(place), 0, -1)]
    return next((variables[name] for name in names if name in variables), None)


def _holds(values: Any, place: Sequence[int | str]) -> bool:
    """Whether a part of the configuration says something about a setting."""
    for part in place:
        if not isinstance(values, Mapping):  # a list: it came as one
            return True
        if part not in values:
            return False
        values = values[part]
    return True
