"""The model contract: the facts about a model that every user of its file needs."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, get_origin, get_type_hints

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.score_histogram import BINS

SCHEMA_VERSION = 1
ONNX_METADATA_KEY = "ppe_yolo.contract"  # metadata key of an ONNX file
DEFAULT_SCORE_THRESHOLD = 0.3  # of a class without an alarm threshold; the original helmet system used it
STRIDE = 32  # both backbones halve the image five times

_UPDATE_OR_EXPORT = "update ppe_yolo, or export the model again"
_JSON_KINDS = {tuple: list, Mapping: dict}  # fields of other types are checked by their values


class ContractError(UserError):
    """A model contract that is missing, has an unknown version or contradicts itself or its model."""


@dataclass(frozen=True)
class ModelContract:
    """The facts about a model that every user of its file needs, so that nobody types them a second time.

    Attributes:
        class_names: Names of the labels 0, 1, ... in order.
        input_size: (height, width) of the network's input, pixels.
        pad_value: Grey level of the letterbox padding.
        pixel_format: Order of the colour channels.
        score_floor: The model never returns detections with a lower score. It is low, so that average precision stays honest.
        nms_iou_threshold: If two detections of one class overlap more than this, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image.
        alarm_thresholds: Class name -> score from which a detection counts as an alarm; empty until they are chosen.
        provenance: Origin of the model: recipe, hash of the data set, metrics, date.
        schema_version: Version of this set of fields.
        display_names: Class name -> name shown to people, such as `none` -> bare head. Files written before 0.2 have none;
            a class without one is shown by its class name.
        score_histogram: How many detections in the validation images have which score, see `ppe_yolo.core.score_histogram`;
            empty until alarm thresholds are chosen, and in files written before 0.2.

    Raises:
        ContractError: A field has an impossible value.
    """

    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    _: KW_ONLY
    pad_value: int = 114
    pixel_format: str = "RGB"
    score_floor: float = 0.01
    nms_iou_threshold: float = 0.5
    max_detections: int = 300
    alarm_thresholds: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    display_names: Mapping[str, str] = field(default_factory=dict)
    score_histogram: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Validates the fields."""
        if self.schema_version != SCHEMA_VERSION:
            raise _unknown_version(self.schema_version)
        names = self.class_names
        if not names or not all(isinstance(n, str) and n for n in names) or len(set(names)) != len(names):
            raise _error(f"class_names must be different, non-empty names, got {list(names)!r}")
        if len(self.input_size) != 2 or any(not _is_int(s) or s <= 0 or s % STRIDE for s in self.input_size):
            raise _error(f"input_size must be (height, width) in multiples of {STRIDE}, got {self.input_size!r}")
        for key in ("score_floor", "nms_iou_threshold"):
            _check_fraction(key, getattr(self, key))
        if not _is_int(self.max_detections) or self.max_detections < 1:
            raise _error(f"max_detections must be a whole number of at least 1, got {self.max_detections!r}")
        if not _is_int(self.pad_value) or not 0 <= self.pad_value <= 255:
            raise _error(f"pad_value must be within 0..255, got {self.pad_value!r}")
        if self.pixel_format != "RGB":
            raise _error(f"pixel_format must be 'RGB', got {self.pixel_format!r}")
        for name, shown in self.display_names.items():
            if name not in names or not isinstance(shown, str) or not shown:
                raise _error(f"display_names must map some of {list(names)!r} to names, got {name!r}: {shown!r}")
        for name, threshold in self.alarm_thresholds.items():
            if name not in names:
                raise _error(f"alarm_thresholds names {name!r}, which is not one of {list(names)!r}")
            _check_fraction(f"alarm_thresholds[{name}]", threshold)
        histogram = self.score_histogram
        if histogram and (len(histogram) != BINS or not all(_is_int(count) and count >= 0 for count in histogram)):
            raise _error(f"score_histogram must be {BINS} counts, got {list(histogram)!r}")

    def display_name(self, class_name: str) -> str:
        """Returns the name of a class that is shown to people."""
        return self.display_names.get(class_name, class_name)

    def score_thresholds(self) -> dict[str, float]:
        """Returns class name -> score from which a detection is shown: its alarm threshold, or 0.3 if it has none.

        Decisions treat a class without a threshold otherwise: in a promotion it raises no alarm (`promotion_rules`), on
        the box it has the threshold of the violation class (`ViolationMonitor`).
        """
        return {name: self.alarm_thresholds.get(name, DEFAULT_SCORE_THRESHOLD) for name in self.class_names}

    def to_json(self) -> str:
        """Returns the contract as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelContract":
        """Reads the output of `to_json`. A field that the file lacks, since an older version wrote it, has its default.

        Raises:
            ContractError: The text is not JSON, has an unknown version, missing or unknown keys, or impossible values.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise _error(expected="JSON", got=f"{text[:40]!r} ({error})") from error
        if not isinstance(values, dict):
            raise _error(expected="a JSON object", got=type(values).__name__)
        if values.get("schema_version") != SCHEMA_VERSION:
            raise _unknown_version(values.get("schema_version"))
        if unknown := sorted(set(values) - {f.name for f in dataclasses.fields(cls)}):
            raise _error(f"unknown keys {unknown}", hint="a newer ppe_yolo wrote it: update this program (on a box, ppe-edge)")
        if missing := sorted({"class_names", "input_size"} - set(values)):
            raise _error(f"missing keys {missing}")
        for key, hint in get_type_hints(cls).items():
            kind = _JSON_KINDS.get(get_origin(hint))
            if kind is None or key not in values:
                continue
            if not isinstance(values[key], kind):
                raise _error(f"{key} must be a {kind.__name__}, got {values[key]!r}")
            if kind is list:
                values[key] = tuple(values[key])
        return cls(**values)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_fraction(key: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value <= 1.0:
        raise _error(f"{key} must be within 0..1, got {value!r}")


def _unknown_version(version: object) -> ContractError:
    return _error(expected=f"schema_version {SCHEMA_VERSION}", got=repr(version), hint=_UPDATE_OR_EXPORT)


def _error(problem: str | None = None, **fields: str) -> ContractError:
    return ContractError(problem, item="model contract", **fields)
