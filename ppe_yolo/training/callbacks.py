"""Callbacks: averaged weights, one log line per epoch, and figures and images for TensorBoard."""

import math
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from ppe_yolo.core.contract import DEFAULT_SCORE_THRESHOLD
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.drawing import draw_detections, draw_ground_truth, tile_images
from ppe_yolo.data.loading.samples import Batch
from ppe_yolo.evaluation.metrics.coco_ap import RECALLS, PrecisionRecallCurve
from ppe_yolo.evaluation.metrics.mean_ap import precision_recall_curves
from ppe_yolo.evaluation.metrics.plots import draw_curves

GRID_IMAGES, GRID_COLUMNS = 9, 3


class EmaWeights(WeightAveraging):
    """Exponential moving average (EMA) of the weights, used for validation, checkpoints and the final model.

    The decay grows from 0 to `decay` as decay * (1 - exp(-updates / warmup_updates)), so that the random start does
    not weigh on a short training.

    Args:
        decay: Fraction of the average that each step keeps; 0 switches averaging off.
        warmup_updates: Steps until the decay has reached about two thirds of `decay`.
    """

    def __init__(self, decay: float = 0.999, warmup_updates: int = 200) -> None:
        self.decay = decay
        self.warmup_updates = warmup_updates
        super().__init__(multi_avg_fn=self._average)

    def decay_after(self, updates: int) -> float:
        """The decay at an update (from 1)."""
        return self.decay * (1 - math.exp(-updates / self.warmup_updates))

    @torch.no_grad()
    def _average(
        self, averaged: tuple[Tensor, ...] | list[Tensor], current: tuple[Tensor, ...] | list[Tensor], updates: Any
    ) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - self.decay_after(int(updates)))
        else:  # counters of batch norms
            torch._foreach_copy_(averaged, current)


class EpochLines(Callback):
    """Prints one line per epoch, so that a log file shows the progress of a long training."""

    def __init__(self) -> None:
        self._start, self._seconds = 0.0, 0.0
        self._images, self._batches = 0, 0
        self._losses = torch.zeros(())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resets clock and counters."""
        self._start, self._images, self._batches = time.monotonic(), 0, 0
        self._losses = torch.zeros((), device=pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Adds the loss and the images of the batch."""
        self._images += len(batch.images) * trainer.world_size
        self._losses += outputs["loss"].detach() * trainer.accumulate_grad_batches
        self._batches += 1
        self._seconds = time.monotonic() - self._start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the line; Lightning has validated the epoch by then."""
        if not self._batches:
            return
        epoch, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        parts = [f"epoch {epoch} of {total}" if total > 0 else f"epoch {epoch}"]
        parts.append(f"loss {self._losses.item() / self._batches:.3f}")
        map_50 = trainer.callback_metrics.get("val/map_50")
        if map_50 is not None:
            parts.append(f"val mAP@0.5 {100 * float(map_50):.1f} %")
        parts.append(f"{self._images / self._seconds:.1f} images/s")
        if total > epoch:
            parts.append(f"about {(total - epoch) * (time.monotonic() - self._start) / 60:.0f} min left")
        pl_module.print(", ".join(parts))


class PrecisionRecallCurves(Callback):
    """Shows each class's precision-recall curve at IoU 0.5: as a figure, and in TensorBoard's own PR CURVES tab."""

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the curves of the validation that just ended."""
        result = getattr(pl_module, "val_result", None)
        if trainer.sanity_checking or result is None or not isinstance(trainer.logger, TensorBoardLogger):
            return
        writer = trainer.logger.experiment
        curves = precision_recall_curves(result, pl_module.class_names)  # type: ignore[arg-type]
        writer.add_figure("val/precision_recall", draw_curves(curves), trainer.global_step)
        for name, curve in curves.items():
            counts = threshold_counts(curve)
            writer.add_pr_curve_raw(
                f"val/precision_recall_{name}", **counts, global_step=trainer.global_step, num_thresholds=len(RECALLS)
            )


def threshold_counts(curve: PrecisionRecallCurve) -> dict[str, NDArray[np.float64]]:
    """The input of TensorBoard's PR CURVES tab: counts, precision and recall at each threshold [101], from the lowest up.

    The thresholds are the scores at which each of 101 recalls is reached; recalls that are never reached repeat the last
    point. The counts refer to 1,000 objects: the tab draws no point without counts.
    """
    reached = max(int(np.count_nonzero(curve.precision)), 1) - 1
    point = np.minimum(np.arange(len(RECALLS))[::-1], reached)  # high recalls have the low thresholds
    precision, recall = curve.precision[point], RECALLS[point]
    true_positives = 1000 * recall
    return {
        "true_positive_counts": true_positives,
        "false_positive_counts": true_positives * (1 / np.maximum(precision, 1e-3) - 1),
        "true_negative_counts": np.zeros(len(RECALLS)),
        "false_negative_counts": 1000 - true_positives,
        "precision": precision,
        "recall": recall,
    }


class PredictionGrid(Callback):
    """Shows the first `GRID_IMAGES` validation images with annotations (white) and detections (coloured)."""

    def __init__(self) -> None:
        self._drawn: list[Any] = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws images until there are enough."""
        wanted = GRID_IMAGES - len(self._drawn)
        if not trainer.is_global_zero or trainer.sanity_checking or wanted <= 0:
            return
        images = batch.images[:wanted]
        for image, detected, target in zip(images, pl_module.detect_batch(images), batch.targets[:wanted], strict=True):  # type: ignore[operator]
            pixels = image.permute(1, 2, 0).cpu().numpy()
            strong = detected["scores"] >= DEFAULT_SCORE_THRESHOLD
            boxes_xyxy, scores, labels = (detected[k][strong].cpu() for k in ("boxes_xyxy", "scores", "labels"))
            detections = Detections(boxes_xyxy.float().numpy(), scores.float().numpy(), labels.numpy())
            pixels = draw_ground_truth(pixels, target["boxes_xyxy"].cpu().numpy())
            self._drawn.append(draw_detections(pixels, detections, pl_module.contract))  # type: ignore[arg-type]

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the grid to TensorBoard."""
        if self._drawn and isinstance(trainer.logger, TensorBoardLogger):
            cell = self._drawn[0].shape[:2]
            grid = tile_images(self._drawn, GRID_COLUMNS, cell)
            trainer.logger.experiment.add_image("val/predictions", grid, trainer.global_step, dataformats="HWC")
        self._drawn = []
