"""`ppe-yolo promote`: the gate between a trained detector and the one in use; `ppe-yolo rollback`."""

import hashlib
import os
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_json
from ppe_yolo.core.timing import time_interleaved
from ppe_yolo.data.synthetic import draw_site
from ppe_yolo.evaluation.decisions.selection import Contender, Decision, Demands, Latency, decide
from ppe_yolo.evaluation.files import (
    DETECTIONS_FILE,
    EVALUATION_FILES,
    GROUND_TRUTH_FILE,
    read_detections,
    read_ground_truth,
    read_metrics,
)
from ppe_yolo.evaluation.ground_truth import GroundTruth
from ppe_yolo.gate.registry import Registry, Version
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector

MODEL_FILE = "model.onnx"
DECISION_FILE = "decision.json"
FRAME = (720, 1280)  # (height, width) of what latency is measured on
ROUNDS = 20  # timings of each model


@dataclass(frozen=True)
class Entry:
    """A model file and its evaluation on test photos."""

    detector: OnnxDetector
    truth: GroundTruth
    contender: Contender
    model_blake2b: str
    checkpoint_blake2b: str | None


def promote(
    model: Path, evaluation: Path, registry: Registry, demands: Demands, console: Console, out: Path | None = None
) -> Decision:
    """Compares a model with the champion, records the decision, and makes it the champion if all conditions hold.

    Args:
        model: An ONNX file with alarm thresholds.
        evaluation: What `ppe-yolo evaluate` left of that file on test photos.
        registry: Where champion and decision are.
        demands: What is asked for.
        console: Where the conditions are printed.
        out: Folder for decision.json, which is an artifact of the version in any case; nowhere else when None.

    Raises:
        UserError: The evaluation is of another file or split, or the champion was measured on other photos; nothing is
            recorded then.
    """
    entry = read_entry(model, evaluation, demands.critical_class)
    with registry.locked(console), tempfile.TemporaryDirectory() as scratch:
        champion = registry.champion()
        rival = None if champion is None else _read_champion(registry, champion, entry, demands, Path(scratch) / "champion")
        latency = measure_latency(entry.detector, rival.detector if rival else None)
        decision = decide(entry.truth, entry.contender, rival.contender if rival else None, latency, demands)
        files = Path(scratch) / "challenger"
        files.mkdir()
        shutil.copyfile(model, files / MODEL_FILE)
        for name in EVALUATION_FILES:
            shutil.copyfile(evaluation / name, files / name)
        record = _to_plain(decision, entry, champion, demands, registry.name)
        write_json(files / DECISION_FILE, record)
        version = registry.register(files, _tags(decision, entry, champion))
        if decision.promoted:
            registry.crown(version)
        else:
            registry.reject(version)
    if out is not None:
        write_json(out / DECISION_FILE, {**record, "version": version.number})
    _print(decision, version, champion, registry, console)
    return decision


def rollback(registry: Registry, console: Console) -> None:
    """Gives the place of the champion back to the one before it."""
    with registry.locked(console):
        old, new = registry.roll_back()
    console.print(f"{registry.name}: version {new.number} is the champion again, version {old.number} is rejected")


def read_entry(model: Path, evaluation: Path, critical_class: str) -> Entry:
    """Reads and checks a model file and what `ppe-yolo evaluate` left of it.

    Raises:
        UserError: Files that cannot be read or do not belong together, or that cannot be judged.
    """
    detector = load_onnx_detector(model, device="cpu", threads=_threads())
    names = detector.contract.class_names
    if critical_class not in names:
        raise UserError(f"--critical-class: expected one of {', '.join(names)}, got {critical_class!r}")
    if critical_class not in detector.contract.alarm_thresholds:
        raise UserError(
            f"{model}: expected an alarm threshold of {critical_class} (the class) in its contract, which has no such "
            "threshold: export with --alarm-thresholds"
        )
    read_metrics(evaluation)  # written last: without it the evaluation was not finished
    path = evaluation / GROUND_TRUTH_FILE
    truth = read_ground_truth(path)
    info = truth.info
    model_hash = hashlib.blake2b(model.read_bytes(), digest_size=16).hexdigest()
    if info.model_blake2b != model_hash:
        raise UserError(
            f"{path}: holds an evaluation of another file ({info.model}), expected one of {model}: run `ppe-yolo "
            f"evaluate {model}`"
        )
    if info.split != "test":
        raise UserError(f"{path}: expected the split test, got {info.split}: evaluate with --split test")
    if info.tiles != 1:
        raise UserError(f"{path}: expected whole photos, as the box at the gate sees them, got --tiles {info.tiles}")
    if truth.class_names != names:
        raise UserError(f"{path}: holds the classes {', '.join(truth.class_names)}, the model finds {', '.join(names)}")
    targets = truth.targets
    if not ((targets.labels == names.index(critical_class)) & ~targets.difficult).any():
        raise UserError(f"{path}: expected photos with objects of {critical_class}, got none: recall cannot be judged")
    detections = read_detections(evaluation / DETECTIONS_FILE, len(truth), names)
    truth, detections = truth.sorted_by_name(detections)  # in one order for both models
    contender = Contender(detections, detector.contract.alarm_thresholds)
    return Entry(detector, truth, contender, model_hash, info.checkpoint_blake2b)


