"""`--dry-run`: opens the model and every camera once, and says what would run."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ppe_edge.cameras.camera import CameraEvent, CameraReader
from ppe_edge.cameras.mailbox import Frame, FrameMailbox
from ppe_edge.config import EdgeSettings
from ppe_edge.delivery.sinks.jsonl import require_writable
from ppe_edge.errors import EdgeError
from ppe_edge.model.store import ModelStore
from ppe_edge.rules.violations import ViolationMonitor
from ppe_edge.runtime import make_folder, require_possible
from ppe_edge.web.config import listen

PATIENCE = 10.0  # seconds for all cameras together


def dry_run(settings: EdgeSettings, config: Path) -> int:
    """Prints a line for each part; nothing is sent anywhere.

    Returns:
        0 if everything would run, 2 if a camera gives no picture, alerts cannot be written or the page cannot be served.

    Raises:
        EdgeError: The model, the state folder or a rule cannot be used.
    """
    print(f"configuration  {config}: ok")
    make_folder(settings.state_dir)
    print(f"state          {settings.state_dir}: can be written to")
    detector = ModelStore(settings.state_dir, settings.model).open()
    contract = detector.contract
    height, width = contract.input_size
    print(
        f"model          {detector.name}: {width}x{height}, {', '.join(contract.class_names)}; {detector.provider}; "
        f"sha256 {detector.sha256[:12]}"
    )
    require_possible(settings, contract)
    first, last_words = first_pictures(settings)
    for name, camera in settings.cameras.items():
        if not camera.enabled:
            what = "not enabled"
        elif name in first:
            height, width = first[name].image.shape[:2]
            found = detector.detect([first[name].image])[0]
            thresholds = np.array(ViolationMonitor(settings.rule_of(name), contract).thresholds)
            counted = np.bincount(found.labels[found.scores >= thresholds[found.labels]], minlength=len(thresholds))
            heads = ", ".join(f"{n} {kind}" for n, kind in zip(counted, contract.class_names, strict=True))
            what = f"ok, first picture {width}x{height}: {heads} at their alarm thresholds"
        else:
            what = f"FAILED, no picture within {PATIENCE:.0f} s ({last_words.get(name, 'no answer')})"
        print(f"camera         {name}: {what}")
    missing = settings.live_cameras.keys() - first.keys()
    sinks = [name for name in type(settings.sinks).model_fields if getattr(settings.sinks, name) is not None]
    jsonl, web = settings.sinks.jsonl, settings.web
    unwritable = "" if jsonl is None else _failure(lambda: require_writable(jsonl))
    for sink in sinks:
        print(f"sink           {sink}{unwritable if sink == 'jsonl' else ''}")
    closed = ""
    if web.enabled:
        closed = _failure(lambda: listen(web).close())
        door = "a token is needed" if web.token else "this machine only"
        print(f"web            http://{web.host}:{web.port}{closed or f', {door}'}")
    cameras = f"{len(settings.live_cameras) - len(missing)} of {len(settings.live_cameras)} cameras"
    would = f"would run: {cameras}, {len(sinks) - bool(unwritable)} of {len(sinks)} sinks"
    print("would not start: its page cannot be served" if closed else would)
    return 2 if missing or unwritable or closed else 0


def _failure(check: Callable[[], object]) -> str:
    """What is wrong, to be put behind the name of what was checked; empty when all is well."""
    try:
        check()
    except EdgeError as error:
        return f": FAILED, {error}"
    return ""


def first_pictures(settings: EdgeSettings) -> tuple[dict[str, Frame], dict[str, str]]:
    """A picture of each camera that gives one in time, and the last event of each."""
    mailbox = FrameMailbox()
    words: dict[str, str] = {}

    def note(event: CameraEvent) -> None:
        words[event.camera] = f"{event.kind} {event.detail}".strip()

    readers = {name: CameraReader(name, camera, mailbox, note) for name, camera in settings.live_cameras.items()}
    first: dict[str, Frame] = {}
    end = time.monotonic() + PATIENCE
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
    return first, words
