"""`--dry-run`: opens the model and every camera once, and prints what would run."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ppe_edge.cameras.camera import CameraEvent, CameraReader
from ppe_edge.cameras.mailbox import Frame, FrameMailbox
from ppe_edge.cameras.sources import FOLDER_FPS, Kind, SourceConfig
from ppe_edge.config import EdgeSettings
from ppe_edge.delivery.sinks.jsonl import require_writable
from ppe_edge.deployment import camera_rules, require_valid
from ppe_edge.errors import EdgeError
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.model.store import ModelStore
from ppe_edge.rules.config import RuleConfig
from ppe_edge.rules.votes import MIN_VOTES, frames_to_decide
from ppe_edge.rules.words import describe
from ppe_edge.runtime import make_folder
from ppe_edge.web.config import listen

TIMEOUT = 10.0  # seconds for all cameras together


def dry_run(settings: EdgeSettings, config: Path) -> int:
    """Prints one line per part of the box; sends nothing.

    Returns:
        0 if everything would run, 2 if a camera delivers no frame, alerts cannot be written or the page cannot be served.

    Raises:
        EdgeError: The model, the state folder or a rule cannot be used.
    """
    print(f"configuration  {config}: ok")
    make_folder(settings.state_dir)
    print(f"state          {settings.state_dir}: writable")
    detector = ModelStore(settings.state_dir, settings.model).open()
    contract = detector.contract
    height, width = contract.input_size
    classes = ", ".join(map(contract.display_name, contract.class_names))
    print(f"model          {detector.name}: {width}x{height}, {classes}; {detector.provider}; sha256 {detector.sha256[:12]}")
    require_valid(settings, contract)
    first, events = first_frames(settings)
    for name, camera in settings.cameras.items():
        if not camera.enabled:
            result = "not enabled"
        elif name in first:
            result = _describe(first[name], detector, settings, name)
        else:
            result = f"FAILED, no frame within {TIMEOUT:.0f} s ({events.get(name, 'no answer')})"
        print(f"camera         {name}: {result}")
        for rule_name, rule in settings.rules_of(name).items() if camera.enabled else ():
            words = describe(rule, contract, settings.site.time_zone)
            print(f"rule           {name}/{rule_name}: {words}, reported after {describe_delay(camera, rule)}")
    missing = settings.live_cameras.keys() - first.keys()
    sinks = [name for name in type(settings.sinks).model_fields if getattr(settings.sinks, name) is not None]
    jsonl, web = settings.sinks.jsonl, settings.web
    unwritable = "" if jsonl is None else _failure(lambda: require_writable(jsonl))
    for sink in sinks:
        print(f"sink           {sink}{unwritable if sink == 'jsonl' else ''}")
    unserved = ""
    if web.enabled:
        unserved = _failure(lambda: listen(web).close())
        access = "token required" if web.token else "this machine only"
        print(f"web            http://{web.host}:{web.port}{unserved or f', {access}'}")
    cameras = f"{len(settings.live_cameras) - len(missing)} of {len(settings.live_cameras)} cameras"
    summary = f"would run: {cameras}, {len(sinks) - bool(unwritable)} of {len(sinks)} sinks"
    print("would not start: the web page cannot be served" if unserved else summary)
    return 2 if missing or unwritable or unserved else 0


def _describe(frame: Frame, detector: EdgeDetector, settings: EdgeSettings, camera: str) -> str:
    """Describes what the model detects in a camera's first frame."""
    contract = detector.contract
    height, width = frame.image.shape[:2]
    detections = detector.detect([frame.image])[0]
    thresholds = np.array(camera_rules(settings, contract, camera).thresholds)
    labels = detections.labels[detections.scores >= thresholds[detections.labels]]
    counts = zip(np.bincount(labels, minlength=len(thresholds)), contract.class_names, strict=True)
    heads = ", ".join(f"{count} {contract.display_name(name)}" for count, name in counts)
    return f"ok, first frame {width}x{height}: {heads} above the alarm thresholds"


def describe_delay(camera: SourceConfig, rule: RuleConfig) -> str:
    """Returns what the rule means at the configured frame rate of a camera, such as "3 frames, 3 s"."""
    fps = camera.fps or (FOLDER_FPS if camera.kind is Kind.folder else None)
    if fps is not None:
        frames = frames_to_decide(rule, fps)
        return f"{frames} frames, {frames / fps:.3g} s"
    if rule.seconds is None:
        return f"{rule.frames} frames"
    return f"{rule.seconds:g} s, or {MIN_VOTES} frames if they take longer"


def _failure(check: Callable[[], object]) -> str:
    """Returns the failure of a check, to be appended to the name of what was checked; empty if it succeeds."""
    try:
        check()
    except EdgeError as error:
        return f": FAILED, {error}"
    return ""


def first_frames(settings: EdgeSettings) -> tuple[dict[str, Frame], dict[str, str]]:
    """Reads one frame from each camera that delivers one in time.

    Returns:
        Camera -> its first frame, and camera -> its last event.
    """
    mailbox = FrameMailbox()
    events: dict[str, str] = {}

    def note(event: CameraEvent) -> None:
        events[event.camera] = f"{event.kind} {event.detail}".strip()

    readers = {name: CameraReader(name, camera, mailbox, note) for name, camera in settings.live_cameras.items()}
    first: dict[str, Frame] = {}
    end = time.monotonic() + TIMEOUT
    try:
        for reader in readers.values():
            reader.start()
        while len(first) < len(readers) and time.monotonic() < end:
            for frame in mailbox.take(len(readers), 0.2):
                if frame.camera not in first:
                    first[frame.camera] = frame
                    readers[frame.camera].stop(0.0)
    finally:
        mailbox.close()
        for reader in readers.values():
            reader.stop(0.0)
    return first, events
