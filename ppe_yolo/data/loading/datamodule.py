"""The data of a training: checked, divided, and served in batches."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch.utils.data import DataLoader

from ppe_yolo.core.contract import STRIDE
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.audit.image_check import ImageCheck
from ppe_yolo.data.class_map import ClassMap, load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset, OnError
from ppe_yolo.data.held_out import Provenance, count_trained_on, describe_validation, descriptions, divide_all
from ppe_yolo.data.loading.augment import AugmentConfig
from ppe_yolo.data.loading.reader import OVERSAMPLING, ImageReader
from ppe_yolo.data.loading.samplers import DomainSampler, TrainingBatchSampler
from ppe_yolo.data.loading.samples import EvaluationDataset, Sample, TrainingDataset, collate


class DetectionDataModule(pl.LightningDataModule):
    """Serves training and validation batches of one data set, or of several together.

    Each data set trains with its split `trainval` (or `train`) and validates on a part held out of it, or on its split `val`
    if it has one. Splits named `test` are never touched, and training images that look like a test or validation image of any
    of the data sets are left out.

    Args:
        root: The data set: a folder in Pascal VOC, YOLO, COCO or CVAT format, or annotation lists.
        extra_roots: More data sets: a list of folders that share `class_map`, or a mapping of folder to class map.
        class_map: Name of a bundled class map, or a YAML file. All class maps must have the same classes.
        input_size: (height, width) of the network's input, multiples of 32.
        batch_size: Images per batch and process.
        num_workers: Loader processes.
        val_fraction: Fraction of the training images held out for validation in data sets without a split `val`.
        multi_scale: (smallest, largest) longer side for training, drawn for each batch in steps of 32; None: always
            `input_size`.
        sampling_power: An epoch draws from each data set in proportion to its number of images to this power. 1: every image
            once; 0.5: small data sets count more; 0: all data sets count the same. The length of an epoch does not change.
        difficult: Whether objects marked difficult are trained on; validation always ignores them.
        on_error: What to do if the audit finds errors: `stop` and list them, or `skip` the affected images and log how many.
        image_cache: Folder for small copies of training images whose longer side is more than twice that of the network's input
            (with `multi_scale`, of its largest), for large images that limit the loader; no copies by default. Nothing deletes
            them.
        augment: Augmentation of the training images.
        seed: Seed of the order, the augmentation and the validation part.

    Attributes:
        class_map: Class map of the first data set; its classes and display names are those of the model.
        class_maps: Folder of each data set -> its class map.
        train_images: Images to train on, one data set after the other.
        train_counts: Number of training images of each data set.
        val_images: Images to validate on.
        validation: Description of the validation images of each data set, for the provenance of the model.
    """

    def __init__(
        self,
        root: str,
        extra_roots: Sequence[str] | Mapping[str, str] = (),
        class_map: str = "default",
        input_size: tuple[int, int] = (416, 416),
        batch_size: int = 8,
        num_workers: int = 2,
        val_fraction: float = 0.1,
        multi_scale: tuple[int, int] | None = None,
        sampling_power: float = 1.0,
        difficult: Literal["keep", "drop"] = "keep",
        on_error: OnError = "stop",
        image_cache: str | None = None,
        augment: AugmentConfig = AugmentConfig(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:
        super().__init__()
        if multi_scale is not None and (multi_scale[0] > multi_scale[1] or any(s < STRIDE or s % STRIDE for s in multi_scale)):
            raise UserError(
                setting="data.multi_scale", expected=f"(smallest, largest) in multiples of {STRIDE}", got=str(multi_scale)
            )
        if not 0.0 < val_fraction < 1.0:
            raise UserError(setting="data.val_fraction", expected="a fraction between 0 and 1", got=str(val_fraction))
        if not 0.0 <= sampling_power <= 1.0:
            raise UserError(setting="data.sampling_power", expected="a number from 0 to 1", got=str(sampling_power))
        for key, number, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if number < least:
                raise UserError(setting=f"data.{key}", expected=f"{least} or more", got=str(number))
        self.root = root
        with _option_names("data.class_map"):
            self.class_map = load_class_map(class_map)
        self.class_maps: dict[str, ClassMap] = {root: self.class_map, **self._load_class_maps(extra_roots)}
        self.input_size = input_size
        self.batch_size, self.num_workers = batch_size, num_workers
        self.val_fraction, self.multi_scale = val_fraction, multi_scale
        self.sampling_power = sampling_power
        self.difficult, self.on_error = difficult, on_error
        self.image_cache = image_cache
        self.augment, self.seed = augment, seed
        self._checks: dict[str, ImageCheck] = {}
        self.train_images: list[AnnotatedImage] = []
        self.val_images: list[AnnotatedImage] = []
        self.train_counts: list[int] = []
        self.validation: list[dict[str, Any]] = []
        # validation images of the training whose weights this one starts from
        self.earlier_validation: Provenance | None = None

    def _load_class_maps(self, extra_roots: Sequence[str] | Mapping[str, str]) -> dict[str, ClassMap]:
        if not isinstance(extra_roots, Mapping):
            return dict.fromkeys(extra_roots, self.class_map)
        with _option_names("data.extra_roots"):
            class_maps = {root: load_class_map(class_map) for root, class_map in extra_roots.items()}
        for root, other in class_maps.items():
            if other.class_names != self.class_map.class_names:
                raise UserError(
                    setting="data.extra_roots",
                    file=root,
                    expected=f"a class map with the classes {', '.join(self.class_map.class_names)}",
                    got=f"{other.name} with {', '.join(other.class_names)}",
                    hint="all data sets must have the same classes in the same order",
                )
        return class_maps

    def setup(self, stage: str) -> None:
        """Audits and divides the data. Every process does so and comes to the same result."""
        if self.train_images:
            return
        datasets = {root: self._open(root, class_map) for root, class_map in self.class_maps.items()}
        parts = divide_all(list(datasets.values()), self.val_fraction, self.seed)
        for (root, dataset), part in zip(datasets.items(), parts, strict=True):
            if part.alike:
                rank_zero_warn(f"{root}: {part.alike} images are left out because they look like validation or test images")
            earlier = self.earlier_validation
            if earlier and (count := count_trained_on(dataset, part.validation, earlier)):
                first = descriptions(earlier)[0]
                rank_zero_warn(
                    f"{root}: {count} of the {len(part.validation)} validation images were training images of the weights that "
                    "the training starts from, so validation will look better than it is: divide the data as before, "
                    f"`--data.val_fraction {first['val_fraction']} --seed_everything {first['seed']}`"
                )
            self.train_images += part.training
            self._checks |= {image.image: dataset.checks[image.image] for image in part.training}
            self.train_counts.append(len(part.training))
            self.val_images += part.validation
            self.validation.append(describe_validation(part.validation, self.val_fraction, self.seed))
            if len(datasets) > 1:
                rank_zero_info(f"data: {root}: {len(part.training)} training images, {len(part.validation)} validation images")
        self._require_objects()
        rank_zero_info(f"data: {len(self.train_images)} training images, {len(self.val_images)} validation images")

    def _open(self, root: str, class_map: ClassMap) -> AnnotatedDataset:
        # there may be no trainer yet; the rank of `rank_zero_only` is not in its type
        is_first = getattr(rank_zero_only, "rank", 0) == 0
        with _option_names("data.class_map" if class_map is self.class_map else "data.extra_roots"):
            dataset = AnnotatedDataset.open(root, class_map, on_error=self.on_error, progress=is_first)
        rank_zero_info(f"{root}: {dataset.describe()}")
        if dataset.errors:
            rank_zero_warn(
                f"{root}: {len(dataset.errors)} errors, {dataset.left_out} images are skipped: see `ppe-yolo audit {root}`"
            )
        return dataset

    def _require_objects(self) -> None:
        for part, images in (("training", self.train_images), ("validation", self.val_images)):
            if not images:
                problem = f"there is no image for {part}"
            elif not any(not o.difficult for image in images for o in image.objects):
                problem = f"no {part} image has an object that is not difficult"
            else:
                continue
            raise UserError(problem, file=self.root, hint="add images, or change data.val_fraction")

    def train_dataloader(self) -> DataLoader[Sample]:
        """Augmented batches. Their content depends on the seed and the epoch, not on the number of workers."""
        trainer = self._attached_trainer()
        dataset = TrainingDataset(
            self.train_images,
            self.class_map.class_names,
            self.augment,
            seed=self.seed,
            keep_difficult=self.difficult == "keep",
            reader=self._reader(),
        )
        sampler = DomainSampler(
            dataset, self.train_counts, self.sampling_power, trainer.world_size, trainer.global_rank, seed=self.seed
        )
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else 0
        batches = TrainingBatchSampler(sampler, self.batch_size, self.input_size, self.multi_scale, self.augment, epochs)
        if not epochs:  # the length of the training is given in steps
            batches.epochs = math.ceil(max(trainer.max_steps, 1) * trainer.accumulate_grad_batches / len(batches))
        return DataLoader(dataset, batch_sampler=batches, **self._loader_options())

    def _reader(self) -> ImageReader:
        folder = None if self.image_cache is None else Path(self.image_cache)
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                problem = f"cannot be created ({error.strerror})"
                raise UserError(problem, setting="data.image_cache", file=folder) from error
        longest = max(self.input_size) if self.multi_scale is None else self.multi_scale[1]
        reader = ImageReader(OVERSAMPLING * longest, self._checks, folder)
        if folder is not None:
            count, size = reader.missing_copies()
            free = shutil.disk_usage(folder).free
            if size > free:
                raise UserError(
                    setting="data.image_cache",
                    file=folder,
                    expected=f"{size / 1e6:,.0f} MB of free disk space for the copies of {count:,} large images",
                    got=f"{free / 1e6:,.0f} MB",
                    hint="give a folder on a larger disk, or leave the option out",
                )
            rank_zero_info(f"data: copies of {count:,} large images will take up to {size / 1e6:,.0f} MB in {folder}")
        return reader

    def val_dataloader(self) -> DataLoader[Sample]:
        """Letterboxed batches of the validation images.

        Raises:
            UserError: There are fewer images than processes.
        """
        trainer = self._attached_trainer()
        dataset = EvaluationDataset(self.val_images, self.class_map.class_names, self.input_size)
        if len(dataset) < trainer.world_size:
            raise UserError(
                file=self.root,
                expected=f"at least one validation image per process ({trainer.world_size})",
                got=str(len(dataset)),
                hint="use fewer devices, or a larger data.val_fraction",
            )
        # each process takes every world_size-th image; DistributedSampler would repeat some to make the shares equal, and
        # the metric would count them twice
        share = range(trainer.global_rank, len(dataset), trainer.world_size)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=share, **self._loader_options())

    def _attached_trainer(self) -> pl.Trainer:
        if self.trainer is None:
            raise RuntimeError("the data module is not attached to a trainer")
        return self.trainer

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": collate,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": _use_one_thread,
            "pin_memory": torch.cuda.is_available(),
        }


@contextmanager
def _option_names(class_map: str) -> Iterator[None]:
    """Makes errors name the options of the data module; `class_map` is the one that the class map comes from."""
    try:
        yield
    except UserError as error:
        names = {"class_map": class_map, "on_error": "data.on_error"}
        error.setting = names.get(error.setting, error.setting) if error.setting else None
        raise


def _use_one_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers share the cores with the training
    torch.set_num_threads(1)
