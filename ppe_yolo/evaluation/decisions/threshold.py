"""The score from which detections of one class are alarms, chosen by a stated rule, and the figures at it."""

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from ppe_yolo.evaluation.decisions.guarantee import guaranteed_thresholds
from ppe_yolo.evaluation.decisions.rules import Rule
from ppe_yolo.evaluation.metrics.bootstrap import interval, running_sums, share_interval, total
from ppe_yolo.evaluation.metrics.domain_figures import PER
from ppe_yolo.evaluation.metrics.matching import DetectionTable, Flags, Floats, Ints, Outcome, TargetTable


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """One class at IoU 0.5, in falling order of score, without detections of difficult objects.

    Attributes:
        images: Image of each detection [D].
        scores: [D].
        hit: Whether it takes an object; otherwise it is a false alarm [D].
        wanted: Image of each object that is not difficult [N].
    """

    images: Ints
    scores: Floats
    hit: Flags
    wanted: Ints


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures at one threshold; None where undefined (no detection, no object)."""

    precision: float | None
    recall: float | None
    false_alarms_per_1000: float
    hits: int
    false_alarms: int
    objects: int
    precision_interval: tuple[float, float] | None = None
    recall_interval: tuple[float, float] | None = None
    false_alarms_per_1000_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The threshold of one class.

    Attributes:
        threshold: Detections with this score or more are alarms; None if no score meets the rule.
        threshold_interval: How it varies over resampled images; None under a rule with a confidence.
        met_in_samples: Share of the samples in which some score meets the rule; None under a rule with a confidence.
        nearest: The highest recall, or the fewest false alarms with any hit, that any score gives; None without hits.
        needed_images: If there are too few images for a rule with a confidence: about how many it takes.
    """

    threshold: float | None
    threshold_interval: tuple[float, float] | None
    met_in_samples: float | None
    nearest: float | None
    needed_images: int | None = None


def counts_of(detections: DetectionTable, targets: TargetTable, outcome: Outcome, label: int) -> ClassCounts:
    """One class of a matched split."""
    chosen = (detections.labels == label) & (outcome.hit | outcome.false)
    return ClassCounts(
        images=detections.images[chosen],
        scores=detections.scores[chosen],
        hit=outcome.hit[chosen],
        wanted=targets.images[(targets.labels == label) & ~targets.difficult],
    )


def figures_at(counts: ClassCounts, threshold: float, images: int, samples: Ints | None = None) -> Figures:
    """Figures at a threshold on a split of this many images, with intervals if there are samples [S, images] of `resample`."""
    alarms = counts.scores >= threshold
    hits, false = int(counts.hit[alarms].sum()), int((~counts.hit[alarms]).sum())
    objects = len(counts.wanted)
    intervals: dict[str, tuple[float, float] | None] = {}
    if samples is not None:
        hit_images, false_images = counts.images[alarms & counts.hit], counts.images[alarms & ~counts.hit]
        # number in each image [images]
        hit, wrong, wanted = (np.bincount(i, minlength=images) for i in (hit_images, false_images, counts.wanted))
        band = interval(samples @ wrong / images) if false else share_interval(wrong, np.ones_like(wrong), samples)
        intervals = {
            "precision_interval": share_interval(hit, hit + wrong, samples),
            "recall_interval": share_interval(hit, wanted, samples),
            "false_alarms_per_1000_interval": None if band is None else (PER * band[0], PER * band[1]),
        }
    return Figures(
        precision=hits / (hits + false) if hits + false else None,
        recall=hits / objects if objects else None,
        false_alarms_per_1000=PER * false / images,
        hits=hits,
        false_alarms=false,
        objects=objects,
        **intervals,
    )


