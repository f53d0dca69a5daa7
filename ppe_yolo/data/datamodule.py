"""The data of a training: checked, divided, and served in batches."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import cv2
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch.utils.data import DataLoader, DistributedSampler

from ppe_yolo.contract import STRIDE
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.audit import AuditReport, audit
from ppe_yolo.data.augment import AugmentConfig
from ppe_yolo.data.class_map import ClassMap, load_class_map
from ppe_yolo.data.dataset import EvaluationDataset, Sample, TrainingBatchSampler, TrainingDataset, collate
from ppe_yolo.data.splits import near_any
from ppe_yolo.data.validation import describe_validation, divide
from ppe_yolo.errors import UserError


class DetectionDataModule(pl.LightningDataModule):
    """Serves training and validation batches of one data set, and of more for training alone.

    Training uses the split `trainval` (or `train`) and validates on a part held out of it, or on the split `val` where the
    data set has one. The split `test` is never touched, and more data that looks like it or like the validation is left out.

    Args:
        root: A Pascal VOC folder or annotation lists.
        extra_roots: More of the kind, for training alone, read with the same class map.
        class_map: Name of a packaged class map, or a YAML file.
        input_size: (height, width) of the network's input, multiples of 32.
        batch_size: Photos a batch and process.
        num_workers: Loader processes.
        val_fraction: Part of the training photos held out for validation where there is no split `val`.
        multi_scale: (smallest, largest) longer side for training, drawn for each batch in steps of 32; None: always
            `input_size`.
        difficult: Whether objects marked difficult are trained on; validation always passes over them.
        on_error: What happens when the audit finds errors: `stop` with the list, or `skip` those photos and say how many.
        augment: How training photos are varied.
        seed: Of order, augmentation and the validation part.
    """

    def __init__(
        self,
        root: str,
        extra_roots: Sequence[str] = (),
        class_map: str = "default",
        input_size: tuple[int, int] = (416, 416),
        batch_size: int = 8,
        num_workers: int = 2,
        val_fraction: float = 0.1,
        multi_scale: tuple[int, int] | None = None,
        difficult: Literal["keep", "drop"] = "keep",
        on_error: Literal["stop", "skip"] = "stop",
        augment: AugmentConfig = AugmentConfig(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:
        super().__init__()
        if multi_scale is not None and (multi_scale[0] > multi_scale[1] or any(s < STRIDE or s % STRIDE for s in multi_scale)):
            raise UserError(f"data.multi_scale: expected (smallest, largest) in multiples of {STRIDE}, got {multi_scale}")
        if not 0.0 < val_fraction < 1.0:
            raise UserError(f"data.val_fraction: expected a part between 0 and 1, got {val_fraction}")
        for key, number, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if number < least:
                raise UserError(f"data.{key}: expected {least} or more, got {number}")
        self.root, self.extra_roots = root, list(extra_roots)
        self.class_map: ClassMap = load_class_map(class_map)
        self.input_size = input_size
        self.batch_size, self.num_workers = batch_size, num_workers
        self.val_fraction, self.multi_scale = val_fraction, multi_scale
        self.difficult, self.on_error = difficult, on_error
        self.augment, self.seed = augment, seed
        self.train_images: list[AnnotatedImage] = []
        self.val_images: list[AnnotatedImage] = []
        self.validation: dict[str, Any] | None = None  # for the model to remember, see `describe_validation`

    def setup(self, stage: str) -> None:
        """Audits the data and divides it; every process does so for itself and comes to the same end."""
        if self.train_images:
            return
        report = self._audit(self.root)
        self.train_images, self.val_images = divide(report, self.val_fraction, self.seed)
        self.validation = describe_validation(self.val_images, self.val_fraction, self.seed)
        kept = {report.hashes[i.image] for i in (*self.val_images, *report.images.get("test", ()))}
        for root in self.extra_roots:
            extra = self._audit(root)
            photos = extra.split("trainval" if "trainval" in extra.images else "train")
            alike = near_any([extra.hashes[i.image] for i in photos], sorted(kept))
            self.train_images += [photo for photo, is_alike in zip(photos, alike, strict=True) if not is_alike]
            if alike.any():
                rank_zero_warn(f"{root}: {alike.sum()} photos that look like one of validation or test are left out")
        for part, chosen in (("training", self.train_images), ("validation", self.val_images)):
            if not chosen:
                raise UserError(f"{self.root}: no photo is left for {part}: give more photos, or another val_fraction")
            if not any(not o.difficult for image in chosen for o in image.objects):
                raise UserError(
                    f"{self.root}: no photo for {part} has an object that is not difficult: give more photos, or another "
                    "val_fraction"
                )
        rank_zero_info(f"data: {len(self.train_images)} photos to train on, {len(self.val_images)} to validate on")

    def _audit(self, root: str) -> AuditReport:
        # there may be no trainer yet to ask; the type of `rank_zero_only` does not tell of its rank
        report = audit(root, self.class_map, progress=getattr(rank_zero_only, "rank", 0) == 0)
        if report.errors:
            if self.on_error == "stop":
                report.raise_on_errors(self.class_map, skip="--data.on_error skip", class_map_flag="--data.class_map")
            count = report.left_out
            rank_zero_warn(f"{root}: {len(report.errors)} errors, {count} photos are skipped: see `ppe-yolo audit {root}`")
        return report

    def train_dataloader(self) -> DataLoader[Sample]:
        """Augmented batches; their content follows from seed and epoch, whatever the number of workers."""
        trainer = self.trainer
        assert trainer is not None
        dataset = TrainingDataset(
            self.train_images,
            self.class_map.class_names,
            self.augment,
            seed=self.seed,
            keep_difficult=self.difficult == "keep",
        )
        sampler: DistributedSampler[Sample] = DistributedSampler(
            dataset, trainer.world_size, trainer.global_rank, shuffle=True, seed=self.seed
        )
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else 0
        batches = TrainingBatchSampler(sampler, self.batch_size, self.input_size, self.multi_scale, self.augment, epochs)
        if not epochs:  # the length is given in steps
            batches.epochs = math.ceil(max(trainer.max_steps, 1) * trainer.accumulate_grad_batches / len(batches))
        return DataLoader(dataset, batch_sampler=batches, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Letterboxed batches of the validation part."""
        trainer = self.trainer
        assert trainer is not None
        dataset = EvaluationDataset(self.val_images, self.class_map.class_names, self.input_size)
        if len(dataset) < trainer.world_size:
            raise UserError(
                f"{self.root}: expected at least one validation photo a process ({trainer.world_size}), got {len(dataset)}: "
                "use fewer devices, or a larger val_fraction"
            )
        # each process takes every world_size-th photo; DistributedSampler would repeat some to make the shares equal, and
        # the metric would count them twice
        share = range(trainer.global_rank, len(dataset), trainer.world_size)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=share, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": collate,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": _one_thread,
            "pin_memory": torch.cuda.is_available(),
        }


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers share the cores with the training
    torch.set_num_threads(1)
