"""The running configuration of the box: settings and open model together, as one value that is swapped atomically."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ppe_edge.config import EdgeSettings
from ppe_edge.delivery.messages import ModelReference
from ppe_edge.errors import EdgeError
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.model.store import ModelStore
from ppe_edge.page_rules import hint_for_page_rules, read_page_rules
from ppe_edge.pipeline import Model
from ppe_edge.rules.camera_rules import CameraRules
from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.files import sha256_file


@dataclass(frozen=True, eq=False)
class Deployment:
    """Settings, and the model that is open for them.

    Attributes:
        settings: All settings.
        detector: The open model; its session uses the providers and threads of the settings.
    """

    settings: EdgeSettings
    detector: EdgeDetector

    @cached_property
    def model(self) -> Model:
        """Contract of the model, and how messages refer to it."""
        contract = self.detector.contract
        reference = ModelReference(name=self.detector.name, sha256=self.detector.sha256, provenance=contract.provenance)
        return Model(contract, reference)

    def require_valid(self) -> None:
        """Checks that the settings fit the model and this machine.

        Raises:
            EdgeError: They do not.
        """
        require_valid(self.settings, self.detector.contract)

    def with_settings(self, settings: EdgeSettings) -> "Deployment":
        """Returns the deployment for other settings; opens a model only if they need another session.

        Raises:
            EdgeError, ContractError: The model cannot be used.
        """
        old, new = self.settings.model, settings.model
        same_session = (new.providers, new.threads) == (old.providers, old.threads)
        store = ModelStore(settings.state_dir, new)
        if new.url is not None and new.sha256 is not None:
            is_open = same_session and self.detector.sha256 == new.sha256
            return Deployment(settings, self.detector if is_open else store.fetch(new.url, new.sha256))
        if self.detector.path != new.path:
            return Deployment(settings, store.open_configured())
        if not new.path.is_file():
            hint = "copy the model back; the running model continues, nothing was changed"
            raise EdgeError(file=new.path, expected="the model", got="no such file", hint=hint)
        # the file may have been replaced by another model
        is_open = same_session and self.detector.sha256 == sha256_file(new.path)
        return Deployment(settings, self.detector if is_open else store.open_configured())

    def looks_alike(self, other: "Deployment", camera: str) -> bool:
        """Whether a camera's pipeline is the same in both deployments."""
        mine, theirs = (
            (d.settings.rules_of(camera), d.settings.site.zone, d.settings.tracker, d.settings.snapshot, d.settings.privacy)
            if camera in d.settings.cameras
            else None
            for d in (self, other)
        )
        return self.detector is other.detector and mine == theirs

    def reads_alike(self, other: "Deployment", camera: str) -> bool:
        """Whether a camera's reader is the same in both deployments: all settings that concern reading are equal."""
        mine, theirs = (d.settings.live_cameras.get(camera) for d in (self, other))
        if mine is None or theirs is None:
            return False
        same: dict[str, Any] = {"rule": None, "rules": {}, "zones": {}, "view_health": True, "attention_after_s": None}
        return mine.model_copy(update=same) == theirs.model_copy(update=same)

    def shows_alike(self, other: "Deployment", camera: str) -> bool:
        """Whether a camera shows the same scene in both deployments, as far as settings tell."""
        mine, theirs = (d.settings.live_cameras.get(camera) for d in (self, other))
        if mine is None or theirs is None:
            return False
        return (mine.source, mine.pixel_aspect) == (theirs.source, theirs.pixel_aspect)


def camera_rules(settings: EdgeSettings, contract: ModelContract, camera: str) -> CameraRules:
    """Returns the rules of a camera for a model.

    Raises:
        EdgeError: A rule contradicts the model.
    """
    rules = settings.rules_of(camera)
    keys = {name: settings.key_of(camera, name) for name in rules}
    return CameraRules(rules, contract, settings.tracker, settings.site.zone, keys)


def require_valid(settings: EdgeSettings, contract: ModelContract) -> None:
    """Checks that settings fit a model and this machine.

    Raises:
        EdgeError: A rule or `privacy` contradicts the model, or the file or folder of a camera does not exist.
    """
    settings.privacy.labels(contract)
    for name, camera in settings.live_cameras.items():
        try:
            camera_rules(settings, contract, name)
        except EdgeError as error:
            changed = [settings.key_of(name, rule) for rule in read_page_rules(settings.state_dir).changes.get(name, {})]
            if (error.setting or "").startswith(tuple(f"{key}." for key in changed)):
                error.hint = ": ".join(filter(None, (error.hint, hint_for_page_rules(settings.state_dir))))
            raise
        # a stream may come back later; a missing file is a configuration error
        if camera.ends and not Path(camera.address).exists():
            raise EdgeError(
                setting=f"cameras.{name}.source",
                expected="a video file, a folder of images or a stream address",
                got=f"no such file: {camera.address}",
            )