def choose(rule: Rule, counts: ClassCounts, samples: Ints, domain_of: Ints) -> Choice:
    """The threshold that a rule asks for, and how it varies over resampled images.

    Args:
        rule: The rule.
        counts: One class of the split.
        samples: See `resample` [samples, images].
        domain_of: Domain of each image [images]; it matters to `worst-recall`.
    """
    if rule.kind != "worst-recall":
        domain_of = np.zeros_like(domain_of)
    images = len(domain_of)
    index, nearest = _choose_cuts(rule, counts, np.ones((1, images), dtype=np.int64), domain_of)
    best = float(nearest[0]) if np.isfinite(nearest[0]) else None
    if rule.confidence is not None:
        return _choose_guaranteed(rule, rule.confidence, counts, domain_of, best)
    drawn, _ = _choose_cuts(rule, counts, samples, domain_of)
    met = drawn[drawn >= 0]
    spread = np.array([_between(counts.scores, i) for i in met.tolist()])
    band = interval(spread) if len(met) > 0.9 * len(samples) else None
    threshold = _between(counts.scores, int(index[0])) if index[0] >= 0 else None
    return Choice(
        threshold=threshold,
        threshold_interval=band if threshold is not None else None,
        met_in_samples=len(met) / len(samples),
        nearest=best,
    )


def _choose_guaranteed(rule: Rule, confidence: float, counts: ClassCounts, domain_of: Ints, best: float | None) -> Choice:
    """Of the thresholds whose recall is guaranteed, the one with the best precision; of equal ones the lowest."""
    guarantee = guaranteed_thresholds(
        counts.images, counts.scores, counts.hit, counts.wanted, domain_of, rule.limit, confidence
    )
    precisions = [counts.hit[counts.scores >= t].mean() for t in guarantee.thresholds]
    return Choice(
        threshold=float(guarantee.thresholds[int(np.argmax(precisions))]) if precisions else None,
        threshold_interval=None,
        met_in_samples=None,
        nearest=best,
        needed_images=guarantee.needed_images,
    )


def _choose_cuts(rule: Rule, counts: ClassCounts, samples: Ints, domain_of: Ints) -> tuple[Ints, Floats]:
    """Index of the weakest detection to keep in each sample, or -1, and the best value of the rule's figure."""
    # detections of one score are kept together; a cut that gains no hit only adds false alarms
    ends = np.nonzero(np.append(counts.scores[1:] != counts.scores[:-1], True)[: len(counts.scores)])[0]
    gains = np.diff(np.cumsum(counts.hit)[ends], prepend=0) > 0
    cuts = ends[gains]
    if not len(cuts):
        return np.full(len(samples), -1), np.full(len(samples), np.inf if rule.kind == "false-alarms" else 0.0)
    hits = running_sums(counts.images, counts.hit, cuts, samples)
    false = running_sums(counts.images, ~counts.hit, cuts, samples)
    recall = hits / np.maximum(total(counts.wanted, samples), 1.0)
    precision = hits / np.maximum(hits + false, 1.0)
    if rule.kind == "false-alarms":
        alarms = np.where(hits > 0, PER * false / samples.sum(axis=1), np.inf)
        good, nearest = alarms <= rule.limit + 1e-9, alarms.min(axis=0)
        first, second = recall, -alarms  # of equal recall the one with fewer false alarms
    elif rule.kind == "recall" or rule.kind == "worst-recall":
        limited = _worst_recall(counts, cuts, samples, domain_of) if rule.kind == "worst-recall" else recall
        good, nearest = limited >= rule.limit - 1e-12, limited.max(axis=0)
        first, second = precision, recall  # of equal precision the one with more hits
    else:
        assert_never(rule.kind)
    first = np.where(good, first, -np.inf)
    second = np.where(first == first.max(axis=0), second, -np.inf)
    return np.where(good.any(axis=0), cuts[second.argmax(axis=0)], -1), nearest


def _worst_recall(counts: ClassCounts, cuts: Ints, samples: Ints, domain_of: Ints) -> Floats:
    """Recall at each cut in the worst domain that has objects in the sample: [cuts, samples]."""
    worst = np.full((len(cuts), len(samples)), np.inf)
    for domain in np.unique(domain_of[counts.wanted]):
        own = samples * (domain_of == domain)
        objects = total(counts.wanted, own)
        recall = running_sums(counts.images, counts.hit, cuts, own) / np.maximum(objects, 1.0)
        worst = np.where(objects > 0, np.minimum(worst, recall), worst)
    return np.where(np.isfinite(worst), worst, 0.0)


def _between(scores: Floats, index: int) -> float:
    """A threshold that keeps detections up to `index`: halfway to the next score, so that rounding changes nothing."""
    weaker = scores[scores < scores[index]]
    return round(float(scores[index] + weaker[0]) / 2, 6) if len(weaker) else float(np.floor(scores[index] * 1e4) / 1e4)
