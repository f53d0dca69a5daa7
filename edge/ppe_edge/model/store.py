"""The active model: the one that the configuration names, or a newer one that the module twin requested."""

import json
import logging
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppe_edge.common.redact import redact_text, redact_url
from ppe_edge.errors import EdgeError
from ppe_edge.model.detector import EdgeDetector
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import replacing, sha256_file
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.onnx_session import MAX_BYTES
from ppe_yolo.core.words import one_line

TIMEOUT = 30.0  # seconds without a byte
BUNDLED = "helmet-small.int8.onnx"
_ACTIVE = "active.json"

_log = logging.getLogger(__name__)


class ModelConfig(BaseModel):
    """The model, as written by `ppe-yolo export` or `ppe-yolo quantize`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="The .onnx file; the twin can replace it.")
    url: str | None = Field(None, description="Set by the twin: address of a newer model (https).")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="Set by the twin: SHA-256 of the newer model.")
    providers: tuple[str, ...] | None = Field(
        None, description="Execution providers of onnxruntime, in order of preference; by default those that are available."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads per operation of the model; by default one per core that this container may use.",
    )

    @model_validator(mode="after")
    def _url_with_hash(self) -> "ModelConfig":
        if (self.url is None) != (self.sha256 is None):
            raise ValueError("url and sha256 must be set together")
        return self


class ModelStore:
    """Downloaded models in state_dir/models, and a note which of them is active.

    Args:
        state_dir: An existing folder.
        settings: The configured model, and how models are run.
    """

    def __init__(self, state_dir: Path, settings: ModelConfig) -> None:
        self._folder = state_dir / "models"
        self._settings = settings

    def open(self) -> EdgeDetector:
        """Opens the model that was activated last, or the configured one if there is none or it is damaged.

        Raises:
            EdgeError, ContractError: The configured model cannot be used.
        """
        active = self._active()
        if active is not None:
            try:
                detector = self._detector(active)
                if detector.sha256 == active.stem:
                    return detector
                _log.error("%s: is damaged: back to %s", active, self._settings.path)
            except UserError as error:
                _log.error("%s: back to %s", error, self._settings.path)
        return self._detector(self._settings.path)

    def open_configured(self) -> EdgeDetector:
        """Opens and tests the model that the settings name. It becomes active by `activate`.

        Raises:
            EdgeError, ContractError: The model cannot be used; nothing was changed.
        """
        detector = self._detector(self._settings.path)
        smoke_test(detector)
        return detector

    def fetch(self, url: str, sha256: str) -> EdgeDetector:
        """Downloads and tests a model. It becomes active by `activate`.

        Args:
            url: An http or https address.
            sha256: Expected hash of the file, 64 hexadecimal digits.

        Raises:
            EdgeError: The download fails, its hash differs, or the model does not work; nothing was changed.
        """
        path = self._folder / f"{sha256}.onnx"
        try:
            if not path.is_file() or sha256_file(path) != sha256:
                _download(url, sha256, path)
        except OSError as error:
            reason = error.strerror or error
            raise EdgeError(f"cannot be stored ({reason})", setting="model.url", item=redact_url(url)) from error
        try:
            detector = self._detector(path)
            smoke_test(detector)
        except UserError as error:
            path.unlink(missing_ok=True)
            raise EdgeError(str(error), setting="model.url") from error
        return detector

    def activate(self, detector: EdgeDetector) -> None:
        """Makes the next start open this model, downloaded or configured, and deletes all other downloads.

        Raises:
            OSError: The choice cannot be saved; nothing was changed.
        """
        note = self._folder / _ACTIVE
        if detector.path.parent == self._folder:
            with replacing(note) as temporary:
                temporary.write_text(json.dumps({"sha256": detector.sha256}))
        else:
            note.unlink(missing_ok=True)
        for other in self._folder.glob("*.onnx"):
            if other != detector.path:
                other.unlink(missing_ok=True)

    def _active(self) -> Path | None:
        note = self._folder / _ACTIVE
        if not note.is_file():
            return None
        try:
            sha256 = json.loads(note.read_text())["sha256"]
        except (OSError, ValueError, TypeError, KeyError):
            _log.error("%s: cannot be read: back to %s", note, self._settings.path)
            return None
        return self._folder / f"{sha256}.onnx"

    def _detector(self, path: Path) -> EdgeDetector:
        return EdgeDetector(path, self._settings.providers, self._settings.threads)


def bundled_model() -> Path:
    """Returns the bundled model: from the installed package, or from the clone that this file lies in.

    Raises:
        EdgeError: It is in neither.
    """
    places = Path(__file__).parent, Path(__file__).parents[3] / "ppe_yolo" / "weights"
    for path in (place / BUNDLED for place in places):
        if path.is_file():
            return path
    raise EdgeError(
        file=places[0] / BUNDLED, expected="the bundled model", got="no such file", hint="pip install ./edge, in a clone"
    )


def bundled_frame() -> NDArray[np.uint8]:
    """Returns a drawn building site, uint8 [H, W, 3], RGB."""
    coded = np.frombuffer((files("ppe_edge.model") / "site.png").read_bytes(), dtype=np.uint8)
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def smoke_test(detector: EdgeDetector) -> None:
    """Runs the model on a drawn frame.

    Raises:
        EdgeError: The model does not run, or its output cannot be detections.
    """
    contract = detector.contract
    canvas = letterbox(bundled_frame(), contract.input_size, contract.pad_value)[0]
    try:
        outputs = detector.run(np.stack((canvas, canvas)))  # `detect` would drop invalid boxes
    except Exception as error:  # onnxruntime raises many types
        raise EdgeError(f"fails on a drawn frame ({one_line(error)})", file=detector.path.name) from error
    boxes_xyxy, scores, labels = outputs
    valid = np.isfinite(boxes_xyxy).all() and ((scores >= 0) & (scores <= 1)).all()
    if not (valid and ((labels >= 0) & (labels < len(contract.class_names))).all()):
        raise EdgeError("on a drawn frame, its output is not boxes, scores and labels", file=detector.path.name)


def _download(url: str, sha256: str, path: Path) -> None:
    shown = redact_url(url)
    if not url.lower().startswith(("http://", "https://")):
        raise EdgeError(setting="model.url", expected="http or https", got=shown)
    with replacing(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, temporary.open("wb") as file:
                shutil.copyfileobj(_Limited(answer.read), file)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
            reason = redact_text(str(getattr(error, "reason", None) or error), url)[:100]
            # without the cause, which may contain a password
            raise EdgeError(f"cannot be downloaded ({reason})", setting="model.url", item=shown) from None
        if (got := sha256_file(temporary)) != sha256:
            raise EdgeError(setting="model.url", item=shown, expected=f"sha256 {sha256}", got=got)


class _Limited:
    """A stream that fails when it grows larger than a model may be."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        """Reads like `io.RawIOBase.read`."""
        part = self._read(size if size >= 0 else self._left + 1)
        self._left -= len(part)
        if self._left < 0:
            raise EdgeError(setting="model.url", expected=f"at most {MAX_BYTES} bytes", got="more")
        return part
