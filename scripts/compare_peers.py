"""Trains detectors of other projects and ours on the same images for the same minutes, and evaluates all of them alike.

Each contender gets one core, the same data set and the same minutes from random weights; two run at the same time. Each detects
in the test images at the same input size, and `ppe-yolo evaluate` measures the recorded detections. The peers are programs of
their own, in an environment of their own (`--peers`), and are only run:

    python -m venv PEERS && PEERS/bin/pip install ultralytics libreyolo
    python scripts/compare_peers.py DIR --class-map hard-hat-workers --minutes 30 --peers PEERS --out compared

A contender that has no limit of time trains one epoch first, and then as many as fit into the minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import yaml

ROOT = Path(__file__).resolve().parents[1]
INPUT_SIDE = 416
TRAIN_SIDE = 320
BATCH = 8

# runs in the peer's environment: MODEL LIST OUT SIDE LIBRARY -> COCO results of all images in LIST, down to a score of 0.01
_PREDICT = """
import json, sys
from pathlib import Path
model, listed, out, side, library = sys.argv[1:]
if library == "ultralytics":
    from ultralytics import YOLO as load
else:
    from libreyolo import LibreYOLO as load
detector, rows = load(model), []
for path in Path(listed).read_text().split("\\n"):
    if path:
        result = detector.predict(path, imgsz=int(side), conf=0.01, iou=0.5, max_det=300, verbose=False, device="cpu") \\
            if library == "ultralytics" else detector(path, imgsz=int(side), conf=0.01, iou=0.5, max_det=300)
        boxes = (result[0] if isinstance(result, list) else result).boxes
        for (x1, y1, x2, y2), score, label in zip(boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist()):
            bbox = [x1, y1, x2 - x1, y2 - y1]
            rows.append({"file_name": Path(path).name, "category_id": int(label) + 1, "bbox": bbox, "score": score})
Path(out).write_text(json.dumps(rows))
"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a contender is run with.

    Attributes:
        data: Folder of the YOLO data set with data.yaml.
        work: Folder of the contender.
        minutes: Time for the training.
        core: CPU core to run on.
        peers: Environment of the peers; None if only ours run.
    """

    data: Path
    work: Path
    minutes: float
    core: int
    peers: Path | None

    def run(self, *command: str | Path) -> float:
        """Runs a command on the core; returns its seconds. Its output goes to log.txt."""
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "YOLO_CONFIG_DIR": str(self.work),
            "PYTHONPATH": str(ROOT),
        }
        start = time.monotonic()
        with (self.work / "log.txt").open("a", encoding="utf-8") as log:
            subprocess.run(
                ["taskset", "--cpu-list", str(self.core), *map(str, command)],
                check=True,
                cwd=self.work,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return time.monotonic() - start

    def epochs_that_fit(self, train: Callable[[int, str], float]) -> float:
        """Trains one epoch, then as many as fit into the minutes, each in a run of its own; returns the latter's seconds."""
        return train(max(1, int(self.minutes * 60 / train(1, "timing"))), "run")


def ours(recipe: str, precision: str) -> Callable[[Job], tuple[Path, float]]:
    """Trains one of our recipes; returns a model and the seconds of its training."""

    def run(job: Job) -> tuple[Path, float]:
        def train(epochs: int, name: str) -> float:
            return job.run(
                *(sys.executable, ROOT / "scripts/train.py", "--config", recipe, "--run-dir", job.work / name),
                *("--data.root", job.data, "--trainer.max_epochs", str(epochs), "--trainer.precision", precision),
                *("--data.batch_size", str(BATCH), "--data.num_workers", "0"),
            )

        seconds = job.epochs_that_fit(train)
        return job.work / "run/checkpoints/best.ckpt", seconds

    return run


