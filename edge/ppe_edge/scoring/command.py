"""The command `ppe-edge score`."""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr

from ppe_edge.cameras.sources import SourceConfig, SourceError, stated_length
from ppe_edge.common.redact import redact_url
from ppe_edge.config import CameraConfig, EdgeSettings, load_settings
from ppe_edge.deployment import Deployment, require_valid
from ppe_edge.errors import EdgeError
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.model.store import ModelStore
from ppe_edge.rules.config import RuleConfig
from ppe_edge.scoring.chart import draw
from ppe_edge.scoring.figures import VideoScore, compare, figures_of
from ppe_edge.scoring.recording import Recording, Replay, record
from ppe_edge.scoring.report import Limits, as_json, as_text, sweep_as_text
from ppe_edge.scoring.sweep import Trial, Value, changed, combinations, parse_grid
from ppe_edge.scoring.truth import Event, kinds_of, read_truth
from ppe_yolo.core.files import atomic_path
from ppe_yolo.core.words import plural

LIMITS_MISSED = 1
_PROGRESS_S = 5.0
_END_TOLERANCE_S = 1.0  # an event may begin this much after the last frame


def run(options: argparse.Namespace) -> int:
    """Scores videos; prints the score.

    Returns:
        0, or 1 if a limit is missed.

    Raises:
        EdgeError: The configuration, the ground truth or a video cannot be used.
    """
    videos = _videos(options.videos)
    settings = _settings(options, videos)
    detector = _detector(options.model, settings)
    require_valid(settings, detector.contract)
    rules = {name: _only_rule(settings, name) for name in videos}
    (violation_class,) = {rule.violation_class for rule in rules.values()}
    truth = read_truth(options.truth, list(videos), kinds_of(detector.contract, violation_class))
    grid = parse_grid(options.sweep)
    for changes in combinations(grid) if grid else ():  # before the videos are read, which may take an hour
        for name in videos:
            changed(settings.tracker, rules[name], changes)
    for output in (options.json, options.draw):
        if output is not None and str(output) != "-":
            _require_writable(output)
    for name in videos:
        _require_within(name, _stated_length(name, settings.cameras[name]), truth, options.truth)
    recordings = []
    for name in videos:
        recording = record(name, settings.cameras[name], detector, _progress(name))
        _show_problems(recording)
        _require_within(name, recording.seconds, truth, options.truth)
        recordings.append(recording)
    replay = Replay(Deployment(settings, detector).model)

    def score(changes: Mapping[str, Value]) -> list[VideoScore]:
        scores = []
        for recording in recordings:
            tracker, rule = changed(settings.tracker, rules[recording.name], changes)
            events = [event for event in truth if event.camera == recording.name]
            alerts = replay.alerts(recording, tracker, rule)
            scores.append(compare(recording.name, recording.seconds, events, alerts, options.tolerance))
        return scores

    scores = score({})
    trials = [Trial(changes=c, figures=figures_of(score(c))) for c in combinations(grid)] if grid else []
    limits = Limits(
        min_found=options.min_found,
        max_false_per_hour=options.max_false_per_hour,
        max_delay=options.max_delay,
        max_alerts_per_violation=options.max_alerts_per_violation,
    )
    total = figures_of(scores)
    if options.json is not None and str(options.json) == "-":
        print(as_json(scores, trials, limits))
    else:
        print(as_text(scores))
        if trials:
            print(f"\n{sweep_as_text(trials, total)}")
        if options.json is not None:
            with atomic_path(options.json) as file:
                file.write_text(as_json(scores, trials, limits) + "\n")
    if options.draw is not None:
        with atomic_path(options.draw) as file:
            file.write_text(draw(scores, trials))
    failures = limits.failures(total)
    for failure in failures:
        print(f"limit missed: {failure}", file=sys.stderr)
    return LIMITS_MISSED if failures else 0


