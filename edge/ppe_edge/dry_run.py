"""`--dry-run`: opens the model, every camera and every sink once, and prints what would run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppe_edge.benchmark.capacity import CameraLoad, Capacity, describe, measure_detection
from ppe_edge.cameras.camera import CameraEvent, CameraReader
from ppe_edge.cameras.mailbox import Frame, FrameMailbox
from ppe_edge.cameras.sources import FOLDER_FPS, Kind, SourceConfig
from ppe_edge.config import EdgeSettings
from ppe_edge.delivery.sinks import SinkFailed, SinksConfig, build_sinks
from ppe_edge.deployment import camera_rules, require_valid
from ppe_edge.errors import EdgeError
from ppe_edge.iot.hub import HubConnection
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.model.store import ModelStore
from ppe_edge.rules.config import MIN_THRESHOLD, RuleConfig
from ppe_edge.rules.votes import MIN_VOTES, frames_to_decide, why_too_short
from ppe_edge.runtime import make_folder
from ppe_edge.web.config import WebConfig, listen
from ppe_yolo.core.cores import available_cores
from ppe_yolo.core.words import plural

TIMEOUT = 10.0  # seconds for all cameras together
READING_S, DETECTION_S = 0.5, 0.3  # seconds for which reading and detection are measured
MEASURED_BATCH = 2  # frames; larger batches take longer to measure, and hardly less time per frame on a processor
HUB_STOP_S = 5.0
SLOW_S = 3.0  # people may walk through within a longer delay than this


def dry_run(settings: EdgeSettings, config: Path) -> int:
    """Prints one line per part of the box; sends no message.

    Returns:
        0 if everything would run, 2 if a camera delivers no frame, a sink cannot be used or the page cannot be served.

    Raises:
        EdgeError: The model, the state folder, a rule or IoT Edge cannot be used: the box would not start.
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
    hub = HubConnection() if settings.needs_hub else None
    started = first_frames(settings)
    _print_cameras(settings, detector, started)
    usable, sinks = _check_sinks(settings.sinks, hub)
    can_serve = _check_page(settings.web)
    delivering, cameras = len(started.frames), len(settings.live_cameras)
    summary = f"would run: {delivering} of {cameras} cameras, {usable} of {sinks} sinks"
    print(summary if can_serve else "would not start: the web page cannot be served")
    return 0 if can_serve and delivering == cameras and usable == sinks else 2


def _print_cameras(settings: EdgeSettings, detector: EdgeDetector, started: "FirstFrames") -> None:
    for name, camera in settings.cameras.items():
        if not camera.enabled:
            print(f"camera         {name}: not enabled")
            continue
        print(f"camera         {name}: {_first_frame(name, settings, detector, started)}")
        for rule_name, rule in settings.rules_of(name).items():
            words = rule.in_words(detector.contract, settings.site.time_zone)
            delay = f"{describe_delay(camera, rule)}{_who_is_missed(camera, rule)}"
            print(f"rule           {name}/{rule_name}: {words}, reported after {delay}{_threshold_warning(rule)}")
    if started.frames:
        print(f"capacity       {_capacity(settings, detector, started)}")


def _check_sinks(config: SinksConfig, hub: HubConnection | None) -> tuple[int, int]:
    """Prints what each sink says; returns the numbers of usable sinks and of all."""
    if hub is not None:
        hub.start()
    sinks, usable = build_sinks(config, hub), 0
    for name, sink in sinks.items():
        try:
            outcome = f"ok, {sink.check()}"
            usable += 1
        except SinkFailed as error:
            outcome = f"FAILED, {error}"
        sink.close()
        print(f"sink           {name}: {outcome}")
    if hub is not None:
        hub.stop(HUB_STOP_S)
    return usable, len(sinks)


def _check_page(web: WebConfig) -> bool:
    """Prints whether the page can be served, unless it is off; returns False if it cannot."""
    if not web.enabled:
        return True
    address, problem = f"http://{web.host}:{web.port}", ""
    try:
        listen(web).close()
    except EdgeError as error:
        problem = str(error)
    access = "token required" if web.token else "this machine only"
    print(f"web            {address}: FAILED, {problem}" if problem else f"web            {address}, {access}")
    return not problem


def _first_frame(camera: str, settings: EdgeSettings, detector: EdgeDetector, started: "FirstFrames") -> str:
    """Describes what the model detects in a camera's first frame, or why there is none."""
    frame = started.frames.get(camera)
    if frame is None:
        return f"FAILED, no frame within {TIMEOUT:.0f} s ({started.events.get(camera, 'no answer')})"
    contract = detector.contract
    height, width = frame.image.shape[:2]
    detections = detector.detect([frame.image])[0]
    thresholds = np.array(camera_rules(settings, contract, camera).thresholds)
    labels = detections.labels[detections.scores >= thresholds[detections.labels]]
    counts = zip(np.bincount(labels, minlength=len(thresholds)), contract.class_names, strict=True)
    heads = ", ".join(f"{count} {contract.display_name(name)}" for count, name in counts)
    too_short = why_too_short(settings.rules_of(camera).values(), *started.ended[camera]) if camera in started.ended else ""
    warning = f"; WARNING, {too_short}" if too_short else ""
    return f"ok, first frame {width}x{height}: {heads} above the alarm thresholds{warning}"


