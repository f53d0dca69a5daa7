"""How the scores of detections are distributed, and how far two distributions are from each other."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LOWEST = 0.1  # weaker detections are mostly background, and depend on the scene more than on the model
BINS = 9  # of 0.1 each, up to 1


def score_histogram(scores: NDArray[np.floating]) -> tuple[int, ...]:
    """Returns how many scores [N] lie in each of the `BINS` intervals from `LOWEST` to 1; scores below are left out."""
    counts, _ = np.histogram(np.asarray(scores, dtype=np.float64), bins=np.linspace(LOWEST, 1.0, BINS + 1))
    return tuple(int(count) for count in counts)


def population_stability_index(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Returns the population stability index of two histograms: the sum of (a - e) * ln(a / e) over the shares a and e.

    By the usual convention, below 0.1 nothing has changed, from 0.25 on the distributions differ (Siddiqi 2006, "Credit risk
    scorecards", chapter 8). Half a count is added to each interval, so that empty ones give no infinity.

    Args:
        expected: Counts of the reference [BINS].
        actual: Counts to compare with it [BINS].
    """
    e, a = (np.asarray(counts, dtype=np.float64) + 0.5 for counts in (expected, actual))
    e, a = e / e.sum(), a / a.sum()
    return float(((a - e) * np.log(a / e)).sum())
