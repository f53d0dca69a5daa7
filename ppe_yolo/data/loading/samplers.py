"""Order, size and composition of the batches of an epoch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, DistributedSampler, Sampler

from ppe_yolo.core.contract import STRIDE
from ppe_yolo.data.loading.augment import AugmentConfig


class SampleKey(NamedTuple):
    """Request for a training sample. It carries the epoch, so loader processes need not know it.

    Attributes:
        image: Index of the image.
        epoch: The epoch, from 0.
        input_size: (height, width) of the sample.
        mosaic_probability: Probability that the sample is a mosaic.
    """

    image: int
    epoch: int
    input_size: tuple[int, int]
    mosaic_probability: float


class DomainSampler(DistributedSampler[int]):
    """Order of the images of several data sets in each epoch. Small data sets may count more than their size.

    All processes draw the same order, and each takes an equal share of it.

    Args:
        dataset: The images of all data sets, one data set after the other.
        counts: Number of images of each data set.
        power: Each data set gets a share of the epoch in proportion to its count to this power. At 1, every image occurs once.
        num_replicas: Number of processes.
        rank: Number of this process.
        seed: Seed of the order.
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
            # whole permutations and a part of one more, so the images of a data set occur equally often, give or take one
            rounds = [rng.permutation(count) for _ in range(math.ceil(share / max(count, 1)))]
            drawn.append(start + np.concatenate([np.empty(0, dtype=int), *rounds])[:share])
        order = rng.permutation(np.concatenate(drawn))
        order = np.resize(order, self.total_size)  # the same number of images for each process
        return iter(order[self.rank : self.total_size : self.num_replicas].tolist())

    def shares(self) -> list[int]:
        """Number of images that an epoch draws from each data set. The sum is the number of all images."""
        weights = np.array([count**self.power if count else 0.0 for count in self.counts])
        ends = np.rint(np.cumsum(weights) / weights.sum() * sum(self.counts)).astype(int)
        return np.diff(ends, prepend=0).tolist()


class TrainingBatchSampler(Sampler[list[SampleKey]]):
    """Batches of keys for one epoch. Order, sizes and mosaics depend on the seed and the epoch only.

    Args:
        sampler: Order of the images for this process; Lightning sets its epoch.
        batch_size: Images per batch.
        input_size: (height, width) of the network's input.
        multi_scale: (smallest, largest) longer side, drawn for each batch in steps of 32; None: always `input_size`.
        config: The augmentation, for the probability of mosaics.
        epochs: Length of the training.
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
        rng = np.random.default_rng([self.sampler.seed, epoch])  # DDP needs the same sizes in every process
        indices = list(self.sampler)
        for start in range(0, len(indices), self.batch_size):
            size = self._draw_size(rng)
            yield [SampleKey(i, epoch, size, probability) for i in indices[start : start + self.batch_size]]

    def _draw_size(self, rng: np.random.Generator) -> tuple[int, int]:
        if self.multi_scale is None:
            return self.input_size
        longest = int(rng.integers(self.multi_scale[0] // STRIDE, self.multi_scale[1] // STRIDE + 1)) * STRIDE
        scale = longest / max(self.input_size)
        height, width = (max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in self.input_size)
        return height, width
