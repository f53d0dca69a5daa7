"""The LightningModule: a network, its loss, its optimizer and its validation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, assert_never

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.held_out import VALIDATION_KEY
from ppe_yolo.data.loading.samples import Batch
from ppe_yolo.evaluation.metrics.mean_ap import build_metric, summarise, to_metric_predictions, to_metric_targets
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, describe_network
from ppe_yolo.inference.torch_detector import detect_batch
from ppe_yolo.model.names import Architecture, BoxCoding
from ppe_yolo.model.yolov3 import YoloV3
from ppe_yolo.training.loss import LossConfig, compute_loss
from ppe_yolo.training.transfer import load_pretrained, transfer_weights


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer and learning rate: linear warm-up, then a half cosine (Loshchilov & Hutter 2017).

    Attributes:
        name: The algorithm.
        lr: Learning rate after the warm-up.
        final_lr: Learning rate at the end, as a fraction of `lr`.
        warmup_epochs: Length of the warm-up in epochs; may be a fraction.
        weight_decay: Applied to the weights of convolutions only, not to biases and batch norms. AdamW decouples it from the
            gradient; SGD and Adam add it to the gradient and need about a hundredth of it.
        momentum: Of SGD (with Nesterov momentum); AdamW and Adam use it as beta1.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 2e-3
    final_lr: float = 0.01
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    momentum: float = 0.9


class DetectorTask(pl.LightningModule):
    """Trains YOLOv3 and validates it by mean average precision.

    `DetectorTask.load_from_checkpoint(path)` restores a task without further arguments.

    Args:
        architecture: `yolov3`, `yolov3-small` or `yolov3-tiny`.
        class_names: Names of the labels; linked to the class map.
        display_names: Class name -> the name that people read; linked to the class map.
        input_size: (height, width) at which the model will be used; linked to the data.
        anchors_wh: See `YoloV3`, in pixels at `input_size`. None: those of `weights`, or the architecture's own.
        box_coding: See `coding.decode_cxcywh`.
        loss: Settings of the loss. A mapping of its fields is accepted too, since a checkpoint stores one.
        optimizer: Optimizer and learning rate. A mapping of its fields is accepted too.
        weights: A checkpoint written by ppe-yolo to start from, or a bundled model such as `helmet-small`. Tensors that do not
            fit, such as heads of other classes, start at random.
        score_floor: See `ModelContract`.
        nms_iou_threshold: See `ModelContract`.
        max_detections: See `ModelContract`.
        provenance: Facts about the data for the contract, in plain types.

    Raises:
        UserError: Settings that contradict each other.
    """

    def __init__(
        self,
        architecture: Architecture = "yolov3-tiny",
        class_names: Sequence[str] = ("helmet", "none"),
        display_names: Mapping[str, str] | None = None,
        input_size: tuple[int, int] = (416, 416),
        anchors_wh: list[tuple[float, float]] | None = None,
        box_coding: BoxCoding = "bounded",
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(),
        weights: str | None = None,
        score_floor: float = ModelContract.score_floor,
        nms_iou_threshold: float = ModelContract.nms_iou_threshold,
        max_detections: int = ModelContract.max_detections,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.contract = ModelContract(
            class_names=tuple(class_names),
            display_names=dict(display_names or {}),
            input_size=(input_size[0], input_size[1]),
            score_floor=score_floor,
            nms_iou_threshold=nms_iou_threshold,
            max_detections=max_detections,
            provenance=dict(provenance or {}),
        )
        self.loss_config = loss if isinstance(loss, LossConfig) else LossConfig.from_plain(loss)
        self.optimizer_config = optimizer if isinstance(optimizer, OptimizerConfig) else OptimizerConfig(**optimizer)
        if box_coding == "darknet" and self.loss_config.assign.neighbours:
            raise UserError(
                setting="box_coding",
                problem="darknet cannot express a centre outside its own cell, which loss.assign.neighbours needs",
                hint="set loss.assign.neighbours to false, or box_coding to bounded",
            )
        self.class_names = self.contract.class_names
        self.network = YoloV3(architecture, len(class_names), anchors_wh, box_coding)
        self.network = self.network.to(memory_format=torch.channels_last)  # a quarter faster on CPUs
        self.val_metric = build_metric(max_detections)
        self.val_result: dict[str, Any] | None = None
        self._pretrained = weights
        self.pretrained_provenance: Mapping[str, Any] = {}  # of `weights`
        self._keep_anchors = anchors_wh is not None
        # plain types only: torch.load(weights_only=True) must read them
        self.save_hyperparameters(
            {
                "architecture": architecture,
                "class_names": list(class_names),
                "display_names": dict(self.contract.display_names),
                "input_size": list(input_size),
                "anchors_wh": self.network.anchors_wh.reshape(-1, 2).tolist(),
                "box_coding": box_coding,
                "loss": asdict(self.loss_config),
                "optimizer": asdict(self.optimizer_config),
                "weights": weights,
                "score_floor": score_floor,
                "nms_iou_threshold": nms_iou_threshold,
                "max_detections": max_detections,
                "provenance": dict(self.contract.provenance),
            },
            logger=False,  # config.yaml and MLflow have all settings already
        )

    def configure_model(self) -> None:
        """Transfers the weights of `weights`, once; a checkpoint of this task no longer needs that file.

        Raises:
            UserError: See `load_pretrained` and `transfer_weights`.
        """
        if self._pretrained is None:
            return
        source = load_pretrained(self._pretrained)
        self.pretrained_provenance = source.contract.provenance
        for line in transfer_weights(self.network, source, class_names=self.class_names, keep_anchors=self._keep_anchors):
            rank_zero_info(line)
        self._pretrained = None
        self.hparams["weights"] = None
        self.hparams["anchors_wh"] = self.network.anchors_wh.reshape(-1, 2).tolist()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in 0..1 -> raw maps."""
        return self.network(images)

    def on_fit_start(self) -> None:
        """Logs the size of the network."""
        count = sum(p.numel() for p in self.network.parameters())
        rank_zero_info(f"network: {self.network.architecture}, {count / 1e6:.1f} M parameters")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, a scalar; logs its terms."""
        logits, grid = self.network.logits(to_network_input(batch.images))
        terms = compute_loss(logits, grid, batch.targets, self.network.box_coding, self.loss_config)
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
        """Images uint8 [B, 3, H, W] -> one dictionary of detections per image, boxes in pixels of the input."""
        return detect_batch(self.network, to_network_input(images), self.contract)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds one batch to the metric, which is computed once over the whole split."""
        self.val_metric.update(to_metric_predictions(self.detect_batch(batch.images)), to_metric_targets(batch.targets))

    def on_validation_epoch_end(self) -> None:
        """Logs the average precision of the whole split."""
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
        """See `OptimizerConfig`.

        Raises:
            UserError: The training has no end, so the learning-rate schedule has no length.
        """
        config = self.optimizer_config
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for module in self.network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                (decayed if isinstance(module, nn.Conv2d) and name == "weight" else others).append(parameter)
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        # a fused step undoes the loss scaling of mixed precision itself, too late for gradient clipping
        fused = not str(self.trainer.precision).endswith("mixed")
        optimizer: torch.optim.Optimizer
        if config.name == "sgd":
            optimizer = torch.optim.SGD(groups, config.lr, config.momentum, nesterov=config.momentum > 0, fused=fused)
        elif config.name == "adamw":
            optimizer = torch.optim.AdamW(groups, config.lr, betas=(config.momentum, 0.999), fused=fused)
        elif config.name == "adam":
            optimizer = torch.optim.Adam(groups, config.lr, betas=(config.momentum, 0.999), fused=fused)
        else:
            assert_never(config.name)
        self.trainer.fit_loop.setup_data()  # the length of an epoch is known only afterwards
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise UserError(
                setting="trainer.max_epochs",
                expected="max_epochs or max_steps",
                got="neither",
                hint="the learning rate schedule needs an end",
            )
        total = int(steps)
        warmup = round(config.warmup_epochs * self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, total, warmup, config.final_lr))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the contract and what is needed to build the network, in plain types."""
        provenance = {**self.contract.provenance, "epoch": self.current_epoch, "step": self.global_step}
        figure = self.trainer.callback_metrics.get("val/map_50")
        if figure is not None:
            provenance["val_map_50"] = round(float(figure), 6)
        validation = getattr(getattr(self.trainer, "datamodule", None), "validation", None)
        if validation:
            provenance[VALIDATION_KEY] = validation
        checkpoint[CHECKPOINT_KEY] = describe_network(self.network, replace(self.contract, provenance=provenance))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to resume the training of another model.

        Raises:
            UserError: Not a checkpoint of ppe-yolo, or one that was trained with another model configuration.
        """
        kept = checkpoint.get(CHECKPOINT_KEY)
        if kept is None:
            raise UserError(
                setting="ckpt_path", expected="a checkpoint written by `ppe-yolo fit`", got="one without a model contract"
            )
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
                    setting="ckpt_path",
                    problem=f"the checkpoint was trained with {key} {was!r}, now it is {is_now!r}",
                    hint="use the same configuration to resume, or --model.weights to start a new training from it",
                )


def to_network_input(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in 0..1, channels last in memory; runs on the device, so that only bytes are sent there."""
    return images.contiguous(memory_format=torch.channels_last).float().div_(255)


def lr_factor(step: int, total: int, warmup: int, final: float) -> float:
    """Fraction of the learning rate at a step (from 0): linear up to 1 in `warmup` steps, then a half cosine to `final`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(total - warmup, 1))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
