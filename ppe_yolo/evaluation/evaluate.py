"""`ppe-yolo evaluate`: a detector against the annotated images of a split, and the files that record it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rich.console import Console
from rich.progress import track

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, blake2b_file
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.dataset import AnnotatedDataset, OnError
from ppe_yolo.data.held_out import VAL, VALIDATION_KEY, validation_images
from ppe_yolo.data.images import read_image
from ppe_yolo.data.sources.files import require_outside
from ppe_yolo.evaluation.data_sets import (
    DataSpec,
    Domain,
    all_images,
    figures_by_domain,
    ground_truth_of,
    open_data_sets,
)
from ppe_yolo.evaluation.files.detections import to_coco_results, write_detections
from ppe_yolo.evaluation.files.folder import METRICS_FILE, ROBUSTNESS_FILE
from ppe_yolo.evaluation.files.ground_truth import write_ground_truth
from ppe_yolo.evaluation.files.metrics import ClassMetrics, Metrics, number_or_none, write_metrics
from ppe_yolo.evaluation.ground_truth import EvaluationInfo, GroundTruth
from ppe_yolo.evaluation.metrics.coco_ap import (
    AT_THREE_QUARTERS,
    Judged,
    coco_figures,
    judge,
    precision_recall_curve,
)
from ppe_yolo.evaluation.metrics.matching import DetectionTable, TargetTable, from_coco_results, target_table
from ppe_yolo.evaluation.metrics.plots import draw_curves
from ppe_yolo.evaluation.mistake_images import count_mistakes, draw_mistakes
from ppe_yolo.evaluation.recorded import RecordedDetections
from ppe_yolo.evaluation.report.material import Material
from ppe_yolo.evaluation.report.report import origin_in_model, write_report
from ppe_yolo.evaluation.robustness import measure_robustness
from ppe_yolo.inference.checkpoint import training_hash
from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.tiled import TiledDetector


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        metrics: The content of metrics.json.
        annotated: The images of the split.
        detections: The detections in each of them.
    """

    metrics: Metrics
    annotated: list[AnnotatedImage]
    detections: list[Detections]


def evaluate(
    detector: Detector | RecordedDetections,
    model: str,
    data: str | Path | Sequence[DataSpec],
    out: str | Path,
    *,
    split: str = "test",
    class_map: str | None = None,
    on_error: OnError = "stop",
    batch_size: int = 8,
    images: int = 24,
    val_fraction: float | None = None,
    seed: int | None = None,
    with_report: bool = False,
    robustness: bool = False,
    console: Console | None = None,
) -> Evaluation:
    """Runs a detector over a split and writes metrics.json, detections.json, ground_truth.json, a plot and drawn images.

    Args:
        detector: The detector, or the detections that another one has recorded.
        model: Its name, for the record.
        data: One data set, see `open_source`, or several, each with its class map. Files then hold the images of all.
        out: Folder for the files.
        split: The images; `val`: those that the model was validated on during its training, in each data set.
        class_map: Name or file, for one data set; its classes must be the detector's.
        on_error: What happens if the audit finds errors in the split.
        batch_size: Images per batch.
        images: Number of images to draw, those with most mistakes first.
        val_fraction: See `validation_images`.
        seed: See `validation_images`.
        with_report: Also write what `ppe-yolo report` writes, with the model's own thresholds if it has any.
        robustness: Also measure under corruptions, see `measure_robustness`.
        console: Where to show progress; nowhere if None.

    Raises:
        UserError: The data has errors, its classes are not the detector's, or its validation images are unknown.
    """
    if split != VAL and (val_fraction is not None or seed is not None):
        raise UserError(f"--val-fraction, --seed: they choose the images of the split {VAL}, got --split {split}")
    if robustness and isinstance(detector, RecordedDetections):
        raise UserError(
            setting="robustness", expected="a model, which can detect in corrupted images", got=f"detections: {model}"
        )
    out = Path(out)
    contract = detector.contract
    names = contract.class_names
    data_sets = open_data_sets(
        str(data) if isinstance(data, Path) else data,
        class_map,
        split=split,
        on_error=on_error,
        model_classes=(names, model),
        progress=console is not None,
    )
    for dataset in data_sets.values():
        require_outside(out, dataset.root)
    domains = [
        Domain.of(name, dataset, _images(dataset, model, contract, split, val_fraction, seed))
        for name, dataset in data_sets.items()
    ]
    annotated = all_images(domains)
    detections = _detect(detector, annotated, batch_size, console)

    display_names = {**next(iter(data_sets.values())).class_map.display_names, **contract.display_names}
    truth = ground_truth_of(domains, names, _info(detector, model, split, display_names))
    table = from_coco_results(to_coco_results(detections))  # with the file's rounding, so that `report` gets the same figures
    judged = judge(table, truth.targets, len(names), max_detections=contract.max_detections)
    alarms = contract.score_thresholds()
    metrics = _metrics(truth, table, judged, domains, contract)
    for earlier in (METRICS_FILE, ROBUSTNESS_FILE):  # those of an earlier evaluation must not be taken for this one's
        (out / earlier).unlink(missing_ok=True)
    _write_curves(out / "precision_recall.png", judged, contract)
    write_ground_truth(out, truth)
    write_detections(out, detections)
    mistakes = count_mistakes(table, truth.targets, len(annotated))
    draw_mistakes(out / "pictures", annotated, detections, mistakes, contract, images)
    corruptions = None
    if robustness and not isinstance(detector, RecordedDetections):
        corruptions = measure_robustness(
            detector.detect, annotated, detections, contract, alarms, out, batch_size=batch_size, console=console
        )
    if with_report:
        write_report(
            Material(truth=truth, detections=table, domains=domains, annotated=annotated, robustness=corruptions, folder=out),
            out,
            thresholds=truth.info.alarm_thresholds or None,
            origin=origin_in_model(truth.info.tiles),
        )
    write_metrics(out, metrics)  # last: if it exists, the other files do
    return Evaluation(metrics, annotated, detections)


