"""The score from which a detection is an alarm: chosen for each class by a stated rule, on photos held out of training."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppe_yolo.core.errors import UserError
from ppe_yolo.evaluation.metrics.bootstrap import interval, running_sums, total
from ppe_yolo.evaluation.metrics.matching import DetectionTable, Floats, Ints, Outcome, TargetTable

_RULE = re.compile(r"(?:(?P<name>.+?):)?\s*(?P<kind>recall\s*>=|false-alarms\s*<=)\s*(?P<limit>[0-9.eE+-]+)\s*")
PER = 1000  # photos, for which false alarms are counted


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        kind: `recall`: the best precision with at least `limit` of the objects found. `false-alarms`: the best recall with at
            most `limit` false alarms on 1,000 photos.
        limit: The demand.
    """

    kind: Literal["recall", "false-alarms"]
    limit: float

    def __str__(self) -> str:
        return f"recall>={self.limit:g}" if self.kind == "recall" else f"false-alarms<={self.limit:g}"

    def in_words(self) -> str:
        """For people."""
        if self.kind == "recall":
            return f"the best precision with at least {100 * self.limit:g} % of the objects found"
        return f"the most objects found with at most {self.limit:g} false alarms on {PER:,} photos"


DEFAULT_RULE = Rule("recall", 0.9)


@dataclass(frozen=True)
class ClassCounts:
    """One class at IoU 0.5, in falling order of score, without what finds difficult objects.

    Attributes:
        photos: Photo of each detection [D].
        scores: [D].
        hit: Whether it finds an object; otherwise it is a false alarm [D].
        wanted: Photo of each object that is not difficult [N].
    """

    photos: Ints
    scores: Floats
    hit: Any
    wanted: Ints


@dataclass(frozen=True)
class Figures:
    """What a threshold gives; None where it is not defined (no detection, no object)."""

    precision: float | None
    recall: float | None
    false_alarms_per_1000: float
    hits: int
    false_alarms: int
    objects: int
    precision_interval: tuple[float, float] | None = None
    recall_interval: tuple[float, float] | None = None
    false_alarms_per_1000_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Choice:
    """The threshold of one class, or None where no score meets the rule.

    Attributes:
        threshold: From this score on.
        threshold_interval: How it varies when photos are drawn again.
        met_in_samples: Part of the samples in which some score meets the rule.
        nearest: The highest recall, or the fewest false alarms with anything found at all, that any score gives; None where
            nothing is found.
    """

    threshold: float | None
    threshold_interval: tuple[float, float] | None
    met_in_samples: float
    nearest: float | None


def parse_rules(texts: Sequence[str], class_names: Sequence[str]) -> dict[str, Rule]:
    """`recall>=0.9` for all classes, `none:false-alarms<=20` for one; the rule of each class.

    Raises:
        UserError: Not a rule, an unknown class, or two rules for the same.
    """
    given: dict[str | None, Rule] = {}
    for text in texts:
        match = _RULE.fullmatch(text)
        try:
            limit = float(match["limit"]) if match else np.nan
        except ValueError:
            limit = np.nan
        if match is None or not np.isfinite(limit):
            raise UserError(
                f"--rule: expected recall>=0.9 or false-alarms<=20, perhaps with a class before (none:...), got {text!r}"
            )
        kind: Literal["recall", "false-alarms"] = "recall" if match["kind"].startswith("recall") else "false-alarms"
        if limit < 0 or (kind == "recall" and not 0 < limit <= 1):
            raise UserError(
                f"--rule: expected {'a recall above 0 and up to 1' if kind == 'recall' else '0 or more'}, got {text!r}"
            )
        name = match["name"]
        if name is not None and name not in class_names:
            raise UserError(f"--rule: expected one of the classes {', '.join(class_names)}, got {name!r} in {text!r}")
        if name in given:
            raise UserError(
                f"--rule: expected one rule {f'for {name}' if name else 'for all classes'}, got {given[name]} and {text}"
            )
        given[name] = Rule(kind, limit)
    return {name: given.get(name, given.get(None, DEFAULT_RULE)) for name in class_names}


def counts_of(detections: DetectionTable, targets: TargetTable, outcome: Outcome, label: int) -> ClassCounts:
    """One class of a matched split."""
    chosen = (detections.labels == label) & (outcome.hit | outcome.false)
    wanted = targets.photos[(targets.labels == label) & ~targets.difficult]
    return ClassCounts(detections.photos[chosen], detections.scores[chosen], outcome.hit[chosen], wanted)


def figures_at(counts: ClassCounts, threshold: float, photos: int, samples: Ints | None = None) -> Figures:
    """What a threshold gives on a split of `photos`, with intervals where samples (see `draw_again`) are given."""
    strong = counts.scores >= threshold
    hits, false = int(counts.hit[strong].sum()), int((~counts.hit[strong]).sum())
    objects = len(counts.wanted)
    figures = Figures(
        hits / (hits + false) if hits + false else None,
        hits / objects if objects else None,
        PER * false / photos,
        hits,
        false,
        objects,
    )
    if samples is None:
        return figures
    per_photo = [
        np.bincount(p, minlength=photos)
        for p in (counts.photos[strong & counts.hit], counts.photos[strong & ~counts.hit], counts.wanted)
    ]
    h, f, n = (samples @ c for c in per_photo)
    with np.errstate(invalid="ignore"):
        precision, recall = h / (h + f), h / n
    return Figures(
        *(figures.precision, figures.recall, figures.false_alarms_per_1000, hits, false, objects),
        interval(precision),
        interval(recall),
        interval(PER * f / photos),
    )


