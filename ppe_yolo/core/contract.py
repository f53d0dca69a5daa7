"""The model contract: everything that a user of a model file has to know about it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ppe_yolo.core.errors import UserError

SCHEMA_VERSION = 1
ONNX_METADATA_KEY = "ppe_yolo.contract"  # where an ONNX file keeps the contract
STRIDE = 32  # Darknet-53 and tiny both halve the picture five times


class ContractError(UserError):
    """A model file whose promises are missing, unknown or contradict each other."""


@dataclass(frozen=True)
class ModelContract:
    """Everything that a user of a model must know about it, so that nobody types it a second time.

    Attributes:
        class_names: Names of the labels 0, 1, ... in order.
        input_size: (height, width) of the network's input, pixels.
        pad_value: Grey level of the letterbox's border.
        pixel_format: Order of the colour channels.
        score_floor: Detections below this score are never produced; low, so that average precision stays honest.
        nms_iou_threshold: Of two detections of one class that overlap more than this, the weaker one is dropped.
        max_detections: The most detections of one picture.
        alarm_thresholds: Class name -> score from which a detection counts as an alarm; empty until chosen.
        provenance: Where the model comes from: recipe, data-set hash, metrics, date.
        schema_version: Version of this list of promises.
        display_names: Class name -> the name that people read, such as `none` -> bare head. Files written before 0.2 have none;
            a class without one is shown by its class name.
    """

    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    pad_value: int = 114
    pixel_format: str = "RGB"
    score_floor: float = 0.01
    nms_iou_threshold: float = 0.5
    max_detections: int = 300
    alarm_thresholds: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    display_names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses promises that cannot be kept."""
        if self.schema_version != SCHEMA_VERSION:
            raise ContractError(
                f"model contract: expected schema_version {SCHEMA_VERSION}, got {self.schema_version!r}: "
                "update ppe_yolo, or export the model again"
            )
        names = self.class_names
        if not names or not all(isinstance(n, str) and n for n in names) or len(set(names)) != len(names):
            raise ContractError(f"model contract: class_names must be different, non-empty names, got {list(names)!r}")
        if len(self.input_size) != 2 or any(not _is_int(s) or s <= 0 or s % STRIDE for s in self.input_size):
            raise ContractError(
                f"model contract: input_size must be (height, width) in multiples of {STRIDE}, got {self.input_size!r}"
            )
        for key in ("score_floor", "nms_iou_threshold"):
            _check_fraction(key, getattr(self, key))
        if not _is_int(self.max_detections) or self.max_detections < 1:
            raise ContractError(f"model contract: max_detections must be a number from 1, got {self.max_detections!r}")
        if not _is_int(self.pad_value) or not 0 <= self.pad_value <= 255:
            raise ContractError(f"model contract: pad_value must be within 0..255, got {self.pad_value!r}")
        if self.pixel_format != "RGB":
            raise ContractError(f"model contract: pixel_format must be 'RGB', got {self.pixel_format!r}")
        for name, shown in self.display_names.items():
            if name not in names or not isinstance(shown, str) or not shown:
                raise ContractError(
                    f"model contract: display_names must map some of {list(names)!r} to names, got {name!r}: {shown!r}"
                )
        for name, threshold in self.alarm_thresholds.items():
            if name not in names:
                raise ContractError(f"model contract: alarm_thresholds names {name!r}, which is none of {list(names)!r}")
            _check_fraction(f"alarm_thresholds[{name}]", threshold)

    def display_name(self, class_name: str) -> str:
        """The name of a class that people read."""
        return self.display_names.get(class_name, class_name)

    def to_json(self) -> str:
        """The contract as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelContract":
        """Reads what `to_json` wrote.

        Raises:
            ContractError: Not JSON, an unknown version, missing or unknown keys, or values that cannot be true.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ContractError(f"model contract: expected JSON, got {text[:40]!r} ({error})") from error
        if not isinstance(values, dict):
            raise ContractError(f"model contract: expected a JSON object, got {type(values).__name__}")
        if values.get("schema_version") != SCHEMA_VERSION:
            raise ContractError(
                f"model contract: expected schema_version {SCHEMA_VERSION}, got {values.get('schema_version')!r}: "
                "update ppe_yolo, or export the model again"
            )
        expected = {f.name for f in dataclasses.fields(cls)}
        values.setdefault("display_names", {})  # added in 0.2
        if set(values) != expected:
            raise ContractError(
                f"model contract: missing keys {sorted(expected - set(values))}, unknown keys {sorted(set(values) - expected)}"
            )
        for key, kind in (
            ("class_names", list),
            ("input_size", list),
            ("alarm_thresholds", dict),
            ("provenance", dict),
            ("display_names", dict),
        ):
            if not isinstance(values[key], kind):
                raise ContractError(f"model contract: {key} must be a {kind.__name__}, got {values[key]!r}")
        values["class_names"] = tuple(values["class_names"])
        values["input_size"] = tuple(values["input_size"])
        return cls(**values)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_fraction(key: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value <= 1.0:
        raise ContractError(f"model contract: {key} must be within 0..1, got {value!r}")
