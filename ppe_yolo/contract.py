"""What a model file promises, and the one letterbox that training, evaluation and the edge share.

Imports numpy and OpenCV only, so that the edge can use it where torch is not installed.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_yolo.errors import UserError

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
        for name, threshold in self.alarm_thresholds.items():
            if name not in names:
                raise ContractError(f"model contract: alarm_thresholds names {name!r}, which is none of {list(names)!r}")
            _check_fraction(f"alarm_thresholds[{name}]", threshold)

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
        if set(values) != expected:
            raise ContractError(
                f"model contract: missing keys {sorted(expected - set(values))}, unknown keys {sorted(set(values) - expected)}"
            )
        for key, kind in (("class_names", list), ("input_size", list), ("alarm_thresholds", dict), ("provenance", dict)):
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


@dataclass(frozen=True)
class Placement:
    """Where `letterbox` put a photo: pixel (x, y) of the photo lies at (x * scale_x + left, y * scale_y + top)."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    photo_size: tuple[int, int]

    def place(self, boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Boxes of the photo [N, 4] in pixels -> boxes of the letterboxed input [N, 4] in pixels."""
        scale, shift = self._scale_and_shift()
        return np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4) * scale + shift

    def restore(self, boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Boxes of the letterboxed input [N, 4] in pixels -> boxes of the photo [N, 4], clipped to it."""
        scale, shift = self._scale_and_shift()
        boxes = (np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4) - shift) / scale
        height, width = self.photo_size
        return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float32))

    def restore_detections(
        self, boxes_xyxy: NDArray[np.floating[Any]], scores: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """`restore` for detections [N, 4], [N], [N], without those of which nothing lies in the photo: they saw the border."""
        boxes = self.restore(boxes_xyxy)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if inside.all():
            return boxes, scores, labels
        return boxes[inside], scores[inside], labels[inside]

    def _scale_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], dtype=np.float32)
        shift = np.array([self.left, self.top, self.left, self.top], dtype=np.float32)
        return scale, shift


def letterbox(
    photo: NDArray[np.uint8],
    input_size: tuple[int, int],
    pad_value: int = 114,
    out: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], Placement]:
    """Fits a photo into the network's input without distorting it; the rest is padded, evenly on both sides.

    Args:
        photo: uint8 [H, W, 3].
        input_size: (height, width) of the result, pixels.
        pad_value: Grey level of the border.
        out: A canvas of that size to draw into; a new one is made when None. A caller with many frames reuses one.

    Returns:
        The canvas, uint8 [height, width, 3], and where the photo lies in it.
    """
    height, width = input_size
    photo_height, photo_width = photo.shape[:2]
    scale = min(height / photo_height, width / photo_width)
    new_height = max(1, min(height, round(photo_height * scale)))
    new_width = max(1, min(width, round(photo_width * scale)))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    canvas = np.empty((height, width, 3), dtype=np.uint8) if out is None else out
    canvas[:top] = pad_value
    canvas[top + new_height :] = pad_value
    canvas[top : top + new_height, :left] = pad_value
    canvas[top : top + new_height, left + new_width :] = pad_value
    inside = canvas[top : top + new_height, left : left + new_width]
    if (photo_height, photo_width) == (new_height, new_width):
        inside[:] = photo
    else:
        # INTER_AREA would be a little sharper when shrinking, and costs thirty times as much
        cv2.resize(photo, (new_width, new_height), dst=inside, interpolation=cv2.INTER_LINEAR)
    placement = Placement(new_width / photo_width, new_height / photo_height, left, top, (photo_height, photo_width))
    return canvas, placement


def session_contract(session: Any, source: str) -> ModelContract:
    """The contract of an opened ONNX model, checked against the graph that it describes.

    Args:
        session: An `onnxruntime.InferenceSession`.
        source: The file's name, for messages.

    Raises:
        ContractError: No contract, one that cannot be read, or one that the graph contradicts.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    if ONNX_METADATA_KEY not in metadata:
        raise ContractError(f"{source}: expected a model of `ppe-yolo export`, got one without a contract in its metadata")
    try:
        contract = ModelContract.from_json(metadata[ONNX_METADATA_KEY])
    except ContractError as error:
        raise ContractError(f"{source}: {error}") from error
    most = contract.max_detections
    expected = {
        "images": ("tensor(uint8)", [*contract.input_size, 3]),
        "boxes_xyxy": ("tensor(float)", [most, 4]),
        "scores": ("tensor(float)", [most]),
        "labels": ("tensor(int64)", [most]),
    }
    # the first size is the batch, which is free
    found = {v.name: (v.type, list(v.shape)[1:]) for v in (*session.get_inputs(), *session.get_outputs())}
    if "decoded_xyxy" in found:
        raise ContractError(f"{source}: exported with --without-nms, for other runtimes: export it again without that option")
    for name, promised in expected.items():
        if found.get(name) != promised:
            raise ContractError(
                f"{source}: the contract promises {name} {_show(promised)}, the graph has {_show(found.get(name))}: "
                "export the model again"
            )
    strange = sorted(set(found) - set(expected))
    if strange:
        raise ContractError(f"{source}: the graph has {', '.join(strange)}, of which the contract knows nothing")
    return contract


def _show(value: tuple[str, list[Any]] | None) -> str:
    return "nothing of this name" if value is None else f"{value[0]} [batch, {', '.join(map(str, value[1]))}]"
