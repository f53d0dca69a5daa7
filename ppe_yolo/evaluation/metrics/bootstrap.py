"""Sampling uncertainty of a figure: intervals from images resampled with replacement (Efron 1979). Seeded; no torch."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.sparse import coo_array

from ppe_yolo.evaluation.metrics.coco_ap import RECALLS, Judged
from ppe_yolo.evaluation.metrics.matching import Flags, Floats, Ints

SEED = 0
RESAMPLES = 1000
LEVEL = 0.95
_BLOCK = 100  # samples per step, to limit memory


def resample(images: int, resamples: int = RESAMPLES, seed: int = SEED) -> Ints:
    """How often each image occurs in each sample: [resamples, images]."""
    drawn = np.random.default_rng(seed).integers(0, images, (resamples, images))
    return np.stack([np.bincount(row, minlength=images) for row in drawn])


def interval(values: Floats) -> tuple[float, float] | None:
    """The central 95 % of the values [samples]; None if a tenth of them or more are undefined (NaN)."""
    defined = values[~np.isnan(values)]
    if len(defined) <= 0.9 * len(values):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def share_interval(parts: Ints, wholes: Ints, samples: Ints) -> tuple[float, float] | None:
    """The central 95 % of a share, such as recall, from counts per image.

    If the share is 0 or 1, it is the same in every sample, as if it were certain. The interval is then the exact one (Clopper
    and Pearson 1934) of as many trials as there are images with any, since the heads of an image are detected or missed
    together.

    Args:
        parts: Number of successes in each image [images].
        wholes: Number of trials in each image [images].
        samples: See `resample`.
    """
    with np.errstate(invalid="ignore"):
        band = interval((samples @ parts) / (samples @ wholes))
    if band is None:
        return None
    edge = float(((1 - LEVEL) / 2) ** (1 / np.count_nonzero(wholes)))
    if parts.sum() == wholes.sum():
        return edge, 1.0
    return band if parts.any() else (0.0, 1 - edge)


def running_sums(images: Ints, flags: Flags, cuts: Ints, samples: Ints) -> Floats:
    """Number of flagged detections up to and including each cut, in each sample: [cuts, samples].

    Args:
        images: Image of each detection [D].
        flags: What to count [D].
        cuts: Indices of detections, rising.
        samples: See `resample`.
    """
    flagged = np.nonzero(flags)[0]
    step = np.searchsorted(cuts, flagged, "left")
    within = step < len(cuts)
    ones = np.ones(int(within.sum()))
    steps = coo_array((ones, (step[within], images[flagged[within]])), shape=(len(cuts), samples.shape[1])).tocsr()
    return np.asarray(np.cumsum(steps @ samples.T.astype(np.float64), axis=0))


def total(images: Ints, samples: Ints) -> Floats:
    """Number of items in each sample, from the image of each item: [N] -> [samples]."""
    return np.asarray(samples @ np.bincount(images, minlength=samples.shape[1]), dtype=np.float64)


def resampled_map(judged: Sequence[Judged], samples: Ints, protocol: Literal["coco", "voc"]) -> Floats:
    """Mean average precision in each sample, over the classes that have objects there and the judged IoU thresholds.

    An image that was drawn twice counts each of its detections and objects twice; the matching stays the same.

    Args:
        judged: One entry per class.
        samples: See `resample`.
        protocol: `coco`: mean precision at 101 recalls. `voc`: area under the curve.

    Returns:
        [samples]; NaN where no class has an object.
    """
    values = np.array([_average_precision(one, samples, protocol) for one in judged])  # [C, samples]
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.where(defined, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _average_precision(one: Judged, samples: Ints, protocol: Literal["coco", "voc"]) -> Floats:
    blocks = np.array_split(samples, max(1, len(samples) // _BLOCK))
    return np.concatenate([_of_block(one, block, protocol) for block in blocks])


def _of_block(one: Judged, samples: Ints, protocol: Literal["coco", "voc"]) -> Floats:
    objects = total(one.wanted, samples)
    area = np.zeros(len(samples))
    for hit, false in zip(one.hit, one.false, strict=True):
        cuts = np.nonzero(hit)[0]  # between two hits precision only falls, so only hits matter
        if not len(cuts):
            continue
        gained = samples[:, one.images[cuts]].T.astype(np.float64)
        hits = np.cumsum(gained, axis=0)
        precision = hits / np.maximum(hits + running_sums(one.images, false, cuts, samples), 1.0)
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        if protocol == "coco":  # how many of the 101 recalls each hit is the first to reach
            last = len(RECALLS) - 1
            reached = np.floor(last * hits / np.maximum(objects, 1.0) + 1e-9) + 1
            area += (envelope * np.diff(reached, axis=0, prepend=0.0)).sum(axis=0) / len(RECALLS)
        else:
            area += (envelope * gained).sum(axis=0) / np.maximum(objects, 1.0)
    return np.where(objects > 0, area / len(one.hit), np.nan)