def _detect(
    detector: Detector | RecordedDetections, annotated: Sequence[AnnotatedImage], batch_size: int, console: Console | None
) -> list[Detections]:
    if isinstance(detector, RecordedDetections):
        return detector.of(annotated)
    detections: list[Detections] = []
    starts = range(0, len(annotated), batch_size)
    for start in track(starts, "evaluating", console=console, disable=console is None, transient=True):
        detections += detector.detect([read_image(a.image) for a in annotated[start : start + batch_size]])
    return detections


def _info(detector: Detector | RecordedDetections, model: str, split: str, display_names: dict[str, str]) -> EvaluationInfo:
    alarms = detector.contract.score_thresholds()
    return EvaluationInfo(
        model=model,
        split=split,
        tiles=detector.tiles if isinstance(detector, TiledDetector) else 1,
        checkpoint_blake2b=training_hash(detector.contract, Path(model)),
        model_blake2b=blake2b_file(model) if Path(model).is_file() else None,
        input_size=detector.contract.input_size,
        display_names=display_names,
        alarm_thresholds=alarms if set(detector.contract.alarm_thresholds) == set(alarms) else {},
    )


def _metrics(
    truth: GroundTruth,
    table: DetectionTable,
    judged: Sequence[Judged],
    domains: Sequence[Domain],
    contract: ModelContract,
) -> Metrics:
    by_domain = figures_by_domain(
        domains,
        table,
        truth.targets,
        input_size=contract.input_size,
        class_names=contract.class_names,
        thresholds=contract.score_thresholds(),
    )
    return {
        "model": truth.info.model,
        "data": ", ".join(d.root for d in domains),
        "split": truth.info.split,
        "tiles": truth.info.tiles,
        **_summarise(judged, table, truth.targets, contract.class_names),
        "images": len(truth),
        "skipped_images": sum(d.skipped for d in domains),
        "domains": [
            {"data": d.root, "class_map": d.class_map, "skipped_images": d.skipped, **figures.to_plain()}
            for d, figures in zip(domains, by_domain, strict=True)
        ],
    }


def _images(
    dataset: AnnotatedDataset, model: str, contract: ModelContract, split: str, val_fraction: float | None, seed: int | None
) -> list[AnnotatedImage]:
    if split == VAL:
        return validation_images(dataset, model, contract.provenance.get(VALIDATION_KEY), val_fraction, seed)
    return dataset.split(split)


def _write_curves(path: Path, judged: Sequence[Judged], contract: ModelContract) -> None:
    """Plots the precision-recall curve of each class that has objects."""
    curves = {
        contract.display_name(n): precision_recall_curve(one) for n, one in zip(contract.class_names, judged, strict=True)
    }
    with atomic_path(path) as temporary:
        draw_curves({n: c for n, c in curves.items() if c is not None}).savefig(temporary, dpi=110)


class _Summary(TypedDict):
    """COCO's figures; None without objects."""

    map: float | None
    map_50: float | None
    map_75: float | None
    per_class: dict[str, ClassMetrics]


def average_precision_of(
    annotated: Sequence[AnnotatedImage], detections: Sequence[Detections], contract: ModelContract
) -> dict[str, float]:
    """mAP@0.5 and mAP@0.5:0.95 (COCO) of detections in annotated images, 0 to 1; 0 without objects."""
    targets = target_table(annotated, contract.class_names)
    table = from_coco_results(to_coco_results(detections))
    coco = coco_figures(judge(table, targets, len(contract.class_names), max_detections=contract.max_detections))
    return {"mAP@0.5": coco.mean(0) or 0.0, "mAP@0.5:0.95": coco.mean() or 0.0}


def _summarise(
    judged: Sequence[Judged], detections: DetectionTable, targets: TargetTable, class_names: Sequence[str]
) -> _Summary:
    """COCO's figures in plain types, with counts."""
    coco = coco_figures(judged)
    per_class: dict[str, ClassMetrics] = {}
    for label, name in enumerate(class_names):
        own = targets.labels == label
        per_class[name] = {
            "ap": number_or_none(coco.per_class[:, label].mean()),
            "ap_50": number_or_none(coco.per_class[0, label]),
            "recall_50": number_or_none(coco.recall[0, label]),
            "objects": int((own & ~targets.difficult).sum()),
            "difficult": int((own & targets.difficult).sum()),
            "detections": int((detections.labels == label).sum()),
        }
    return {
        "map": coco.mean(),
        "map_50": coco.mean(0),
        "map_75": coco.mean(AT_THREE_QUARTERS),
        "per_class": per_class,
    }
