"""Pictures in, boxes in the pictures' own pixels out: onnxruntime and the contract of the model file."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppe_edge.errors import EdgeError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.onnx_session import session_contract

if TYPE_CHECKING:
    import onnxruntime as ort

Image = NDArray[np.uint8]
MAX_BYTES = 512 * 1024**2  # twice YOLOv3 in float32
# TensorRT builds its engine for minutes at the first start, so that it works only where it is named
_DEFAULT_ORDER = ("CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider")
_OUTPUTS = ["boxes_xyxy", "scores", "labels"]
# How long the model's threads wait busily for more work. By default it is so long that a few pictures a second keep all cores
# busy with waiting; this bridges what lies between two operations, and between two pictures at full speed.
_SPIN_US = "2000"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one picture, in falling order of score.

    Attributes:
        boxes_xyxy: float32 [N, 4], pixels of the picture.
        scores: float32 [N].
        labels: int64 [N].
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class EdgeDetector:
    """A model that is open.

    Args:
        model: The .onnx file.
        providers: onnxruntime's providers in the order in which they are to be tried; the usual ones when None.
        threads: Of one operation; onnxruntime's own choice when None.

    Raises:
        EdgeError: No such file, none that onnxruntime can run, or no such provider here.
        ContractError: A model without a contract, or with one that contradicts the graph.
    """

    def __init__(self, model: Path, providers: Sequence[str] | None = None, threads: int | None = None) -> None:
        content = _read(model)
        self.path = model
        self.name = model.name
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.session = _open(content, model, providers, threads)
        self.contract = session_contract(self.session, str(model))
        self.provider: str = self.session.get_providers()[0]
        self._canvases = np.empty((0, *self.contract.input_size, 3), dtype=np.uint8)

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """RGB pictures of any size, each uint8 [H, W, 3] -> one `Detections` a picture."""
        if not images:
            return []
        if len(images) > len(self._canvases):  # else those of the last call serve again
            self._canvases = np.empty((len(images), *self._canvases.shape[1:]), dtype=np.uint8)
        batch = self._canvases[: len(images)]
        contract = self.contract
        placements = [
            letterbox(image, contract.input_size, contract.pad_value, out=canvas)[1]
            for image, canvas in zip(images, batch, strict=True)
        ]
        boxes_xyxy, scores, labels = self.run(batch)
        found = [int(np.count_nonzero(of_one)) for of_one in scores]  # the rest are padding
        return [
            Detections(*placement.restore_detections(boxes_xyxy[i, :n], scores[i, :n], labels[i, :n]))
            for i, (n, placement) in enumerate(zip(found, placements, strict=True))
        ]

    def run(self, batch: NDArray[np.uint8]) -> list[Any]:
        """Letterboxed pictures uint8 [B, H, W, 3] -> boxes_xyxy [B, D, 4] in pixels of the input, scores, labels [B, D]."""
        return self.session.run(_OUTPUTS, {"images": batch})


def choose_providers(wanted: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """The providers to try, in order: those wanted that are available.

    Raises:
        EdgeError: None of those wanted is available.
    """
    chosen = [name for name in (wanted or _DEFAULT_ORDER) if name in available]
    if not chosen:
        raise EdgeError(f"model.providers: expected some of {', '.join(available)}, got {', '.join(wanted or ())}")
    return chosen


def _read(model: Path) -> bytes:
    if not model.is_file():
        raise EdgeError(f"{model}: expected an ONNX model, got {'a folder' if model.is_dir() else 'no such file'}")
    size = model.stat().st_size
    if size > MAX_BYTES:
        raise EdgeError(f"{model}: expected an ONNX model of at most {MAX_BYTES} bytes, got {size}")
    try:
        return model.read_bytes()
    except OSError as error:
        raise EdgeError(f"{model}: cannot be read ({error.strerror})") from error


def _open(content: bytes, model: Path, providers: Sequence[str] | None, threads: int | None) -> "ort.InferenceSession":
    import onnxruntime as ort  # slow to load, and the configuration needs only the names above

    if content.startswith(b"PK"):  # torch writes archives
        raise EdgeError(
            f"{model}: expected an ONNX model, got an archive as checkpoints are: export it with "
            f"`ppe-yolo export {model} --out {model.with_suffix('.onnx').name}`"
        )
    chosen = choose_providers(providers, ort.get_available_providers())
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # it would keep a plan, and room for it, of every number of pictures that ever came at once
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        # from bytes, so that the model cannot name other files of this machine as its weights
        session = ort.InferenceSession(content, options, providers=chosen)
    except Exception as error:  # onnxruntime has a kind of its own for every trouble
        reason = " ".join(str(error).split())[:200]
        raise EdgeError(
            f"{model}: expected an ONNX model that onnxruntime can run, got {len(content)} bytes ({reason}): copy it again, "
            "and if that is no help, export it again with `ppe-yolo export`"
        ) from error
    if session.get_providers()[0] != chosen[0]:  # onnxruntime goes on with the next one, and only logs it
        if providers is not None:
            raise EdgeError(
                f"model.providers: {chosen[0]} is installed and cannot be used here: take it out, or mend its driver"
            )
        _log.warning("%s cannot be used here: the model runs on %s", chosen[0], session.get_providers()[0])
    return session
