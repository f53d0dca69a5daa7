"""Averaged weights, and the points of precision-recall curves."""

import math
import types

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from ppe_yolo.evaluation.metrics.coco_ap import PrecisionRecallCurve
from ppe_yolo.training.callbacks import EmaWeights, threshold_counts


def test_ema_decay_grows_with_updates():
    ema = EmaWeights(decay=0.9, warmup_updates=10)
    assert [ema.decay_after(n) for n in (0, 10, 20)] == pytest.approx([0.0, 0.9 * (1 - 1 / math.e), 0.9 * (1 - math.e**-2)])
    assert ema.decay_after(10_000) == pytest.approx(0.9)


class Module(pl.LightningModule):
    """A weight, a batch norm's buffers, and a counter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0]))
        self.register_buffer("running", torch.tensor([0.0]))
        self.register_buffer("count", torch.tensor(0))


def test_ema_after_three_steps_matches_hand_calculation():
    ema = EmaWeights(decay=0.9, warmup_updates=2)
    module = Module()
    ema.setup(None, module, "fit")
    averaged = ema._average_model.module
    weight = running = 0.0
    for step, value in enumerate((1.0, 2.0, 5.0), start=1):
        module.weight.data.fill_(value)
        module.running.fill_(-value)
        module.count.fill_(10 * step)
        ema.on_train_batch_end(types.SimpleNamespace(global_step=step), module, None, None, 0)
        # the first step is copied, since there is no average yet
        kept = 0.9 * (1 - math.exp(-(step - 1) / 2))
        weight, running = kept * weight + (1 - kept) * value, kept * running - (1 - kept) * value
        assert averaged.weight.item() == pytest.approx(weight, rel=1e-5)
        assert averaged.running.item() == pytest.approx(running, rel=1e-5)
        assert averaged.count.item() == 10 * step
    assert 1.0 < weight < 5.0
    assert module.weight.item() == 5.0, "the trained weights are left alone"


def test_ema_ignores_batches_without_optimizer_step():
    ema = EmaWeights()
    module = Module()
    ema.setup(None, module, "fit")
    for value, step in ((1.0, 1), (9.0, 1)):  # gradients accumulate over two batches
        module.weight.data.fill_(value)
        ema.on_train_batch_end(types.SimpleNamespace(global_step=step), module, None, None, 0)
    assert ema._average_model.module.weight.item() == 1.0


def test_threshold_counts_are_points_of_pr_curve():
    precision = np.where(np.arange(101) <= 80, 0.5, 0.0)
    precision[:41] = 1.0
    counts = threshold_counts(PrecisionRecallCurve(precision, np.linspace(0.9, 0.1, 101)))
    assert (np.diff(counts["recall"]) <= 0).all()  # a higher threshold never raises recall
    assert counts["recall"][0] == counts["recall"][20] == 0.8  # recalls above 0.8 are not reached
    assert counts["precision"][0] == 0.5 and counts["precision"][-1] == 1.0
    assert counts["true_positive_counts"][0] == counts["false_positive_counts"][0] == 800
    assert counts["false_negative_counts"][0] == 200
    assert (
        counts["true_positive_counts"][:100] + counts["false_positive_counts"][:100] > 0
    ).all()  # TensorBoard does not draw points without counts
