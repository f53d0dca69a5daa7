"""Promotion: decides whether a detector replaces the champion, and records the decision in the registry."""

import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppe_yolo.core.files import write_json
from ppe_yolo.core.timing import time_interleaved
from ppe_yolo.data.synthetic import draw_site
from ppe_yolo.evaluation.decisions.promotion_rules import Decision, Demands, Latency, decide
from ppe_yolo.evaluation.files.folder import EVALUATION_FILES
from ppe_yolo.gate.candidate import Candidate, measure_again, read_candidate
from ppe_yolo.gate.models import Version
from ppe_yolo.gate.registry import Registry
from ppe_yolo.inference.onnx_detector import OnnxDetector

MODEL_FILE = "model.onnx"
DECISION_FILE = "decision.json"
FRAME = (720, 1280)  # (height, width) of the frame that latency is measured on
ROUNDS = 20  # timings of each model


@dataclass(frozen=True)
class Promotion:
    """The outcome of `promote`.

    Attributes:
        decision: The decision.
        version: The new version in the registry.
        champion: The champion before; None if there was none.
    """

    decision: Decision
    version: Version
    champion: Version | None


def promote(
    model: Path,
    evaluation: Path,
    registry: Registry,
    demands: Demands,
    *,
    out: Path | None = None,
    on_wait: Callable[[str], None] = lambda lock: None,
) -> Promotion:
    """Compares a model with the champion, records the decision, and promotes the model if all conditions hold.

    A champion that was evaluated on other images is measured on those of `evaluation`, which favours it if it was trained on
    some of them.

    Args:
        model: An ONNX file with alarm thresholds.
        evaluation: The folder of `ppe-yolo evaluate` with that file on test images.
        registry: Contains the champion and the decisions.
        demands: The conditions.
        out: Folder for a copy of decision.json, which is always an artifact of the version.
        on_wait: Called with the lock file if another promotion holds it.

    Raises:
        UserError: The evaluation is of another file or split, or the champion cannot be measured on its images; then nothing
            is recorded.
    """
    candidate = read_candidate(model, evaluation, demands.critical_class)
    with registry.locked(on_wait), tempfile.TemporaryDirectory() as scratch:
        champion = registry.champion()
        rival = None if champion is None else _read_champion(registry, champion, candidate, demands, Path(scratch) / "champion")
        latency = measure_latency(candidate.detector, rival.detector if rival else None)
        decision = decide(candidate.truth, candidate.contender, rival.contender if rival else None, latency, demands)
        files = Path(scratch) / "challenger"
        files.mkdir()
        shutil.copyfile(model, files / MODEL_FILE)
        for name in EVALUATION_FILES:
            shutil.copyfile(evaluation / name, files / name)
        record = _to_plain(decision, candidate, champion, demands, registry.name)
        write_json(files / DECISION_FILE, record)
        version = registry.register(files, _tags(decision, candidate, champion))
        if decision.promoted:
            registry.promote(version)
        else:
            registry.reject(version)
    if out is not None:
        write_json(out / DECISION_FILE, {**record, "version": version.number})
    return Promotion(decision, version, champion)


def _read_champion(registry: Registry, champion: Version, candidate: Candidate, demands: Demands, folder: Path) -> Candidate:
    """The champion on the images of a candidate: its own evaluation if that was on the same images, else measured now."""
    folder.mkdir()
    files = registry.files(champion, folder)
    if _has_other_images(champion, candidate):
        return measure_again(files / MODEL_FILE, candidate, demands.critical_class)
    return read_candidate(files / MODEL_FILE, files, demands.critical_class)


def _has_other_images(champion: Version, candidate: Candidate) -> bool:
    return champion.tags.get("data_blake2b") != candidate.truth.data_blake2b


def measure_latency(challenger: OnnxDetector, champion: OnnxDetector | None) -> Latency:
    """Times a drawn frame from image to boxes, both models in turn, with as many threads as this process may use."""
    frame = draw_site(np.random.default_rng(5), FRAME)[0]
    detectors = {"challenger": challenger} | ({"champion": champion} if champion is not None else {})
    times = time_interleaved({name: partial(d.detect, [frame]) for name, d in detectors.items()}, ROUNDS)
    median = {name: 1e3 * statistics.median(t) for name, t in times.items()}
    if champion is None:
        return Latency(median["challenger"])
    ratio = statistics.median(a / b for a, b in zip(times["challenger"], times["champion"], strict=True))
    return Latency(median["challenger"], median["champion"], ratio)


def _to_plain(
    decision: Decision, candidate: Candidate, champion: Version | None, demands: Demands, name: str
) -> dict[str, Any]:
    """The content of decision.json."""
    return {
        "name": name,
        "promoted": decision.promoted,
        "reasons": decision.reasons,
        "champion_version": None if champion is None else champion.number,
        "decided": datetime.now(UTC).isoformat(timespec="seconds"),
        "champion_measured_again": champion is not None and _has_other_images(champion, candidate),
        "data_blake2b": candidate.truth.data_blake2b,
        "photos": len(candidate.truth),  # existing decisions have this key
        "model_blake2b": candidate.model_blake2b,
        "checkpoint_blake2b": candidate.checkpoint_blake2b,
        "alarm_thresholds": dict(candidate.contender.thresholds),
        "demands": asdict(demands),
        "conditions": [asdict(c) for c in decision.conditions],
        "numbers": decision.numbers,
    }


def _tags(decision: Decision, candidate: Candidate, champion: Version | None) -> dict[str, str]:
    numbers = decision.numbers["challenger"]
    tags = {
        "map_50": f"{numbers['map_50']:.6f}",
        "recall": f"{numbers['recall']:.6f}",
        "false_alarms_per_1000": f"{numbers['false_alarms_per_1000']:.3f}",
        "latency_ms": f"{numbers['latency_ms']:.3f}",
        "data_blake2b": candidate.truth.data_blake2b,
        "model_blake2b": candidate.model_blake2b,
        "checkpoint_blake2b": candidate.checkpoint_blake2b or "unknown",
        "compared_with": "no champion" if champion is None else str(champion.number),
        "decided": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return tags if decision.promoted else {**tags, "reasons": "; ".join(decision.reasons)}