def _read_champion(registry: Registry, champion: Version, entry: Entry, demands: Demands, folder: Path) -> Entry:
    measured_on = champion.tags.get("data_blake2b")
    if measured_on != entry.truth.data_blake2b:
        raise UserError(
            f"--evaluation: expected the photos that the champion ({registry.name} {champion.number}) was measured on, data "
            f"hash {measured_on}, got {entry.truth.data_blake2b}: evaluate on those, or promote the champion's file on these "
            "under another --name first"
        )
    folder.mkdir()
    files = registry.files(champion, folder)
    return read_entry(files / MODEL_FILE, files, demands.critical_class)


def measure_latency(challenger: OnnxDetector, champion: OnnxDetector | None) -> Latency:
    """One drawn frame from picture to boxes, on as many threads as this process may use, both models by turns."""
    frame = draw_site(np.random.default_rng(5), FRAME)[0]
    detectors = {"challenger": challenger} | ({"champion": champion} if champion is not None else {})
    times = time_interleaved({name: partial(d.detect, [frame]) for name, d in detectors.items()}, ROUNDS)
    median = {name: 1e3 * statistics.median(t) for name, t in times.items()}
    if champion is None:
        return Latency(median["challenger"])
    ratio = statistics.median(a / b for a, b in zip(times["challenger"], times["champion"], strict=True))
    return Latency(median["challenger"], median["champion"], ratio)


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _to_plain(decision: Decision, entry: Entry, champion: Version | None, demands: Demands, name: str) -> dict[str, Any]:
    """What decision.json holds."""
    return {
        "name": name,
        "promoted": decision.promoted,
        "reasons": decision.reasons,
        "champion_version": None if champion is None else champion.number,
        "decided": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_blake2b": entry.truth.data_blake2b,
        "photos": len(entry.truth),
        "model_blake2b": entry.model_blake2b,
        "checkpoint_blake2b": entry.checkpoint_blake2b,
        "alarm_thresholds": dict(entry.contender.thresholds),
        "demands": asdict(demands),
        "conditions": [asdict(c) for c in decision.conditions],
        "numbers": decision.numbers,
    }


def _tags(decision: Decision, entry: Entry, champion: Version | None) -> dict[str, str]:
    numbers = decision.numbers["challenger"]
    tags = {
        "map_50": f"{numbers['map_50']:.6f}",
        "recall": f"{numbers['recall']:.6f}",
        "false_alarms_per_1000": f"{numbers['false_alarms_per_1000']:.3f}",
        "latency_ms": f"{numbers['latency_ms']:.3f}",
        "data_blake2b": entry.truth.data_blake2b,
        "model_blake2b": entry.model_blake2b,
        "checkpoint_blake2b": entry.checkpoint_blake2b or "unknown",
        "compared_with": "no champion" if champion is None else str(champion.number),
        "decided": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return tags if decision.promoted else {**tags, "reasons": "; ".join(decision.reasons)}


def _print(decision: Decision, version: Version, champion: Version | None, registry: Registry, console: Console) -> None:
    table = Table("condition", "champion", "challenger", "demand", "")
    for c in decision.conditions:
        table.add_row(c.name, c.champion, c.challenger, c.demand, "holds" if c.holds else "FAILS")
    console.print(table)
    for who in ("champion", "challenger"):
        at = decision.numbers[who]
        if at is not None:  # shown, not judged
            precision = "-" if at["precision"] is None else f"{100 * at['precision']:.1f} %"
            console.print(f"{who}: alarms of the critical class with precision {precision}")
    if champion is None:
        console.print("there was no champion: the absolute conditions alone decided")
    place = f"{registry.name} version {version.number}"
    if decision.promoted:
        console.print(f"promoted: {place} is the champion", soft_wrap=True)
    else:
        console.print(f"rejected: {place}: {'; '.join(decision.reasons)}", soft_wrap=True)