def peer(library: str, model: str) -> Callable[[Job], tuple[Path, float]]:
    """Trains a peer from random weights; returns its detections in the test images and the seconds of its training."""

    def run(job: Job) -> tuple[Path, float]:
        if job.peers is None:
            raise SystemExit("--peers: expected the environment of the peers, got nothing")
        binaries, config = job.peers / "bin", job.data / "data.yaml"
        if library == "ultralytics":
            seconds = job.run(
                *(binaries / "yolo", "detect", "train", f"model={model}.yaml", "pretrained=False", f"data={config}"),
                *(f"imgsz={TRAIN_SIDE}", f"batch={BATCH}", f"time={job.minutes / 60}", "device=cpu", "workers=0"),
                *("plots=False", f"project={job.work}", "name=run"),
            )
        else:

            def train(epochs: int, name: str) -> float:
                return job.run(
                    *(binaries / "libreyolo", "train", "--model", model, "--no-pretrained", "--data", config),
                    *("--imgsz", str(TRAIN_SIDE), "--batch", str(BATCH), "--epochs", str(epochs), "--device", "cpu"),
                    *("--workers", "0", "--project", job.work, "--name", name, "--exist-ok"),
                )

            seconds = job.epochs_that_fit(train)
        out = job.work / "results.json"
        best = next((job.work / "run").rglob("best.pt"))
        job.run(binaries / "python", "-c", _PREDICT, best, job.data / "test.txt", out, str(INPUT_SIDE), library)
        return out, seconds

    return run


CONTENDERS: dict[str, Callable[[Job], tuple[Path, float]]] = {
    "yolov3-small": ours("yolov3-small", "32-true"),
    "yolov3-small-bf16": ours("yolov3-small", "bf16-mixed"),
    "yolov3-tiny": ours("yolov3-tiny", "32-true"),
    "ultralytics-yolov3-tinyu": peer("ultralytics", "yolov3-tinyu"),
    "ultralytics-yolo26n": peer("ultralytics", "yolo26n"),
    "libreyolo-yolo9-t": peer("libreyolo", "yolo9-t"),
    "libreyolo-yolox-n": peer("libreyolo", "yolox-n"),
}


def prepare(data: str, class_map: str, out: Path) -> Path:
    """Writes the data set as YOLO with train, val (every tenth image of trainval) and test; returns its folder."""
    folder = out / "data"
    if (folder / "train.txt").exists():
        return folder
    command = (sys.executable, ROOT / "scripts/prepare_data.py", data, "--class-map", class_map, "--format", "yolo")
    subprocess.run([*map(str, command), "--out", str(folder)], check=True)
    config = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    listed = [line for line in (folder / "trainval.txt").read_text(encoding="utf-8").splitlines() if line]
    test = [line for line in (folder / "test.txt").read_text(encoding="utf-8").splitlines() if line]
    parts = {"val": listed[::10], "test": test, "train": [line for i, line in enumerate(listed) if i % 10]}
    for name, lines in parts.items():
        whole = [str((folder / line).resolve()) for line in lines]  # absolute: tools disagree on what a path is relative to
        (folder / f"{name}.txt").write_text("\n".join(whole) + "\n", encoding="utf-8")
    (folder / "trainval.txt").unlink(missing_ok=True)
    values = {"path": str(folder.resolve()), **{name: f"{name}.txt" for name in parts}, "names": config["names"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return folder


def main() -> None:
    """Runs the contenders and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DIR")
    parser.add_argument("--class-map", default="default")
    parser.add_argument("--minutes", type=float, default=30.0, help="for the training of each contender")
    parser.add_argument("--peers", type=Path, help="virtual environment of the peers")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--cores", type=int, nargs="+", default=[0, 1], help="one contender runs on each at a time")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    data = prepare(arguments.data, arguments.class_map, out)
    cores: SimpleQueue[int] = SimpleQueue()
    for core in arguments.cores:
        cores.put(core)

    def compete(name: str) -> str:
        core, work = cores.get(), out / name
        work.mkdir(exist_ok=True)
        try:
            job = Job(data=data, work=work, minutes=arguments.minutes, core=core, peers=arguments.peers)
            model, seconds = CONTENDERS[name](job)
            evaluation = work / "evaluation"
            job.run(
                *(sys.executable, ROOT / "scripts/evaluate.py", model, "--data", data, "--split", "test"),
                *("--images", "0", "--out", evaluation),
            )
        except subprocess.CalledProcessError as error:
            return f"{name:28} failed with exit code {error.returncode}; see {work / 'log.txt'}"
        finally:
            cores.put(core)
        metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
        return f"{name:28}{seconds / 60:8.1f}{100 * metrics['map_50']:10.2f}{100 * metrics['map']:14.2f}"

    print(f"{'contender':28}{'minutes':>8}{'mAP@0.5':>10}{'mAP@0.5:0.95':>14}", flush=True)
    with ThreadPoolExecutor(len(arguments.cores)) as pool:
        for row in pool.map(compete, arguments.contenders):
            print(row, flush=True)


if __name__ == "__main__":
    main()
