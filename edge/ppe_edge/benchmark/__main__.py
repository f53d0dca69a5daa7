"""`python -m ppe_edge.benchmark MODEL`: cost of a frame compared with the bare network, start-up time, memory, latency.

Each figure is measured in a fresh process that reads a clip, serves the page and writes alerts to a file.

"Kept for clips" is a frame that the box keeps for the clips of alerts (`clip.enabled`): each one of a camera with 8 frames per
second or fewer, every third one at 25. The time for keeping is added as if no other core could do it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ppe_edge.benchmark.cameras import PROGRESS, RunFigures, choose_fps, report
from ppe_edge.benchmark.cameras import run as run_cameras
from ppe_yolo.core.contract import ContractError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.timing import time_interleaved

STARTS = 5
MEMORY_AFTER = 200  # frames

COMMON_RULE: Mapping[str, Any] = {"rule": {"alarm_threshold": 0.5}}  # the model need not name a threshold
WITH_CLIPS: Mapping[str, Any] = {**COMMON_RULE, "clip": {"enabled": True}}
# Every frame starts new tracks, each bare head is a violation at once, and the cool-down sets the pace of the alerts.
ALERTING: Mapping[str, Any] = {
    "tracker": {"min_overlap": 0.999, "enlarge": 0.0},
    "rule": {"alarm_threshold": 0.3, "seconds": None, "frames": 1, "of": 1, "cooldown_s": 1.0},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures; returns the exit code."""
    parser = argparse.ArgumentParser("ppe_edge.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an .onnx file written by `ppe-yolo export` or `ppe-yolo quantize`")
    parser.add_argument("--clip", type=Path, metavar="FILE", help="a video; default: a generated clip of 1280x720 pixels")
    parser.add_argument("--rounds", type=int, default=40, help="number of rounds in which bare run and whole path alternate")
    parser.add_argument(
        "--cameras",
        type=int,
        metavar="N",
        help="measure N cameras that raise alerts, and estimate how many this machine serves; the clip must show bare heads",
    )
    parser.add_argument(
        "--fps", type=float, help="with --cameras: frames per second of each; default: what this machine probably serves"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="with --cameras: how long to measure (default: 20)")
    parser.add_argument("--child", choices=tuple(_MEASUREMENTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.cameras is not None and options.cameras < 1:
        parser.error(f"--cameras: expected 1 or more, got {options.cameras}")
    from ppe_edge.errors import EdgeError

    try:
        if options.child is not None:
            print(json.dumps(_MEASUREMENTS[options.child](options.model, options)))
            return 0
        with tempfile.TemporaryDirectory(prefix="ppe_edge_benchmark_") as name:
            folder = Path(name)
            clip = options.clip or draw_clip(folder)
            if options.cameras is not None:
                _print_cameras(folder, options, clip)
            else:
                _print_cost(folder, options.model, clip, options.rounds)
    except (EdgeError, ContractError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _print_cost(folder: Path, model: Path, clip: Path, rounds: int) -> None:
    frame = _child("frame", write_configuration(folder, model, clip), "--rounds", str(rounds))
    config = write_configuration(folder, model, clip, more=WITH_CLIPS)
    with_clips = _child("frame", config, "--rounds", str(rounds))
    starts = [_child("start", config) for _ in range(STARTS)]
    two = _child("start", write_configuration(folder, model, clip, cameras=2, more=WITH_CLIPS))
    print(f"bare session.run       {1e3 * frame['bare']:8.2f} ms")
    print(
        f"whole path of a frame  {1e3 * frame['whole']:8.2f} ms   {frame['ratio']:.3f} x the bare run, {frame['rounds']} rounds"
    )
    for stage, seconds in frame["stages"].items():
        print(f"  {stage:20s} {1e3 * seconds:8.3f} ms")
    print(f"  kept for clips       {1e3 * with_clips['whole']:8.2f} ms   {with_clips['ratio']:.3f} x the bare run")
    whole, ratio = ((2 * frame[key] + with_clips[key]) / 3 for key in ("whole", "ratio"))
    print(f"  every third kept     {1e3 * whole:8.2f} ms   {ratio:.3f} x the bare run, as at 25 frames per second")
    seconds = [s["first_detection"] for s in starts]
    print(f"first detection after  {statistics.median(seconds):8.2f} s    (fastest of {STARTS}: {min(seconds):.2f} s)")
    print(f"  processor time until then {min(s['cpu'] for s in starts):5.2f} s")
    now, peak = (max(s[key] for s in starts) for key in ("rss_mb", "peak_mb"))
    print(f"resident memory        {now:8.0f} MB   (at most {peak:.0f} MB), with clips")
    print(f"  with a second camera {two['rss_mb']:8.0f} MB   (at most {two['peak_mb']:.0f} MB)")
    print(f"onnxruntime {frame['onnxruntime']}, {frame['provider']}, frames {frame['size']}")


def _print_cameras(folder: Path, options: argparse.Namespace, clip: Path) -> None:
    from ppe_edge.errors import EdgeError

    fps = options.fps
    if fps is None:
        config = write_configuration(folder, options.model, clip, options.cameras, ALERTING)
        fps = choose_fps(config, options.cameras)
    config = write_configuration(folder, options.model, clip, options.cameras, ALERTING, fps)
    figures = cast(RunFigures, _child("cameras", config, "--seconds", str(options.seconds)))
    if not figures["detect_s"]:
        raise EdgeError(file=clip, expected="a video", got=f"no frame within {options.seconds:g} s")
    print(report(figures, options.cameras, fps))


def _child(what: str, config: Path, *options: str) -> dict[str, Any]:
    from ppe_edge.errors import EdgeError

    command = [sys.executable, "-m", "ppe_edge.benchmark", str(config), "--child", what, *options]
    begin = time.monotonic()
    errors = ["the measured process failed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            if line.startswith(PROGRESS):
                print(line.removeprefix(PROGRESS), end="", file=sys.stderr, flush=True)
            elif line.strip():
                errors.append(line.strip())
        output = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        raise EdgeError(errors[-1].removeprefix("error: "))
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    if "first_detection_at" in figures:  # the monotonic clock is the machine's: the same in both processes
        figures["first_detection"] = figures["first_detection_at"] - begin
    return figures


def _start(config: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Runs the box until it has processed `MEMORY_AFTER` frames."""
    from ppe_edge.startup import prepare

    application = prepare(config, None)
    runtime = application.runtime
    processed, first = 0, 0.0
    process_batch = runtime.process_batch

    def watched(frames: Any) -> None:
        nonlocal processed, first
        process_batch(frames)
        processed += len(frames)
        if not first:
            first, figures["cpu"] = time.monotonic(), time.process_time()
        if processed >= MEMORY_AFTER:
            figures.update(memory())
            runtime.request_stop()

    figures: dict[str, Any] = {}
    runtime.process_batch = watched  # type: ignore[method-assign]
    application.run()
    return {"first_detection_at": first, **memory(), **figures}


def _cameras(config: Path, options: argparse.Namespace) -> RunFigures:
    """Runs the box with its cameras in real time."""
    return run_cameras(config, options.seconds)


def _frame(config: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Times the whole path and the bare run of the same frame alternately."""
    import onnxruntime

    from ppe_edge.config import load_settings
    from ppe_edge.dry_run import first_frames
    from ppe_edge.errors import EdgeError
    from ppe_edge.monitoring.memory import limit_heaps
    from ppe_edge.pictures.clip import FPS
    from ppe_edge.runtime import Runtime

    limit_heaps()  # as the box does: it costs page faults
    settings = load_settings(config)
    runtime = Runtime(settings)
    frame = next(iter(first_frames(settings, 0.0).frames.values()), None)
    if frame is None:
        raise EdgeError(setting="--clip", expected="a video", got="no frame")
    if runtime.clips is not None:
        runtime.clips.start()
    contract = runtime.detector.contract
    canvas = letterbox(frame.image, contract.input_size, contract.pad_value)[0][None]
    number, fps = 0, 25 if runtime.clips is None else FPS

    def whole() -> None:
        nonlocal number
        number += 1
        next_frame = replace(frame, number=number, time=frame.time + number / fps, monotonic=time.monotonic())
        runtime.process_batch([next_frame])
        if runtime.clips is not None:
            runtime.clips.join()

    def bare() -> None:
        runtime.detector.run(canvas)

    def stages() -> dict[str, float]:
        samples = (s for family in runtime.telemetry.registry.collect() for s in family.samples)
        return {s.labels["stage"]: s.value for s in samples if s.name == "ppe_edge_stage_seconds_sum"}

    for _ in range(3):  # the first frames load what only they need
        whole()
    before, begin = stages(), number
    times = time_interleaved({"bare": bare, "whole": whole}, options.rounds)
    return {
        "bare": statistics.median(times["bare"]),
        "whole": statistics.median(times["whole"]),
        "ratio": statistics.median(w / b for w, b in zip(times["whole"], times["bare"], strict=True)),
        "stages": {k: (v - before[k]) / (number - begin) for k, v in stages().items() if v > before[k]},
        "rounds": options.rounds,
        "size": f"{frame.image.shape[1]}x{frame.image.shape[0]}",
        "onnxruntime": onnxruntime.__version__,
        "provider": runtime.detector.provider,
    }


def memory() -> dict[str, float]:
    """Current and peak resident memory of this process, megabytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {key: int(lines[name].split()[0]) / 1024 for key, name in (("rss_mb", "VmRSS"), ("peak_mb", "VmHWM"))}


def write_configuration(
    folder: Path,
    model: Path,
    clip: Path,
    cameras: int = 1,
    more: Mapping[str, Any] = COMMON_RULE,
    fps: float | None = None,
) -> Path:
    """Writes a configuration with the clip as every camera, the page and a JSON Lines sink; returns its path."""
    config = folder / "edge.yaml"
    config.write_text(
        json.dumps(  # which is YAML too
            {
                "model": {"path": str(model.resolve())},
                "state_dir": str(folder / "state"),
                "cameras": {f"clip{i}": {"source": str(clip.resolve()), "fps": fps} for i in range(1, cameras + 1)},
                "sinks": {"jsonl": {"path": str(folder / "alerts.jsonl")}},
                "web": {"port": 0},
                "log_level": "ERROR",
            }
            | dict(more)
        )
    )
    return config


def draw_clip(folder: Path) -> Path:
    """Writes a video of the bundled site frame that moves a little, 1280x720 pixels."""
    import cv2
    import numpy as np

    from ppe_edge.model.store import bundled_frame
    from ppe_edge.pictures.recorder import Recorder

    site = cv2.resize(bundled_frame(), (1280, 720))
    recorder = Recorder(folder, "drawn")
    for i in range(MEMORY_AFTER + 20):
        recorder.add(np.roll(site, 2 * (i % 20), axis=1), i / 25)
    recorder.close()
    return folder / "drawn.mp4"


_MEASUREMENTS = {"start": _start, "frame": _frame, "cameras": _cameras}

if __name__ == "__main__":
    sys.exit(main())
