"""Remote control: what a module twin asks for is checked, applied between two frames, and answered; and the direct methods."""

import base64
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppe_edge.config import EdgeSettings, load_settings
from ppe_edge.errors import EdgeError
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.runtime import Runtime
from ppe_edge.web.window import RuntimeWindow
from ppe_yolo.core.contract import ContractError

# the rest names files, ports and secrets of this machine, or threads that are made once
LIVE_KEYS = ("cameras", "rule", "tracker", "snapshot", "sampler", "batch", "model")
DESIRED_FILE = "desired.json"  # in the state folder: what the twin wanted last, for a start without a connection

_log = logging.getLogger(__name__)


class Control:
    """Changes a running `Runtime`.

    Args:
        runtime: The running one.
        config_file: edge.yaml, which holds what the twin says nothing about.
        desired: What the twin wanted before the last restart; see `read_desired`.
    """

    def __init__(self, runtime: Runtime, config_file: Path, desired: Mapping[str, Any]) -> None:
        self._runtime = runtime
        self._file = config_file
        self._desired = dict(desired)
        self._lock = threading.Lock()

    def apply(self, desired: Mapping[str, Any]) -> None:
        """Applies the twin's whole wish, or nothing of it; what it says nothing about is as in the file.

        Raises:
            EdgeError: Refused, with the reason; everything is as before.
        """
        outcome = self._runtime.telemetry.changes.labels
        with self._lock:
            try:
                settings = self._check(desired)
                detector = self._wanted_model(settings)
                before = self._runtime.settings, None if detector is None else self._runtime.detector
                self._runtime.between_frames(lambda: self._runtime.switch(settings, detector))
                try:
                    write_desired(settings.state_dir, desired)
                    if detector is not None:
                        self._runtime.store.activate(detector)
                except OSError as error:  # in force and forgotten by the next start would be neither one nor the other
                    self._runtime.between_frames(lambda: self._runtime.switch(*before))
                    raise EdgeError(
                        f"{settings.state_dir}: expected room for what the twin wants, cannot be written to "
                        f"({error.strerror or error}): all is as before; make room on the box, and set it again"
                    ) from error
            except (EdgeError, ContractError, TimeoutError) as error:
                outcome("refused").inc()
                _log.warning("twin: refused: %s", error)
                raise EdgeError(str(error) or "the processing loop does not answer") from error
            outcome("accepted").inc()
            _log.info("twin: %s in force", ", ".join(sorted(desired)) or "nothing")
            self._desired = dict(desired)

    def reload(self, payload: Any = None) -> dict[str, Any]:
        """Direct method `reload`: reads edge.yaml again. What cannot change while the box runs is named."""
        with self._lock:
            try:
                settings = load_settings(self._file, self._desired)
                detector = self._wanted_model(settings)
                self._runtime.between_frames(lambda: self._runtime.switch(self._keep_fixed(settings), detector))
            except (EdgeError, ContractError) as error:
                return {"reloaded": False, "reason": str(error)}
            old = self._runtime.settings
            fixed = [k for k in type(old).model_fields if k not in LIVE_KEYS and getattr(settings, k) != getattr(old, k)]
            return {"reloaded": True, "needs_restart": fixed}

    def health(self, payload: Any = None) -> dict[str, Any]:
        """Direct method `health`."""
        window = RuntimeWindow(self._runtime)
        return {"alive": window.alive(), "ready": window.ready(), **window.state()}

    def reported(self) -> dict[str, Any]:
        """What the twin is told of the box, beside what became of its wishes: the model at work."""
        reference = self._runtime.model.reference
        return {"model": {"name": reference.name, "sha256": reference.sha256}}

    def snapshot(self, payload: Any = None) -> dict[str, Any]:
        """Direct method `snapshot`, payload {"camera": NAME}: the annotated picture, as base64 of a JPEG."""
        camera = payload.get("camera") if isinstance(payload, Mapping) else None
        jpeg = RuntimeWindow(self._runtime).live(camera) if isinstance(camera, str) else None
        if jpeg is None:
            known = ", ".join(sorted(self._runtime.pipelines))
            raise EdgeError(f"snapshot: expected a camera with a picture, one of {known}, got {str(camera)[:40]!r}")
        return {"camera": camera, "jpeg_base64": base64.b64encode(jpeg).decode()}

    def _check(self, desired: Mapping[str, Any]) -> EdgeSettings:
        for key in desired:
            if key not in LIVE_KEYS:
                raise EdgeError(f"{key}: cannot be changed remotely: change it in {self._file.name} and start again")
        if "model" in desired and not (isinstance(desired["model"], Mapping) and set(desired["model"]) == {"url", "sha256"}):
            raise EdgeError("model: expected url and sha256, and nothing else")
        return load_settings(self._file, desired)

    def _wanted_model(self, settings: EdgeSettings) -> EdgeDetector | None:
        """The model that the twin names, the configured one if it names none; None when that is at work already."""
        at_work, store = self._runtime.detector, self._runtime.store
        url, sha256 = settings.model.url, settings.model.sha256
        if url is None or sha256 is None:
            return None if at_work.path == settings.model.path else store.open_configured(settings.model)
        return None if sha256 == at_work.sha256 else store.fetch(url, sha256)

    def _keep_fixed(self, settings: EdgeSettings) -> EdgeSettings:
        old = self._runtime.settings
        return settings.model_copy(update={k: getattr(old, k) for k in type(old).model_fields if k not in LIVE_KEYS})


def read_desired(state_dir: Path) -> dict[str, Any]:
    """What the twin wanted last; nothing if it never wanted anything.

    Raises:
        EdgeError: The file is damaged.
    """
    path = state_dir / DESIRED_FILE
    try:
        desired = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EdgeError(f"{path}: expected what the twin wanted last, got a file that cannot be read: delete it") from error
    if not isinstance(desired, dict):
        raise EdgeError(f"{path}: expected what the twin wanted last, got {type(desired).__name__}: delete it")
    return desired


def write_desired(state_dir: Path, desired: Mapping[str, Any]) -> None:
    """Keeps it for the next start, readable by nobody else: a camera's address may hold a password."""
    path = state_dir / DESIRED_FILE
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(desired, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
