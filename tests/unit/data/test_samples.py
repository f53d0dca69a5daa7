"""Samples and the batches of an epoch: they depend on seed, epoch and image only."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.loading.augment import AugmentConfig
from ppe_yolo.data.loading.samplers import SampleKey, TrainingBatchSampler
from ppe_yolo.data.loading.samples import Batch, EvaluationDataset, TrainingDataset, collate

STILL = AugmentConfig(mosaic=0, scale=(1, 1), translate=0, rotate=0, flip=0, color=0)


@pytest.fixture
def annotated(picture: Callable[..., np.ndarray], tmp_path: Path) -> list[AnnotatedImage]:
    images = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), picture(f"sample{i}")[..., ::-1])
        objects = (AnnotatedObject("helmet", (4, 4, 40, 30)), AnnotatedObject("none", (20, 20, 50, 44), i % 2 == 0))
        images.append(AnnotatedImage(image=str(path), objects=objects if i else (), source=path, image_id=str(i)))
    return images


def training(annotated: list[AnnotatedImage], seed: int = 0, keep_difficult: bool = True) -> TrainingDataset:
    return TrainingDataset(annotated, ("helmet", "none"), AugmentConfig(), seed=seed, keep_difficult=keep_difficult)


def batches(annotated: list[AnnotatedImage], workers: int, epoch: int = 0, seed: int = 0) -> list[Batch]:
    dataset = training(annotated, seed)
    sampler = DistributedSampler(dataset, 1, 0, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    batch_sampler = TrainingBatchSampler(sampler, 4, (64, 64), (32, 96), AugmentConfig(mosaic=0.5), 10)
    torch.manual_seed(workers)  # nothing may depend on the global seed
    np.random.seed(workers)
    return list(DataLoader(dataset, batch_sampler=batch_sampler, num_workers=workers, collate_fn=collate))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        x.images.shape == y.images.shape
        and torch.equal(x.images, y.images)
        and all(torch.equal(s[k], t[k]) for s, t in zip(x.targets, y.targets, strict=True) for k in s)
        for x, y in zip(a, b, strict=True)
    )


def test_batches_do_not_depend_on_number_of_workers(annotated: list[AnnotatedImage]) -> None:
    first = batches(annotated, 0, epoch=3)
    assert [len(b.targets) for b in first] == [4, 2]
    assert same(first, batches(annotated, 2, epoch=3))
    assert not same(first, batches(annotated, 0, epoch=4))
    assert not same(first, batches(annotated, 0, epoch=3, seed=1))


def test_training_sample_depends_on_key_only(annotated: list[AnnotatedImage]) -> None:
    keys = [SampleKey(i, epoch, (64, 96), 0.5) for i in range(6) for epoch in range(2)]
    forward = [training(annotated)[k] for k in keys]
    dataset = training(annotated)
    backward = [dataset[k] for k in reversed(keys)][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target["boxes_xyxy"], b.target["boxes_xyxy"])
    assert not torch.equal(forward[0].image, forward[1].image)  # another epoch


def test_batch_sampler_multi_scale_sizes(annotated: list[AnnotatedImage]) -> None:
    sampler = DistributedSampler(training(annotated), 1, 0, seed=3)
    drawn = set()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        for keys in TrainingBatchSampler(sampler, 2, (192, 256), (128, 320), AugmentConfig(), 60):
            assert len({key.input_size for key in keys}) == 1  # one size per batch
            drawn.add(keys[0].input_size)
            assert keys[0].epoch == epoch
    # the longer side in steps of 32, the shorter one in proportion (3 to 4), rounded to steps of 32
    assert drawn == {(96, 128), (128, 160), (128, 192), (160, 224), (192, 256), (224, 288), (256, 320)}


def test_batch_sampler_processes_draw_same_sizes_and_own_images(annotated: list[AnnotatedImage]) -> None:
    shares = []
    for rank in range(2):
        sampler = DistributedSampler(training(annotated), 2, rank, seed=3)
        shares.append(list(TrainingBatchSampler(sampler, 1, (64, 64), (32, 320), AugmentConfig(), 10)))
        assert len(shares[rank]) == len(TrainingBatchSampler(sampler, 1, (64, 64), None, AugmentConfig(), 10)) == 3
    assert [[k.input_size for k in b] for b in shares[0]] == [[k.input_size for k in b] for b in shares[1]]
    assert sorted(k.image for share in shares for b in share for k in b) == list(range(6))


def test_training_dataset_keeps_or_drops_difficult_objects(annotated: list[AnnotatedImage]) -> None:
    key = SampleKey(2, 0, (64, 64), 0.0)
    still = [
        TrainingDataset(annotated, ("helmet", "none"), STILL, seed=0, keep_difficult=keep)[key].target["labels"].tolist()
        for keep in (True, False)
    ]
    assert still == [[0, 1], [0]]
    target = EvaluationDataset(annotated, ("helmet", "none"), (64, 64))[2].target
    assert target["labels"].tolist() == [0, 1]
    assert target["difficult"].tolist() == [False, True]


def test_datasets_serve_images_without_objects(annotated: list[AnnotatedImage]) -> None:
    for target in (
        training(annotated)[SampleKey(0, 0, (64, 64), 0.0)].target,
        EvaluationDataset(annotated, ("helmet", "none"), (64, 64))[0].target,
    ):
        assert target["boxes_xyxy"].shape == (0, 4)
        assert (target["boxes_xyxy"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
        assert target["labels"].shape == target["difficult"].shape == (0,)
