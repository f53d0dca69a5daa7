"""The model at work: the one that the configuration names, or a newer one that the twin has named since."""

import hashlib
import json
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ppe_edge.errors import EdgeError
from ppe_edge.model.detector import MAX_BYTES, EdgeDetector
from ppe_edge.redact import redact_text, redact_url
from ppe_yolo.core.contract import ContractError
from ppe_yolo.core.letterbox import letterbox

TIMEOUT = 30.0  # seconds without a byte
_ACTIVE = "active.json"

_log = logging.getLogger(__name__)


class ModelSettings(Protocol):
    """What of `ppe_edge.config.ModelConfig` is needed here."""

    @property
    def path(self) -> Path:
        """The model to begin with."""
        ...

    @property
    def providers(self) -> tuple[str, ...] | None:
        """onnxruntime's, in order."""
        ...

    @property
    def threads(self) -> int | None:
        """Of one operation."""
        ...


class ModelStore:
    """Models that were fetched, in state_dir/models, and which one is at work.

    Args:
        state_dir: Exists.
        settings: The model to begin with, and how models are run.
    """

    def __init__(self, state_dir: Path, settings: ModelSettings) -> None:
        self._folder = state_dir / "models"
        self._settings = settings

    def open(self) -> EdgeDetector:
        """Opens the model that was made active last; the configured one if there is none, or if it is damaged.

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
            except (EdgeError, ContractError) as error:
                _log.error("%s: back to %s", error, self._settings.path)
        return self._detector(self._settings.path)

    def open_configured(self, settings: ModelSettings) -> EdgeDetector:
        """Opens the model that the configuration names now, and tries it; it is not active yet, see `activate`.

        Raises:
            EdgeError, ContractError: It cannot be used; nothing has changed.
        """
        detector = EdgeDetector(settings.path, settings.providers, settings.threads)
        smoke_test(detector)
        return detector

    def fetch(self, url: str, sha256: str) -> EdgeDetector:
        """Downloads a model and tries it; it is not active yet, see `activate`.

        Args:
            url: http or https; the hash holds what arrives to what was meant.
            sha256: 64 hexadecimal digits.

        Raises:
            EdgeError: It cannot be had, is not the one meant, or does not work; nothing has changed.
        """
        path = self._folder / f"{sha256}.onnx"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or _sha256(path) != sha256:
                _download(url, sha256, path)
        except OSError as error:
            raise EdgeError(f"model.url: {redact_url(url)}: cannot be stored ({error.strerror or error})") from error
        try:
            detector = self._detector(path)
            smoke_test(detector)
        except (EdgeError, ContractError) as error:
            path.unlink(missing_ok=True)
            raise EdgeError(f"model.url: {error}") from error
        return detector

    def activate(self, detector: EdgeDetector) -> None:
        """Has the next start open this one, fetched or the configured one, and deletes the others that were fetched."""
        note = self._folder / _ACTIVE
        if detector.path.parent == self._folder:
            temporary = note.with_suffix(".new")
            with temporary.open("w") as file:
                json.dump({"sha256": detector.sha256}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(note)
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


def bundled_frame() -> NDArray[np.uint8]:
    """A drawn site, uint8 [H, W, 3] RGB."""
    coded = np.frombuffer((files("ppe_edge.model") / "site.png").read_bytes(), dtype=np.uint8)
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def smoke_test(detector: EdgeDetector) -> None:
    """Runs the model on a drawn frame.

    Raises:
        EdgeError: It does not run, or gives what cannot be detections.
    """
    contract = detector.contract
    canvas = letterbox(bundled_frame(), contract.input_size, contract.pad_value)[0]
    try:
        found = detector.run(np.stack((canvas, canvas)))  # as the model gives them: `detect` drops boxes that are none
    except Exception as error:  # onnxruntime has many kinds
        reason = " ".join(str(error).split())[:200]
        raise EdgeError(f"{detector.path.name}: fails on a drawn frame ({reason})") from error
    boxes_xyxy, scores, labels = found
    good = np.isfinite(boxes_xyxy).all() and ((scores >= 0) & (scores <= 1)).all()
    if not (good and ((labels >= 0) & (labels < len(contract.class_names))).all()):
        raise EdgeError(f"{detector.path.name}: gives numbers on a drawn frame that are no boxes, scores and labels")


def _download(url: str, sha256: str, path: Path) -> None:
    shown = redact_url(url)
    if not url.lower().startswith(("http://", "https://")):
        raise EdgeError(f"model.url: expected http or https, got {shown}")
    temporary = path.with_suffix(".part")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, temporary.open("wb") as file:
            shutil.copyfileobj(_Limited(answer.read), file)
            file.flush()
            os.fsync(file.fileno())
        if (got := _sha256(temporary)) != sha256:
            raise EdgeError(f"model.url: {shown}: expected sha256 {sha256}, got {got}")
        temporary.replace(path)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = redact_text(str(getattr(error, "reason", None) or error), url)[:100]
        raise EdgeError(f"model.url: {shown}: cannot be had ({reason})") from None  # its cause may show a password
    finally:
        temporary.unlink(missing_ok=True)


class _Limited:
    """A stream that refuses to become larger than a model."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        """See `io.RawIOBase.read`."""
        part = self._read(size if size >= 0 else self._left + 1)
        self._left -= len(part)
        if self._left < 0:
            raise EdgeError(f"model.url: expected at most {MAX_BYTES} bytes, got more")
        return part


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
