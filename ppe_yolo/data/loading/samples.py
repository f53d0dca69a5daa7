"""Images as samples. A sample depends on the seed, the epoch and the image, never on workers or order."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.loading.augment import AugmentConfig, LabeledImage, augment, fit
from ppe_yolo.data.loading.reader import ImageReader
from ppe_yolo.data.loading.samplers import SampleKey


class Sample(NamedTuple):
    """One image: uint8 [3, H, W], RGB, and a target with boxes_xyxy [N, 4] in its pixels, labels [N] and difficult [N]."""

    image: Tensor
    target: dict[str, Tensor]


class Batch(NamedTuple):
    """Images uint8 [B, 3, H, W], RGB, and one target per image (see `Sample`)."""

    images: Tensor
    targets: list[dict[str, Tensor]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples of one size."""
    return Batch(torch.stack([s.image for s in samples]), [s.target for s in samples])


class _LabeledImages:
    """Reads images with their objects as arrays."""

    def __init__(
        self, images: Sequence[AnnotatedImage], class_names: Sequence[str], keep_difficult: bool, reader: ImageReader
    ) -> None:
        self._reader = reader
        self.images = list(images)
        label_of = {name: label for label, name in enumerate(class_names)}
        self.boxes_xyxy, self.labels, self.difficult = [], [], []
        for image in self.images:
            objects = [o for o in image.objects if keep_difficult or not o.difficult]
            self.boxes_xyxy.append(np.array([o.box_xyxy for o in objects], dtype=np.float32).reshape(-1, 4))
            self.labels.append(np.array([label_of[o.class_name] for o in objects], dtype=np.int64))
            self.difficult.append(np.array([o.difficult for o in objects], dtype=bool))

    def read(self, index: int) -> LabeledImage:
        pixels, factors = self._reader.read(self.images[index].image)
        return pixels, self.boxes_xyxy[index] * factors, self.labels[index]


def _to_sample(labeled: LabeledImage, difficult: np.ndarray) -> Sample:
    image, boxes_xyxy, labels = labeled
    return Sample(
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        {
            "boxes_xyxy": torch.from_numpy(boxes_xyxy),
            "labels": torch.from_numpy(labels),
            "difficult": torch.from_numpy(difficult),
        },
    )


class TrainingDataset(Dataset[Sample]):
    """Augmented samples, addressed by `SampleKey`.

    Args:
        images: The images.
        class_names: Classes in the order of their labels.
        config: The augmentation.
        seed: Seed of the augmentation.
        keep_difficult: Whether objects marked difficult are in the targets.
        reader: Reads the images; by default as they are.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        class_names: Sequence[str],
        config: AugmentConfig,
        *,
        seed: int,
        keep_difficult: bool,
        reader: ImageReader | None = None,
    ) -> None:
        self._source = _LabeledImages(images, class_names, keep_difficult, reader or ImageReader())
        self.config = config
        self.seed = seed

    def __len__(self) -> int:
        return len(self._source.images)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of a key; the same key gives the same bytes."""
        rng = np.random.default_rng([self.seed, key.epoch, key.image])
        others: list[LabeledImage] = []
        if rng.random() < key.mosaic_probability:
            others = [self._source.read(int(i)) for i in rng.integers(len(self), size=3)]
        sample = augment(self._source.read(key.image), others, key.input_size, self.config, rng)
        return _to_sample(sample, np.zeros(len(sample[2]), dtype=bool))


class EvaluationDataset(Dataset[Sample]):
    """Letterboxed samples, addressed by index.

    Args:
        images: The images.
        class_names: Classes in the order of their labels.
        input_size: (height, width) of the samples.
    """

    def __init__(self, images: Sequence[AnnotatedImage], class_names: Sequence[str], input_size: tuple[int, int]) -> None:
        self._source = _LabeledImages(images, class_names, True, ImageReader())
        self.input_size = input_size

    def __len__(self) -> int:
        return len(self._source.images)

    def __getitem__(self, index: int) -> Sample:
        """The image as the network sees it at inference."""
        return _to_sample(fit(self._source.read(index), self.input_size), self._source.difficult[index])
