"""The LightningModule: a network, its loss, its optimizer and its validation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.loading.samples import Batch
from ppe_yolo.data.validation import VALIDATION_KEY
from ppe_yolo.evaluation.metrics.mean_ap import build_metric, summarise, to_metric_predictions, to_metric_targets
from ppe_yolo.inference.checkpoint import AT_RANDOM_KEY, CHECKPOINT_KEY, build_network, describe_network, read_checkpoint
from ppe_yolo.inference.torch_detector import detect_batch
from ppe_yolo.model.coding import BoxCoding, flatten_maps
from ppe_yolo.model.yolov3 import Architecture, YoloV3
from ppe_yolo.training.loss import LossConfig, compute_loss
from ppe_yolo.weights import find_model


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning rate: linear warm-up, then a half cosine (Loshchilov & Hutter 2017).

    Attributes:
        name: The algorithm.
        lr: Learning rate after warm-up.
        final_lr: Learning rate at the end, as a part of `lr`.
        warmup_epochs: Length of the warm-up; may be a fraction.
        weight_decay: Of weights of convolutions alone; biases and batch norms are left free. AdamW takes it apart from the
            gradient; SGD and Adam add it to the gradient and want about a hundredth of it.
        momentum: Of SGD (with Nesterov's look-ahead); AdamW and Adam use it as beta1.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 2e-3
    final_lr: float = 0.01
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    momentum: float = 0.9


class DetectorTask(pl.LightningModule):
    """Trains YOLOv3 and validates it by mean average precision.

    Args:
        architecture: `yolov3` or `yolov3-tiny`.
        class_names: Names of the labels; comes from the class map.
        input_size: (height, width) at which the model will be used; comes from the data.
        anchors_wh: See `YoloV3`; given at `input_size`. When None, those of `weights`, of which the heads speak.
        box_coding: See `coding.decode_cxcywh`.
        loss: Parts of the loss.
        optimizer: Optimizer and learning rate.
        weights: A checkpoint of ours to start from, or a name such as `helmet-tiny`; what does not fit (another number of
            classes) starts at random.
        score_floor: See `ModelContract`.
        nms_iou_threshold: See `ModelContract`.
        max_detections: See `ModelContract`.
        provenance: What to remember in the contract about the data.
    """

    def __init__(
        self,
        architecture: Architecture = "yolov3-tiny",
        class_names: Sequence[str] = ("helmet", "none"),
        input_size: tuple[int, int] = (416, 416),
        anchors_wh: list[tuple[float, float]] | None = None,
        box_coding: BoxCoding = "bounded",
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(),
        weights: str | None = None,
        score_floor: float = 0.01,
        nms_iou_threshold: float = 0.5,
        max_detections: int = 300,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.contract = ModelContract(
            class_names=tuple(class_names),
            input_size=(input_size[0], input_size[1]),
            score_floor=score_floor,
            nms_iou_threshold=nms_iou_threshold,
            max_detections=max_detections,
            provenance=dict(provenance or {}),
        )
        if box_coding == "darknet" and loss.assign.neighbours:
            raise UserError(
                "model.box_coding: with darknet no centre can lie outside of its cell, as model.loss.assign.neighbours asks: "
                "set that to false, or the coding to bounded"
            )
        self.class_names = self.contract.class_names
        self.loss_config = loss
        self.optimizer_config = optimizer
        start = None if weights is None else _read_weights(weights)
        if anchors_wh is None and start is not None and start[0].architecture == architecture:
            anchors_wh = start[0].anchors_wh.reshape(-1, 2).tolist()
        self.network = YoloV3(architecture, len(class_names), anchors_wh, box_coding)
        if start is not None:
            self._start_from(*start, str(weights))
        self.network = self.network.to(memory_format=torch.channels_last)  # a quarter faster on CPUs
        self.val_metric = build_metric(max_detections)
        self.val_result: dict[str, Any] | None = None

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in 0..1 -> raw maps."""
        return self.network(images)

    def on_fit_start(self) -> None:
        """Says what is trained."""
        count = sum(p.numel() for p in self.network.parameters())
        pl.utilities.rank_zero_info(f"network: {self.network.architecture}, {count / 1e6:.1f} M parameters")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        raw_maps = self.network(to_network_input(batch.images))
        terms = compute_loss(
            flatten_maps(raw_maps), self.network.grid(raw_maps), batch.targets, self.network.box_coding, self.loss_config
        )
        size = len(batch.images)
        self.log("train/loss", terms.total, prog_bar=True, batch_size=size)
        self.log_dict(
            {
                "train/loss_box": terms.box,
                "train/loss_objectness": terms.objectness,
                "train/loss_class": terms.classification,
            },
            batch_size=size,
        )
        return terms.total

    def detect_batch(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Images uint8 [B, 3, H, W] -> detections, a picture each, in pixels of the input."""
        return detect_batch(self.network, to_network_input(images), self.contract)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds one batch to the metric; the figure itself is made once, over the whole split."""
        self.val_metric.update(to_metric_predictions(self.detect_batch(batch.images)), to_metric_targets(batch.targets))

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the whole split."""
        result = self.val_metric.compute()
        self.val_metric.reset()
        self.val_result = result
        summary = summarise(result, self.class_names)
        shown = {f"val/{key}": summary[key] for key in ("map_50", "map", "map_75")}
        for name, values in summary["per_class"].items():
            shown[f"val/ap_50_{name}"] = values["ap_50"]
        for key, value in shown.items():
            if value is not None:
                self.log(key, float(value), prog_bar=key == "val/map_50", sync_dist=False, rank_zero_only=False)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """See `OptimizerConfig`."""
        config = self.optimizer_config
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for module in self.network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                (decayed if isinstance(module, nn.Conv2d) and name == "weight" else free).append(parameter)
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
        # a fused step undoes the loss scaling of mixed precision by itself, too late for the clipping of gradients
        fused = not str(self.trainer.precision).endswith("mixed")
        optimizer: torch.optim.Optimizer
        if config.name == "sgd":
            optimizer = torch.optim.SGD(groups, config.lr, config.momentum, nesterov=config.momentum > 0, fused=fused)
        elif config.name == "adamw":
            optimizer = torch.optim.AdamW(groups, config.lr, betas=(config.momentum, 0.999), fused=fused)
        else:
            optimizer = torch.optim.Adam(groups, config.lr, betas=(config.momentum, 0.999), fused=fused)
        self.trainer.fit_loop.setup_data()  # so that the length of an epoch is known
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise UserError(
                "trainer: expected max_epochs or max_steps, got neither: the learning rate needs an end to fall towards"
            )
        total = int(steps)
        warmup = round(config.warmup_epochs * self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, total, warmup, config.final_lr))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the contract and what is needed to build the network, in plain types alone."""
        provenance = {**self.contract.provenance, "epoch": self.current_epoch, "step": self.global_step}
        figure = self.trainer.callback_metrics.get("val/map_50")
        if figure is not None:
            provenance["val_map_50"] = round(float(figure), 6)
        validation = getattr(getattr(self.trainer, "datamodule", None), "validation", None)
        if validation:
            provenance[VALIDATION_KEY] = validation
        checkpoint[CHECKPOINT_KEY] = describe_network(self.network, replace(self.contract, provenance=provenance))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on with a training that was of another model."""
        kept = checkpoint.get(CHECKPOINT_KEY)
        if kept is None:
            raise UserError("ckpt_path: expected a checkpoint written by `ppe-yolo fit`, got one without a model contract")
        before = ModelContract.from_json(kept["contract"])
        for key, was, is_now in (
            ("architecture", kept["architecture"], self.network.architecture),
            ("class_names", before.class_names, self.class_names),
            ("input_size", before.input_size, self.contract.input_size),
            ("box_coding", kept["box_coding"], self.network.box_coding),
            ("anchors_wh", kept["anchors_wh"], self.network.anchors_wh.reshape(-1, 2).tolist()),
        ):
            if was != is_now:
                raise UserError(
                    f"ckpt_path: the checkpoint was trained with {key} {was!r}, now it is {is_now!r}: "
                    "use the same configuration to go on, or --model.weights to start a new training from it"
                )

    def _start_from(self, source: YoloV3, contract: ModelContract, path: str) -> None:
        mine, theirs = self.network.state_dict(), source.state_dict()
        left_out = {"anchors_wh", *contract.provenance.get(AT_RANDOM_KEY, ())}
        fitting = {k: v for k, v in theirs.items() if k in mine and v.shape == mine[k].shape and k not in left_out}
        if len(fitting) < len(mine) // 2:
            raise UserError(
                f"{path}: expected weights of {self.network.architecture}, got {source.architecture}: "
                "choose the recipe of that architecture"
            )
        self.network.load_state_dict(fitting, strict=False)
        fresh = sorted(k for k in mine if k not in fitting and k != "anchors_wh")
        pl.utilities.rank_zero_info(
            f"weights: {len(fitting)} tensors from {path}" + (f"; at random: {', '.join(fresh)}" if fresh else "")
        )
        if "body.heads.0.1.bias" in fitting and contract.class_names != self.class_names:
            pl.utilities.rank_zero_info(
                f"weights: their classes were {', '.join(contract.class_names)}; here they are {', '.join(self.class_names)}: "
                "names start off wrong and are learned anew"
            )
        same_anchors = torch.equal(self.network.anchors_wh, source.anchors_wh)
        if "body.heads.0.1.bias" in fitting and not (same_anchors and source.box_coding == self.network.box_coding):
            # the logits stay what they were and now stand for other boxes; what was learned of looks is worth keeping
            pl.utilities.rank_zero_info(
                f"weights: their heads spoke of boxes by box_coding {source.box_coding} and anchors "
                f"{source.anchors_wh.reshape(-1, 2).tolist()}; here it is {self.network.box_coding} and "
                f"{self.network.anchors_wh.reshape(-1, 2).tolist()}: boxes start off wrong and are learned anew"
            )


def _read_weights(weights: str) -> tuple[YoloV3, ModelContract]:
    path = find_model(weights, "checkpoint")
    return build_network(read_checkpoint(path), path)


def to_network_input(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in 0..1, the channels last in memory; bytes travel to the device, floats are made there."""
    return images.contiguous(memory_format=torch.channels_last).float().div_(255)


def lr_factor(step: int, total: int, warmup: int, final: float) -> float:
    """Part of the full learning rate in a step (from 0): a line up to 1 in `warmup` steps, then a half cosine to `final`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(total - warmup, 1))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
