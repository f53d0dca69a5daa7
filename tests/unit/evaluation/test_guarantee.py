"""The guaranteed recall, checked by simulation: how often a chosen threshold misses its promise on all images of a kind."""

import numpy as np
import pytest

from ppe_yolo.evaluation.decisions.guarantee import MOST_OBJECTS, betting_p_values, guaranteed_thresholds
from ppe_yolo.evaluation.decisions.rules import Rule
from ppe_yolo.evaluation.decisions.threshold import ClassCounts, choose
from ppe_yolo.evaluation.metrics.bootstrap import resample

LIMIT, CONFIDENCE = 0.8, 0.95
DRAWS = 300
# the largest number of failures in DRAWS at a true rate of 5 %, three standard deviations above the mean
ALLOWED = 0.05 + 3 * (0.05 * 0.95 / DRAWS) ** 0.5


def draw(rng, images):
    """Images of one kind. Dark images (low u) have more heads, and all of them get lower scores."""
    u = rng.normal(0, 1, images)
    objects = 1 + rng.poisson(np.exp(1.0 - 0.4 * u)).clip(max=MOST_OBJECTS - 1)
    image = np.repeat(np.arange(images), objects)
    scores = 1 / (1 + np.exp(-(2.2 + 1.2 * u[image] + rng.normal(0, 1, len(image)))))
    return image, scores


def counts_of_draw(image, scores):
    """Every head is detected, with its score, so recall at a threshold is the share of scores from there on.

    False alarms have low scores: precision rises with the threshold, so a rule takes the highest threshold that it may.
    """
    false = np.linspace(0, 1, 500) ** 3
    every = np.concatenate((scores, false))
    order = np.argsort(-every)
    return ClassCounts(
        images=np.concatenate((image, np.zeros(len(false), dtype=int)))[order],
        scores=every[order],
        hit=(np.arange(len(every)) < len(scores))[order],
        wanted=image,
    )


@pytest.fixture(scope="module")
def population():
    return np.sort(draw(np.random.default_rng(0), 400_000)[1])


def true_recall(population, threshold):
    return 1 - np.searchsorted(population, threshold) / len(population)


@pytest.mark.parametrize("images", [100, 300])
def test_guaranteed_recall_holds_in_simulated_draws_and_point_estimate_fails(population, images):
    failures = {"guarantee": 0, "point estimate": 0}
    chosen, samples, domain_of = [], resample(images, 2), np.zeros(images, dtype=int)
    for seed in range(DRAWS):
        counts = counts_of_draw(*draw(np.random.default_rng([images, seed]), images))
        sure = choose(Rule("recall", LIMIT, CONFIDENCE), counts, samples, domain_of).threshold
        if sure is not None:
            chosen.append(true_recall(population, sure))
            failures["guarantee"] += chosen[-1] < LIMIT
        plain = choose(Rule("recall", LIMIT), counts, samples, domain_of).threshold
        failures["point estimate"] += true_recall(population, plain) < LIMIT
    assert failures["guarantee"] / DRAWS <= ALLOWED
    assert failures["point estimate"] / DRAWS > 0.35
    # the promise is not bought with uselessly low thresholds
    if images == 300:
        assert len(chosen) == DRAWS and np.mean(chosen) < LIMIT + 0.08
    print(f"{images} images: {failures} of {DRAWS} draws below the promised recall, mean recall {np.mean(chosen):.3f}")


def test_betting_p_values_are_valid_at_boundary():
    """Rare heavy losses: a test that relied on normality would reject far too often."""
    rng = np.random.default_rng(3)
    gains = np.where(rng.random((2000, 150)) < 0.02, -0.98, 0.02)  # mean 0
    rejected = (betting_p_values(gains, 0.05) <= 0.05).mean()
    assert rejected <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    normal = gains.mean(axis=1) / np.maximum(gains.std(axis=1), 1e-9) * 150**0.5
    assert (normal > 1.645).mean() > 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_too_few_images_yield_no_threshold_but_number_of_needed_ones():
    rng = np.random.default_rng(1)
    few = counts_of_draw(*draw(rng, 20))
    choice = choose(Rule("recall", LIMIT, CONFIDENCE), few, resample(20, 2), np.zeros(20, dtype=int))
    assert choice.threshold is None and choice.met_in_samples is None
    assert 30 < choice.needed_images < 200
    # about that many are enough
    images = round(1.3 * choice.needed_images)
    more = counts_of_draw(*draw(rng, images))
    assert choose(Rule("recall", LIMIT, CONFIDENCE), more, resample(images, 2), np.zeros(images, dtype=int)).threshold


def test_recall_too_low_at_every_score_needs_no_more_images():
    image, scores = draw(np.random.default_rng(2), 200)
    seen = np.random.default_rng(4).random(len(image)) < 0.6
    result = guaranteed_thresholds(
        image[seen], scores[seen], np.ones(seen.sum(), bool), image, np.zeros(200, dtype=int), LIMIT, CONFIDENCE
    )
    assert not len(result.thresholds) and result.needed_images is None


def test_guarantee_in_every_domain_is_set_by_the_hardest_domain():
    image, scores = draw(np.random.default_rng(5), 600)
    domain_of = np.arange(600) % 2
    harder = np.where(domain_of[image] == 1, scores * 0.6, scores)
    counts = counts_of_draw(image, harder)
    pooled = choose(Rule("recall", LIMIT, CONFIDENCE), counts, resample(600, 2), domain_of).threshold
    worst = choose(Rule("worst-recall", LIMIT, CONFIDENCE), counts, resample(600, 2), domain_of).threshold
    hard = counts_of_draw(image[domain_of[image] == 1], harder[domain_of[image] == 1])
    alone = guaranteed_thresholds(hard.images, hard.scores, hard.hit, hard.wanted, domain_of, LIMIT, CONFIDENCE)
    assert worst < pooled
    assert worst == alone.thresholds[-1]