def _videos(texts: Sequence[str]) -> dict[str, Path]:
    videos: dict[str, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if Path(text).exists() or not separator:
            name, path = Path(text).stem, text
        if not Path(path).exists():
            raise EdgeError(file=redact_url(path), expected="a video or a folder of images", got="no such file")
        if name in videos:
            raise EdgeError(
                setting="VIDEO", item=name, problem="two videos have this name", hint="name them CAMERA=VIDEO, as --truth does"
            )
        videos[name] = Path(path)
    return videos


def _settings(options: argparse.Namespace, videos: Mapping[str, Path]) -> EdgeSettings:
    """Returns the settings of the box, with the videos as its cameras."""
    if options.config is None and options.model is None:
        raise EdgeError(setting="--config", expected="the configuration of the box", got="nothing", hint="or give --model FILE")
    if options.fps is not None and not 0 < options.fps <= 1000:
        raise EdgeError(setting="--fps", expected="more than 0 and at most 1000", got=f"{options.fps:g}")
    if not (math.isfinite(options.tolerance) and options.tolerance >= 0):
        raise EdgeError(setting="--tolerance", expected="0 or more seconds", got=f"{options.tolerance:g}")
    for name, limit in (
        ("--min-found", options.min_found),
        ("--max-false-per-hour", options.max_false_per_hour),
        ("--max-delay", options.max_delay),
        ("--max-alerts-per-violation", options.max_alerts_per_violation),
    ):
        most = 1.0 if name == "--min-found" else math.inf
        if limit is not None and not 0 <= limit <= most:  # NaN would meet any limit
            expected = "a share from 0 to 1" if name == "--min-found" else "0 or more"
            raise EdgeError(setting=name, expected=expected, got=f"{limit:g}")
    if options.config is not None:
        settings = load_settings(options.config)
    else:
        unused = CameraConfig(source=SecretStr("unused"))
        settings = EdgeSettings(model={"path": options.model}, state_dir=Path("unused"), cameras={"unused": unused})
    cameras = {}
    for name, path in videos.items():
        if options.config is not None and name not in settings.cameras:
            known = ", ".join(settings.cameras)
            print(f"{name}: no camera of {options.config} ({known}), so its rules and zones do not apply", file=sys.stderr)
        camera = settings.cameras.get(name, CameraConfig(source=SecretStr("unused")))
        changes: dict[str, object] = {"source": SecretStr(str(path)), "enabled": True}
        if options.fps is not None:
            changes["fps"] = options.fps
        cameras[name] = camera.model_copy(update=changes)
    return settings.model_copy(update={"cameras": cameras})


def _only_rule(settings: EdgeSettings, camera: str) -> RuleConfig:
    rules = settings.rules_of(camera)
    if len(rules) > 1:
        raise EdgeError(
            setting=f"cameras.{camera}.rules",
            expected="one rule to score",
            got=", ".join(rules),
            hint="set enabled: false for the others",
        )
    return next(iter(rules.values()))


def _detector(model: Path | None, settings: EdgeSettings) -> EdgeDetector:
    """Opens the model that was asked for, or the one that the box would run: it may come from the twin."""
    if model is None:
        return ModelStore(settings.state_dir, settings.model).open()
    return EdgeDetector(model, settings.model.providers, settings.model.threads)


def _progress(name: str) -> Callable[[float], None]:
    begin = shown = time.monotonic()

    def show(seconds: float) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _PROGRESS_S:
            shown = now
            print(f"{name}: {seconds:.0f} s of the video, {seconds / (now - begin):.1f} x real time", file=sys.stderr)

    return show


def _require_writable(output: Path) -> None:
    if output.is_dir():
        raise EdgeError(file=output, expected="a file", got="a folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise EdgeError(f"cannot be written ({error.strerror or error})", file=output) from error


def _stated_length(name: str, camera: SourceConfig) -> float:
    try:
        length = stated_length(camera)
    except SourceError as error:
        raise EdgeError(str(error), file=camera.address, item=name) from None
    return math.inf if length is None else length


def _show_problems(recording: Recording) -> None:
    if not recording.has_certain_times:
        print(f"{recording.name}: its timestamps are unusable, so its times are estimates", file=sys.stderr)
    if recording.errors:
        parts = f"{plural(recording.errors, 'part')} cannot be decoded, most recently: {recording.last_error}"
        print(f"{recording.name}: {parts}", file=sys.stderr)


def _require_within(name: str, seconds: float, truth: Sequence[Event], file: Path) -> None:
    for event in truth:
        if event.camera == name and event.start > seconds + _END_TOLERANCE_S:
            raise EdgeError(
                file=file,
                item=f"line {event.line}: start",
                expected=f"a time within the {seconds:.1f} s of {name}",
                got=f"{event.start:g} s",
            )