def choose(rule: Rule, counts: ClassCounts, photos: int, samples: Ints) -> Choice:
    """The threshold that a rule asks for, and how it varies when photos are drawn again."""
    index, nearest = _choose_places(rule, counts, np.ones((1, photos), dtype=np.int64))
    drawn, _ = _choose_places(rule, counts, samples)
    met = drawn[drawn >= 0]
    spread = np.array([_between(counts.scores, i) for i in met.tolist()])
    band = interval(spread) if len(met) > 0.9 * len(samples) else None
    threshold = _between(counts.scores, int(index[0])) if index[0] >= 0 else None
    return Choice(
        threshold,
        band if threshold is not None else None,
        len(met) / len(samples),
        float(nearest[0]) if np.isfinite(nearest[0]) else None,
    )


def _choose_places(rule: Rule, counts: ClassCounts, samples: Ints) -> tuple[Ints, Floats]:
    """The number of the weakest detection to keep in each sample, or -1, and how near one comes to the rule's figure."""
    # detections of one score are kept together; a cut that gains no hit only adds false alarms
    ends = np.nonzero(np.append(counts.scores[1:] != counts.scores[:-1], True)[: len(counts.scores)])[0]
    gains = np.diff(np.cumsum(counts.hit)[ends], prepend=0) > 0
    places = ends[gains]
    if not len(places):
        return np.full(len(samples), -1), np.full(len(samples), 0.0 if rule.kind == "recall" else np.inf)
    hits = running_sums(counts.photos, counts.hit, places, samples)
    false = running_sums(counts.photos, ~counts.hit, places, samples)
    recall = hits / np.maximum(total(counts.wanted, samples), 1.0)
    precision = hits / np.maximum(hits + false, 1.0)
    alarms = np.where(hits > 0, PER * false / samples.sum(axis=1), np.inf)
    if rule.kind == "recall":
        good, nearest = recall >= rule.limit - 1e-12, recall.max(axis=0)
        first, second = precision, recall  # of equal precision the one that finds more
    else:
        good, nearest = alarms <= rule.limit + 1e-9, alarms.min(axis=0)
        first, second = recall, -alarms  # of equal recall the one with fewer false alarms
    first = np.where(good, first, -np.inf)
    second = np.where(first == first.max(axis=0), second, -np.inf)
    return np.where(good.any(axis=0), places[second.argmax(axis=0)], -1), nearest


def _between(scores: Floats, index: int) -> float:
    """A threshold that keeps detections up to `index`: half way to the next score, so that rounding does not move it."""
    weaker = scores[scores < scores[index]]
    return round(float(scores[index] + weaker[0]) / 2, 6) if len(weaker) else float(np.floor(scores[index] * 1e4) / 1e4)


def read_thresholds(path: Path, class_names: Sequence[str], model_hash: str | None = None, tiles: int = 1) -> dict[str, float]:
    """The thresholds in an operating_point.json.

    Args:
        path: Written by `ppe-yolo report` on a validation split.
        class_names: The model's classes.
        model_hash: Of the model that they shall go with, see `training_hash`; not compared when None.
        tiles: How the model will look at photos: in tiles it finds more, and raises more false alarms, at the same score.

    Raises:
        UserError: Not such a file, of other classes or of another model, or without a threshold for a class.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected an operating_point.json of `ppe-yolo report`, cannot be read ({error})") from error
    classes = values.get("classes") if isinstance(values, dict) else None
    if not isinstance(classes, Mapping) or not all(isinstance(v, Mapping) and "threshold" in v for v in classes.values()):
        raise UserError(f"{path}: expected an operating_point.json of `ppe-yolo report`, got JSON of another kind")
    if set(classes) != set(class_names):
        raise UserError(f"{path}: expected thresholds of {', '.join(class_names)}, got those of {', '.join(classes)}")
    if model_hash is not None and values.get("checkpoint_blake2b") not in (None, model_hash):
        raise UserError(
            f"{path}: the thresholds were chosen for another model ({values.get('model')}): evaluate this one on its "
            "validation photos and report again"
        )
    if values.get("tiles", 1) != tiles:
        raise UserError(
            f"{path}: expected thresholds chosen with --tiles {tiles}, got --tiles {values.get('tiles', 1)}: evaluate the "
            f"validation photos with --tiles {tiles} and report again"
        )
    for name, value in classes.items():
        threshold = value["threshold"]
        if threshold is None:
            raise UserError(
                f"{path}: {name} has no threshold, since none meets {value.get('rule')}: report again with another --rule"
            )
        if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0.0 <= threshold <= 1.0:
            raise UserError(f"{path}: {name}: expected a threshold from 0 to 1, got {threshold!r}")
    return {name: float(classes[name]["threshold"]) for name in class_names}
