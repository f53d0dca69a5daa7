"""Thresholds whose recall holds on new images with a stated confidence: Learn-then-Test over images.

A threshold with a recall of 0.9 on the validation images misses 0.9 on new images about half of the time. Learn then Test
(Angelopoulos et al. 2021) instead tests, for each threshold of a fixed grid, the hypothesis "recall is below 0.9".
Fixed-sequence testing starts at the lowest threshold, where recall is highest, and stops at the first hypothesis that is not
rejected, so the chance that any accepted threshold has too low a recall is at most 1 - confidence.

The unit is the image, since the heads of one image are detected or missed together. The p-value is that of the betting test of
Waudby-Smith and Ramdas (2023, section 4): valid for any number of images and any dependence within an image, provided that
images are independent draws of one kind. It needs a bound per image: an image counts with at most `MOST_OBJECTS` objects, so
that no crowd decides alone; an image with more keeps its share of detected objects, at that weight.
"""

from dataclasses import dataclass

import numpy as np

from ppe_yolo.evaluation.metrics.matching import Flags, Floats, Ints

MOST_OBJECTS = 20  # an image counts with at most this many objects of a class
GRID = np.arange(1, 200) / 200  # thresholds to test: chosen before any score is seen, as the guarantee requires
_BOLDEST = 0.95  # largest share of the wealth that one image may lose
_SEED = 0  # order of the images


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """Outcome of the tests.

    Attributes:
        thresholds: The accepted thresholds, rising; empty if none is.
        needed_images: If none is accepted: about how many images like these it takes for the lowest threshold; None if
            no number would do, because recall is too low at every score.
    """

    thresholds: Floats
    needed_images: int | None = None


def guaranteed_thresholds(
    images: Ints, scores: Floats, hit: Flags, wanted: Ints, domain_of: Ints, limit: float, confidence: float
) -> Guarantee:
    """The thresholds with a recall of at least `limit` in every domain that has objects, at the given confidence.

    Args:
        images: Image of each detection [D].
        scores: [D].
        hit: Whether each detection takes an object [D].
        wanted: Image of each object [N].
        domain_of: Domain of each image [images]. One for all: the guarantee is for the images as a whole.
        limit: The recall.
        confidence: Probability that the recall of every accepted threshold is at least `limit`.
    """
    objects = np.bincount(wanted, minlength=len(domain_of)).astype(np.float64)
    weight = np.minimum(1.0, MOST_OBJECTS / np.maximum(objects, 1.0))
    hits = np.zeros((len(GRID) + 1, len(domain_of)))
    np.add.at(hits, (np.searchsorted(GRID, scores[hit], "right"), images[hit]), 1.0)
    hits = hits[::-1].cumsum(axis=0)[::-1][1:]  # [T, images]: objects detected from each threshold on
    # at least -1; its mean is above 0 exactly where recall is above the limit
    gains = weight * (hits - limit * objects) / (limit * MOST_OBJECTS)
    order = np.random.default_rng(_SEED).permutation(len(domain_of))
    alpha = 1.0 - confidence
    # every domain has to reject: the largest of valid p-values is valid for "recall is too low in some domain"
    shares = [order[domain_of[order] == d] for d in np.unique(domain_of[wanted])]
    if not shares:
        return Guarantee(thresholds=GRID[:0])
    p_values = np.max([betting_p_values(gains[:, share], alpha) for share in shares], axis=0)
    accepted = np.logical_and.accumulate(p_values <= alpha + 1e-12)
    if accepted.any():
        return Guarantee(thresholds=GRID[accepted])
    needed = [_needed(gains[0, share], alpha) * len(domain_of) / len(share) for share in shares]
    return Guarantee(thresholds=GRID[:0], needed_images=int(np.ceil(max(needed))) if np.isfinite(max(needed)) else None)


def betting_p_values(gains: Floats, alpha: float) -> Floats:
    """p-values of "the mean is at most 0", for each row of values from -1 on: [T, images] -> [T].

    A gambler bets on a positive mean, each time with a stake that follows from earlier images alone. Were the hypothesis true,
    the wealth would reach 1 / alpha with a probability of at most alpha (Ville's inequality).
    """
    count = np.arange(1, gains.shape[1] + 1)
    mean = np.cumsum(gains, axis=1) / (count + 1)
    variance = (0.25 + np.cumsum((gains - mean) ** 2, axis=1)) / (count + 1)
    earlier = np.concatenate((np.full((len(gains), 1), 0.25), variance[:, :-1]), axis=1)
    stakes = np.minimum(_BOLDEST, np.sqrt(2 * np.log(1 / alpha) / (gains.shape[1] * earlier)))
    wealth = np.cumsum(np.log1p(stakes * gains), axis=1).max(axis=1)
    return np.asarray(np.exp(-np.maximum(wealth, 0.0)))


def _needed(gains: Floats, alpha: float) -> float:
    """About how many images like these reject the hypothesis; infinite if their mean is not above 0."""
    mean, square = float(gains.mean()), float((gains**2).mean())
    if mean <= 0:
        return np.inf
    stake = min(_BOLDEST, mean / square)
    return float(np.log(1 / alpha) / np.log1p(stake * gains).mean())
