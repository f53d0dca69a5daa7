"""`python -m ppe_edge.benchmark MODEL`: what a frame costs beside the bare network, how soon the box sees, its memory.

Everything is measured in fresh processes, with one camera (a clip), the page served and alerts going to a file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppe_yolo.core.contract import ContractError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.timing import time_interleaved

STARTS = 5
MEMORY_AFTER = 200  # frames


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures; returns the exit code."""
    parser = argparse.ArgumentParser("ppe_edge.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an .onnx file of `ppe-yolo export` or `ppe-yolo quantize`")
    parser.add_argument("--clip", type=Path, metavar="FILE", help="a video; one is drawn when left out")
    parser.add_argument("--rounds", type=int, default=40, help="how often the two are timed by turns")
    parser.add_argument("--child", choices=("start", "frame"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    from ppe_edge.errors import EdgeError

    try:
        if options.child is not None:
            print(json.dumps(_start(options.model) if options.child == "start" else _frame(options.model, options.rounds)))
        else:
            _benchmark(options.model, options.clip, options.rounds)
    except (EdgeError, ContractError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _benchmark(model: Path, clip: Path | None, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ppe_edge_benchmark_") as name:
        folder = Path(name)
        config = write_configuration(folder, model, clip or draw_clip(folder))
        starts = [_child("start", config, rounds) for _ in range(STARTS)]
        frame = _child("frame", config, rounds)
    print(f"bare session.run       {1e3 * frame['bare']:8.2f} ms")
    print(
        f"whole path of a frame  {1e3 * frame['whole']:8.2f} ms   {frame['ratio']:.3f} x the bare run, {frame['rounds']} rounds"
    )
    for stage, seconds in frame["stages"].items():
        print(f"  {stage:20s} {1e3 * seconds:8.3f} ms")
    seconds = [s["first_detection"] for s in starts]
    print(f"first detection after  {statistics.median(seconds):8.2f} s    (fastest of {STARTS}: {min(seconds):.2f} s)")
    print(f"  processor time until then {min(s['cpu'] for s in starts):5.2f} s")
    now, peak = (max(s[key] for s in starts) for key in ("rss_mb", "peak_mb"))
    print(f"resident memory        {now:8.0f} MB   (at most {peak:.0f} MB)")
    print(f"onnxruntime {frame['onnxruntime']}, {frame['provider']}, frames {frame['size']}")


def _child(what: str, config: Path, rounds: int) -> dict[str, Any]:
    from ppe_edge.errors import EdgeError

    command = [sys.executable, "-m", "ppe_edge.benchmark", str(config), "--child", what, "--rounds", str(rounds)]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EdgeError((done.stderr.strip().splitlines() or ["the measured process failed"])[-1].removeprefix("error: "))
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "first_detection_at" in figures:  # the monotonic clock is the machine's: the same in both processes
        figures["first_detection"] = figures["first_detection_at"] - begin
    return figures


def _start(config: Path) -> dict[str, Any]:
    """Runs the box until it has looked at `MEMORY_AFTER` frames."""
    from ppe_edge.__main__ import prepare

    application = prepare(config, None)
    runtime = application.runtime
    looked, first = 0, 0.0
    look = runtime.look

    def watched(frames: Any) -> None:
        nonlocal looked, first
        look(frames)
        looked += len(frames)
        if not first and runtime.first_detection_at is not None:
            first, figures["cpu"] = runtime.first_detection_at, time.process_time()
        if looked >= MEMORY_AFTER:
            figures.update(memory())
            runtime.stop_soon()

    figures: dict[str, Any] = {}
    runtime.look = watched  # type: ignore[method-assign]
    application.run()
    return {"first_detection_at": first, **memory(), **figures}


def _frame(config: Path, rounds: int) -> dict[str, Any]:
    """Times the whole path and the bare run of the same picture by turns."""
    import onnxruntime

    from ppe_edge.cameras.mailbox import Frame
    from ppe_edge.config import load_settings
    from ppe_edge.dry_run import first_pictures
    from ppe_edge.memory import give_pictures_back
    from ppe_edge.runtime import Runtime

    give_pictures_back()  # as in the box: it costs page faults
    settings = load_settings(config)
    frame = next(iter(first_pictures(settings)[0].values()))
    runtime = Runtime(settings)
    contract = runtime.detector.contract
    canvas = letterbox(frame.image, contract.input_size, contract.pad_value)[0][None]
    number = 0

    def whole() -> None:
        nonlocal number
        number += 1
        runtime.look([Frame(frame.camera, number, frame.time + number / 25, time.monotonic(), frame.image)])

    def bare() -> None:
        runtime.detector.run(canvas)

    def stages() -> dict[str, float]:
        samples = (s for family in runtime.telemetry.registry.collect() for s in family.samples)
        return {s.labels["stage"]: s.value for s in samples if s.name == "ppe_edge_stage_seconds_sum"}

    for _ in range(3):  # the first frames load what only they need
        whole()
    before, begin = stages(), number
    times = time_interleaved({"bare": bare, "whole": whole}, rounds)
    return {
        "bare": statistics.median(times["bare"]),
        "whole": statistics.median(times["whole"]),
        "ratio": statistics.median(w / b for w, b in zip(times["whole"], times["bare"], strict=True)),
        "stages": {k: (v - before[k]) / (number - begin) for k, v in stages().items() if v > before[k]},
        "rounds": rounds,
        "size": f"{frame.image.shape[1]}x{frame.image.shape[0]}",
        "onnxruntime": onnxruntime.__version__,
        "provider": runtime.detector.provider,
    }


def memory() -> dict[str, float]:
    """This process's resident memory now and at most, megabytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {key: int(lines[name].split()[0]) / 1024 for key, name in (("rss_mb", "VmRSS"), ("peak_mb", "VmHWM"))}


def write_configuration(folder: Path, model: Path, clip: Path) -> Path:
    """A box with one camera, the page and a file of alerts."""
    config = folder / "edge.yaml"
    config.write_text(
        json.dumps(  # which is YAML too
            {
                "model": {"path": str(model.resolve())},
                "state_dir": str(folder / "state"),
                "cameras": {"clip": {"source": str(clip.resolve())}},
                "sinks": {"jsonl": {"path": str(folder / "alerts.jsonl")}},
                "rule": {"alarm_threshold": 0.5},  # whatever the model says: nothing here depends on it
                "web": {"port": 0},
                "log_level": "ERROR",
            }
        )
    )
    return config


def draw_clip(folder: Path) -> Path:
    """A drawn site that moves a little, 1280x720."""
    import cv2
    import numpy as np

    from ppe_edge.model.store import bundled_frame
    from ppe_edge.pictures.recorder import Recorder

    picture = cv2.resize(bundled_frame(), (1280, 720))
    recorder = Recorder(folder, "drawn")
    for i in range(MEMORY_AFTER + 20):
        recorder.add(np.roll(picture, 2 * (i % 20), axis=1), i / 25)
    recorder.close()
    return folder / "drawn.mp4"


if __name__ == "__main__":
    sys.exit(main())
