"""The alarm thresholds of all classes: chosen by rules on images held out of training, or given."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ppe_yolo.core.contract import DEFAULT_SCORE_THRESHOLD
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.score_histogram import score_histogram
from ppe_yolo.data.held_out import VAL
from ppe_yolo.evaluation.decisions.rules import Rule, parse_rules
from ppe_yolo.evaluation.decisions.threshold import Choice, ClassCounts, Figures, choose, counts_of, figures_at
from ppe_yolo.evaluation.files.operating_point import ClassPoint, OperatingPointFile
from ppe_yolo.evaluation.ground_truth import GroundTruth
from ppe_yolo.evaluation.metrics.bootstrap import LEVEL, RESAMPLES, SEED, resample
from ppe_yolo.evaluation.metrics.matching import DetectionTable, Outcome


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """The thresholds of a split, and what follows from them.

    Attributes:
        thresholds: Class name -> score.
        origin: Where they come from, in words.
        counts: The detections and objects of each class.
        figures: Figures at the threshold of each class.
        rules: Class name -> rule; empty if the thresholds were not chosen on this split.
        choices: Class name -> choice; empty if the thresholds were not chosen on this split.
    """

    thresholds: dict[str, float]
    origin: str
    counts: tuple[ClassCounts, ...]
    figures: tuple[Figures, ...]
    rules: Mapping[str, Rule]
    choices: Mapping[str, Choice]


def decide(
    truth: GroundTruth,
    detections: DetectionTable,
    outcome: Outcome,
    *,
    rules: Sequence[str] = (),
    given: Mapping[str, float] | None = None,
    origin: str = "",
) -> OperatingPoint:
    """The thresholds of a split.

    Given thresholds are used as they are. Otherwise `rules`, or the default rule, choose them on validation images. On other
    images, and for a class whose rule no score meets, the threshold of the original system applies.

    Args:
        truth: The split.
        detections: The detections.
        outcome: The detections matched with the objects.
        rules: How to choose thresholds, see `parse_rules`; on validation images only.
        given: Class name -> score, instead of choosing them.
        origin: Where these come from, in words.

    Raises:
        UserError: A rule cannot be read, or thresholds would be chosen on images that are not for that.
    """
    names, split = truth.class_names, truth.info.split
    if rules and split != VAL:
        raise UserError(
            f"thresholds are chosen on validation images alone, got --split {split}",
            setting="rule",
            hint="report on --split val, then pass its operating_point.json with --operating-point",
        )
    if rules and given is not None:
        raise UserError("choose thresholds by a rule or pass them with --operating-point, not both", setting="rule")
    chosen_by = parse_rules(rules, names) if split == VAL and given is None else {}
    if chosen_by:
        origin = "chosen on these validation images"
    elif given is None:
        origin = f"{DEFAULT_SCORE_THRESHOLD:g}, as in the original system: the model file has none"
    samples, domain_of = resample(len(truth)), truth.domain_of
    counts = {name: counts_of(detections, truth.targets, outcome, label) for label, name in enumerate(names)}
    choices = {name: choose(rule, counts[name], samples, domain_of) for name, rule in chosen_by.items()}
    chosen = {name: choice.threshold for name, choice in choices.items() if choice.threshold is not None}
    thresholds = {**(given or dict.fromkeys(names, DEFAULT_SCORE_THRESHOLD)), **chosen}
    return OperatingPoint(
        thresholds=thresholds,
        origin=origin,
        counts=tuple(counts.values()),
        figures=tuple(figures_at(one, thresholds[name], len(truth), samples) for name, one in counts.items()),
        rules=chosen_by,
        choices=choices,
    )


def operating_point_to_plain(
    truth: GroundTruth, detections: DetectionTable, data: str, point: OperatingPoint
) -> OperatingPointFile:
    """The content of operating_point.json.

    Args:
        truth: The split.
        detections: The detections.
        data: Its data sets.
        point: Thresholds that were chosen on it.
    """
    info = truth.info
    classes: dict[str, ClassPoint] = {}
    for name, figures in zip(truth.class_names, point.figures, strict=True):
        rule, choice = point.rules[name], point.choices[name]
        values: ClassPoint = {
            "rule": str(rule),
            "threshold": choice.threshold,
            "threshold_interval": choice.threshold_interval,
            "rule_met_in_samples": choice.met_in_samples,
            "nearest_to_rule": choice.nearest,
        }
        if rule.confidence is not None:
            values["needed_images"] = choice.needed_images
        if choice.threshold is not None:
            values |= asdict(figures)  # type: ignore[typeddict-item]
        classes[name] = values
    return {
        "model": info.model,
        "checkpoint_blake2b": info.checkpoint_blake2b,
        "data": data,
        "split": info.split,
        "tiles": info.tiles,
        "input_size": None if info.input_size is None else list(info.input_size),
        "images": len(truth),
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "level": LEVEL},
        "score_histogram": list(score_histogram(detections.scores)),
        "classes": classes,
    }
