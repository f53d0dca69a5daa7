"""A candidate for promotion: a model file and its evaluation, read and checked."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.cores import available_cores
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import blake2b_file
from ppe_yolo.data.images import read_image
from ppe_yolo.evaluation.decisions.promotion_rules import Contender
from ppe_yolo.evaluation.files.detections import read_detections, to_coco_results
from ppe_yolo.evaluation.files.folder import DETECTIONS_FILE, GROUND_TRUTH_FILE
from ppe_yolo.evaluation.files.ground_truth import read_ground_truth
from ppe_yolo.evaluation.files.metrics import read_metrics
from ppe_yolo.evaluation.ground_truth import GroundTruth, ImageRecord
from ppe_yolo.evaluation.metrics.matching import from_coco_results
from ppe_yolo.inference.onnx_detector import OnnxDetector, load_onnx_detector

BATCH = 8  # images


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model file and its evaluation on test images.

    Attributes:
        detector: The model.
        truth: The images and their objects.
        contender: Its detections and alarm thresholds.
        model_blake2b: Hash of the file.
        checkpoint_blake2b: Hash of the checkpoint that it was exported from, if known.
    """

    detector: OnnxDetector
    truth: GroundTruth
    contender: Contender
    model_blake2b: str
    checkpoint_blake2b: str | None


def read_candidate(model: Path, evaluation: Path, critical_class: str) -> Candidate:
    """Reads and checks a model file and the files of its `ppe-yolo evaluate`.

    Raises:
        UserError: Files that cannot be read, do not belong together, or are not enough for a decision.
    """
    detector = _open(model, critical_class)
    names = detector.contract.class_names
    read_metrics(evaluation)  # evaluate writes it last: without it, the evaluation is incomplete
    path = evaluation / GROUND_TRUTH_FILE
    truth = read_ground_truth(path)
    info = truth.info
    model_hash = blake2b_file(model)
    if info.model_blake2b != model_hash:
        raise UserError(
            f"holds an evaluation of another file ({info.model}) than {model}",
            file=path,
            hint=f"run `ppe-yolo evaluate {model}`",
        )
    if info.split != "test":
        raise UserError(file=path, expected="the split test", got=info.split, hint="evaluate with --split test")
    if info.tiles != 1:
        raise UserError(file=path, expected="whole images, as on the box", got=f"--tiles {info.tiles}")
    if truth.class_names != names:
        raise UserError(file=path, expected=f"the model's classes {', '.join(names)}", got=", ".join(truth.class_names))
    targets = truth.targets
    if not ((targets.labels == names.index(critical_class)) & ~targets.difficult).any():
        raise UserError(
            file=path, expected=f"images with objects of {critical_class}", got="none", hint="recall cannot be measured"
        )
    detections = read_detections(evaluation / DETECTIONS_FILE, len(truth), names)
    truth, detections = truth.sorted_by_name(detections)  # in one order for both models
    contender = Contender(detections, detector.contract.alarm_thresholds)
    return Candidate(
        detector=detector,
        truth=truth,
        contender=contender,
        model_blake2b=model_hash,
        checkpoint_blake2b=info.checkpoint_blake2b,
    )


def measure_again(model: Path, candidate: Candidate, critical_class: str) -> Candidate:
    """Measures another model on the images of a candidate.

    Args:
        model: An ONNX file with alarm thresholds.
        candidate: The images, which must still be where its evaluation read them.
        critical_class: The class whose recall matters.

    Raises:
        UserError: The model has other classes or no threshold, or an image is missing or has another size than before.
    """
    detector = _open(model, critical_class)
    names, truth = detector.contract.class_names, candidate.truth
    if names != truth.class_names:
        raise UserError(file=model, expected=f"the classes {', '.join(truth.class_names)}", got=", ".join(names))
    detections = []
    for start in range(0, len(truth), BATCH):
        detections += detector.detect([_read(image) for image in truth.images[start : start + BATCH]])
    _, table = truth.sorted_by_name(from_coco_results(to_coco_results(detections)))
    return replace(
        candidate,
        detector=detector,
        contender=Contender(table, detector.contract.alarm_thresholds),
        model_blake2b=blake2b_file(model),
        checkpoint_blake2b=None,
    )


def _read(image: ImageRecord) -> NDArray[np.uint8]:
    pixels = read_image(image.file_name)
    if pixels.shape[:2] != (image.height, image.width):
        raise UserError(
            file=image.file_name,
            expected=f"{image.width}x{image.height} pixels, as in the evaluation",
            got=f"{pixels.shape[1]}x{pixels.shape[0]}",
            hint="evaluate again",
        )
    return pixels


def _open(model: Path, critical_class: str) -> OnnxDetector:
    detector = load_onnx_detector(model, device="cpu", threads=available_cores())
    names = detector.contract.class_names
    if critical_class not in names:
        raise UserError(setting="critical_class", expected=f"one of {', '.join(names)}", got=repr(critical_class))
    if critical_class not in detector.contract.alarm_thresholds:
        raise UserError(
            file=model,
            expected=f"an alarm threshold of {critical_class} (the class) in its contract",
            got="none",
            hint="export with --operating-point",
        )
    return detector
