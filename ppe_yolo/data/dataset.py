"""Photos as samples: what a sample is depends on seed, epoch and photo alone, never on workers or order."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, Sampler

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.augment import AugmentConfig, Photo, augment, fit
from ppe_yolo.data.images import read_image


class SampleKey(NamedTuple):
    """What to draw: the sampler hands it to the workers, so that these need to know no epoch."""

    photo: int
    epoch: int
    input_size: tuple[int, int]
    mosaic_probability: float


class Sample(NamedTuple):
    """One letterboxed photo: image uint8 [3, H, W], target with boxes_xyxy [N, 4], labels [N], difficult [N]."""

    image: Tensor
    target: dict[str, Tensor]


class Batch(NamedTuple):
    """Images uint8 [B, 3, H, W], RGB, and one target a picture (see `Sample`), pixels of the input."""

    images: Tensor
    targets: list[dict[str, Tensor]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Puts samples of one size together."""
    return Batch(torch.stack([s.image for s in samples]), [s.target for s in samples])


class _Photos:
    """Reads photos and their objects."""

    def __init__(self, images: Sequence[AnnotatedImage], class_names: Sequence[str], keep_difficult: bool) -> None:
        self.images = list(images)
        label_of = {name: label for label, name in enumerate(class_names)}
        self.boxes_xyxy, self.labels, self.difficult = [], [], []
        for image in self.images:
            objects = [o for o in image.objects if keep_difficult or not o.difficult]
            self.boxes_xyxy.append(np.array([o.box_xyxy for o in objects], dtype=np.float32).reshape(-1, 4))
            self.labels.append(np.array([label_of[o.class_name] for o in objects], dtype=np.int64))
            self.difficult.append(np.array([o.difficult for o in objects], dtype=bool))

    def read(self, index: int) -> Photo:
        return read_image(self.images[index].image), self.boxes_xyxy[index], self.labels[index]


def _to_sample(photo: Photo, difficult: np.ndarray) -> Sample:
    image, boxes_xyxy, labels = photo
    return Sample(
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        {
            "boxes_xyxy": torch.from_numpy(boxes_xyxy),
            "labels": torch.from_numpy(labels),
            "difficult": torch.from_numpy(difficult),
        },
    )


class TrainingDataset(Dataset[Sample]):
    """Augmented samples, addressed by `SampleKey`."""

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        class_names: Sequence[str],
        config: AugmentConfig,
        *,
        seed: int,
        keep_difficult: bool,
    ) -> None:
        self.photos = _Photos(images, class_names, keep_difficult)
        self.config = config
        self.seed = seed

    def __len__(self) -> int:
        return len(self.photos.images)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The same key gives the same sample, byte for byte."""
        rng = np.random.default_rng([self.seed, key.epoch, key.photo])
        others: list[Photo] = []
        if rng.random() < key.mosaic_probability:
            others = [self.photos.read(int(i)) for i in rng.integers(len(self), size=3)]
        photo = augment(self.photos.read(key.photo), others, key.input_size, self.config, rng)
        return _to_sample(photo, np.zeros(len(photo[2]), dtype=bool))


class EvaluationDataset(Dataset[Sample]):
    """Letterboxed samples, addressed by index."""

    def __init__(self, images: Sequence[AnnotatedImage], class_names: Sequence[str], input_size: tuple[int, int]) -> None:
        self.photos = _Photos(images, class_names, keep_difficult=True)
        self.input_size = input_size

    def __len__(self) -> int:
        return len(self.photos.images)

    def __getitem__(self, index: int) -> Sample:
        """The photo as the network sees it outside of training."""
        return _to_sample(fit(self.photos.read(index), self.input_size), self.photos.difficult[index])


class DomainSampler(DistributedSampler[int]):
    """Order of the images in each epoch, shared evenly by all processes; small data sets may count more than their size.

    Args:
        dataset: The images of all data sets, one data set after the other.
        counts: Number of images of each data set.
        power: Each data set gets a share of the epoch in proportion to its count to this power; at 1, every image occurs once.
        num_replicas: Number of processes.
        rank: This process.
        seed: The same seed and epoch give the same order.
    """

    def __init__(
        self, dataset: Dataset[Any], counts: Sequence[int], power: float, num_replicas: int, rank: int, *, seed: int
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed)
        self.counts = list(counts)
        self.power = power

    def __iter__(self) -> Iterator[int]:
        if self.power == 1:
            return super().__iter__()
        rng = np.random.default_rng([self.seed, self.epoch])
        starts = np.cumsum([0, *self.counts[:-1]])
        drawn = []
        for start, count, share in zip(starts, self.counts, self.shares(), strict=True):
            # whole rounds through the data set and a part of one more, so that no image falls behind the others
            rounds = [rng.permutation(count) for _ in range(math.ceil(share / max(count, 1)))]
            drawn.append(start + np.concatenate([np.empty(0, dtype=int), *rounds])[:share])
        order = rng.permutation(np.concatenate(drawn))
        order = np.resize(order, self.total_size)  # the same number of images in each process
        return iter(order[self.rank : self.total_size : self.num_replicas].tolist())

    def shares(self) -> list[int]:
        """Number of images that an epoch draws from each data set; they sum to the number of all images."""
        weights = np.array([count**self.power if count else 0.0 for count in self.counts])
        ends = np.rint(np.cumsum(weights) / weights.sum() * sum(self.counts)).astype(int)
        return np.diff(ends, prepend=0).tolist()


class TrainingBatchSampler(Sampler[list[SampleKey]]):
    """Batches of keys for one epoch; order, sizes and mosaics follow from the seed and the epoch.

    Args:
        sampler: Tells the order and this process's share; Lightning sets its epoch before each one.
        batch_size: Photos a batch.
        input_size: (height, width) that the model will be used at.
        multi_scale: (smallest, largest) side to draw each batch's size from, in steps of 32; None for `input_size`.
        config: Tells the mosaic's probability.
        epochs: Length of the whole training.
    """

    def __init__(
        self,
        sampler: "DistributedSampler[int]",
        batch_size: int,
        input_size: tuple[int, int],
        multi_scale: tuple[int, int] | None,
        config: AugmentConfig,
        epochs: int,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.input_size = input_size
        self.multi_scale = multi_scale
        self.config = config
        self.epochs = epochs

    def __len__(self) -> int:
        return math.ceil(len(self.sampler) / self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch = self.sampler.epoch
        probability = self.config.mosaic_probability(epoch, self.epochs)
        sizes = np.random.default_rng([self.sampler.seed, epoch])  # the same in every process, as DDP needs
        indices = list(self.sampler)
        for start in range(0, len(indices), self.batch_size):
            size = self._draw_size(sizes)
            yield [SampleKey(i, epoch, size, probability) for i in indices[start : start + self.batch_size]]

    def _draw_size(self, rng: np.random.Generator) -> tuple[int, int]:
        if self.multi_scale is None:
            return self.input_size
        longest = int(rng.integers(self.multi_scale[0] // 32, self.multi_scale[1] // 32 + 1)) * 32
        scale = longest / max(self.input_size)
        height, width = (max(32, round(side * scale / 32) * 32) for side in self.input_size)
        return height, width