def _who_is_missed(camera: SourceConfig, rule: RuleConfig) -> str:
    """Returns who is not reported because the rule decides slowly, to be appended to its description."""
    fps = _usual_rate(camera)
    seen_s = 0.0 if fps is None else (frames_to_decide(rule, fps) - 1) / fps
    return f": people who are in view for less than {seen_s:.3g} s are not reported" if seen_s > SLOW_S else ""


def _threshold_warning(rule: RuleConfig) -> str:
    """Returns a warning of an alarm threshold that is too low to be used, to be appended to the description of the rule."""
    if rule.alarm_threshold is None or rule.alarm_threshold >= MIN_THRESHOLD:
        return ""
    return f"; WARNING, alarm_threshold {rule.alarm_threshold:g} counts as {MIN_THRESHOLD:g}"


def describe_delay(camera: SourceConfig, rule: RuleConfig) -> str:
    """Returns what the rule means at the configured frame rate of a camera, such as "3 frames, 3 s"."""
    fps = _usual_rate(camera)
    if fps is not None:
        frames = frames_to_decide(rule, fps)
        return f"{plural(frames, 'frame')}, {frames / fps:.3g} s"
    if rule.seconds is None:
        return plural(rule.frames, "frame")
    return f"{rule.seconds:g} s, or {MIN_VOTES} frames if they take longer"


@dataclass(frozen=True, kw_only=True)
class FirstFrames:
    """The beginning of every camera.

    Attributes:
        frames: Camera -> its first frame. Cameras that deliver none in time are missing.
        events: Camera -> its last event.
        loads: Camera -> what it asks for, as far as a fraction of a second tells.
        ended: Camera -> number of frames and seconds of a video or a folder that was read to its end.
    """

    frames: Mapping[str, Frame]
    events: Mapping[str, str]
    loads: Mapping[str, CameraLoad]
    ended: Mapping[str, tuple[int, float]]


def first_frames(settings: EdgeSettings, measure_s: float = READING_S) -> FirstFrames:
    """Reads one frame from each camera that delivers one in time, then measures for `measure_s` what reading them costs."""
    mailbox = FrameMailbox()
    events: dict[str, str] = {}

    def note(event: CameraEvent) -> None:
        events[event.camera] = f"{event.kind} {event.detail}".strip()

    readers = {name: CameraReader(name, camera, mailbox, note) for name, camera in settings.live_cameras.items()}
    begin: dict[str, tuple[Frame, float]] = {}  # first frame and processor time: from here on, reading is measured
    last: dict[str, tuple[Frame, float]] = {}
    end = time.monotonic() + TIMEOUT
    is_measuring = False
    try:
        for reader in readers.values():
            reader.start()
        while time.monotonic() < end:
            for frame in mailbox.take(len(readers), 0.1):
                cpu_seconds = readers[frame.camera].cpu_seconds
                begin.setdefault(frame.camera, (frame, cpu_seconds))
                last[frame.camera] = (frame, cpu_seconds)
            if len(begin) == len(readers) and not is_measuring:
                is_measuring = True
                end = min(end, time.monotonic() + measure_s)
    finally:
        mailbox.close()
        for reader in readers.values():
            reader.stop(0.0)
    frames = {name: frame for name, (frame, _) in begin.items()}
    loads = {name: _load(settings.cameras[name], begin[name], last[name]) for name in frames}
    ended = {
        name: (reader.frames, reader.seconds)
        for name, reader in readers.items()
        if reader.state == "ended" and not reader.failure
    }
    return FirstFrames(frames=frames, events=events, loads=loads, ended=ended)


def _load(camera: SourceConfig, begin: tuple[Frame, float], end: tuple[Frame, float]) -> CameraLoad:
    """Returns what a camera asks for, from two of its frames and the processor time until each."""
    span = end[0].time - begin[0].time
    count = end[0].number - begin[0].number
    if not count or span <= 0:
        return CameraLoad(_usual_rate(camera) or 0.0, 0.0)
    # decoding of a file is one frame ahead of `number`, at the beginning as at the end
    return CameraLoad(count / span, (end[1] - begin[1]) / span)


def _usual_rate(camera: SourceConfig) -> float | None:
    """Returns the frame rate that the configuration asks for; None for that of the stream."""
    return camera.fps or (FOLDER_FPS if camera.kind is Kind.folder else None)


def _capacity(settings: EdgeSettings, detector: EdgeDetector, started: FirstFrames) -> str:
    """Compares what the cameras ask for with what this machine can do."""
    cores = available_cores()
    images = [frame.image for frame in started.frames.values()][: min(settings.batch, MEASURED_BATCH)]
    capacity = Capacity(
        detect_s=measure_detection(detector, images, DETECTION_S), threads=settings.model.threads or cores, cores=cores
    )
    return describe(capacity, list(started.loads.values()))
