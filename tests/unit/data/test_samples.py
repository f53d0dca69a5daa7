"""Samples follow from seed, epoch and photo alone, and boxes stay on what they mark."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.augment import AugmentConfig, Photo, augment, fit
from ppe_yolo.data.dataset import (
    Batch,
    EvaluationDataset,
    SampleKey,
    TrainingBatchSampler,
    TrainingDataset,
    collate,
)

STILL = AugmentConfig(mosaic=0, scale=(1, 1), translate=0, rotate=0, flip=0, color=0)
COLOURS = {0: (250, 20, 20), 1: (20, 250, 20), 2: (20, 20, 250), 3: (250, 250, 20)}


def test_mosaic_fades() -> None:
    config = AugmentConfig(mosaic=0.8, mosaic_fade=(0.5, 0.9))
    by_hand = [0.8] * 6 + [0.6, 0.4, 0.2, 0.0]  # 10 epochs: full until 5, then down to 0 at 9
    assert [config.mosaic_probability(epoch, 10) for epoch in range(10)] == pytest.approx(by_hand)
    at_once = AugmentConfig(mosaic=0.8, mosaic_fade=(0.5, 0.5))
    assert [at_once.mosaic_probability(epoch, 4) for epoch in range(4)] == [0.8, 0.8, 0.0, 0.0]


def coloured(size: tuple[int, int], label: int) -> Photo:
    """A grey photo with one box of the label's colour."""
    height, width = size
    image = np.full((height, width, 3), 114, dtype=np.uint8)
    x1, y1, x2, y2 = width // 4, height // 4, width * 3 // 4, height * 3 // 4
    image[y1:y2, x1:x2] = COLOURS[label]
    return image, np.array([(x1, y1, x2, y2)], dtype=np.float32), np.array([label])


def assert_boxes_on_colours(sample: Photo, input_size: tuple[int, int]) -> None:
    """Each box holds the colour of its label and nothing of it lies beyond any box of that label."""
    image, boxes_xyxy, labels = sample
    assert image.shape == (*input_size, 3)
    height, width = input_size
    assert (boxes_xyxy >= 0).all()
    assert (boxes_xyxy <= np.array([width, height, width, height])).all()
    for label, colour in COLOURS.items():
        inside = np.zeros(input_size, dtype=bool)
        for x1, y1, x2, y2 in boxes_xyxy[labels == label]:
            inside[max(0, int(y1) - 2) : int(np.ceil(y2)) + 2, max(0, int(x1) - 2) : int(np.ceil(x2)) + 2] = True
        is_colour = (np.abs(image.astype(int) - colour) < 60).all(-1)
        assert not (is_colour & ~inside).any()
        for x1, y1, x2, y2 in boxes_xyxy[labels == label]:
            part = is_colour[round(y1) : round(y2), round(x1) : round(x2)]
            assert part.mean() > 0.8


def test_a_mosaic_keeps_boxes_on_their_colours() -> None:
    # a cut object may leave a rest without a box; without zoom and shift, a mosaic of these shows more than a quarter of each
    config = replace(STILL, flip=0.5)
    sizes = [(90, 120), (120, 90), (60, 60), (64, 200)]
    photos = [coloured(size, label) for label, size in enumerate(sizes)]
    seen: set[int] = set()
    for seed in range(30):
        sample = augment(photos[0], photos[1:], (128, 160), config, np.random.default_rng(seed))
        keep = sample[2]
        seen |= set(keep.tolist())
        hidden = [label for label in COLOURS if label not in keep]
        image = sample[0].copy()
        for label in hidden:  # so little of it is left that it is not asked for
            image[(np.abs(image.astype(int) - COLOURS[label]) < 60).all(-1)] = 114
        assert_boxes_on_colours((image, *sample[1:]), (128, 160))
    assert seen == set(COLOURS)


@pytest.mark.parametrize("config", [STILL, replace(STILL, flip=1), replace(STILL, scale=(0.6, 0.9), translate=0.1, flip=0.5)])
def test_one_photo_keeps_its_box(config: AugmentConfig) -> None:
    for seed in range(10):
        sample = augment(coloured((90, 150), 2), [], (96, 128), config, np.random.default_rng(seed))
        assert sample[2].tolist() == [2]
        assert_boxes_on_colours(sample, (96, 128))


def test_a_flip_by_hand() -> None:
    image = np.full((64, 64, 3), 114, dtype=np.uint8)
    photo = (image, np.array([(4, 10, 20, 30)], dtype=np.float32), np.array([1]))
    flipped = augment(photo, [], (64, 64), replace(STILL, flip=1), np.random.default_rng(0))
    assert flipped[1] == pytest.approx(np.array([(44, 10, 60, 30)]), abs=1e-3)


def test_a_degraded_sample_is_the_same_scene_made_worse() -> None:
    rows, columns = np.indices((96, 128))
    squares = np.where((rows // 8 + columns // 8) % 2, 220, 60) + columns // 4
    photo = (
        np.repeat(squares[..., None], 3, 2).astype(np.uint8),
        np.array([(10, 20, 60, 70)], dtype=np.float32),
        np.array([1]),
    )
    plain, *marked = augment(photo, [], (96, 128), STILL, np.random.default_rng(0))
    config = replace(STILL, degrade=0.5)
    samples = [augment(photo, [], (96, 128), config, np.random.default_rng(seed)) for seed in range(60)]
    changed = [image for image, *_ in samples if not np.array_equal(image, plain)]
    assert 20 <= len(changed) <= 40  # half of 60, within 2.6 deviations
    for image, boxes_xyxy, labels in samples:
        assert (image.shape, image.dtype) == (plain.shape, np.uint8)
        assert np.array_equal(boxes_xyxy, marked[0])
        assert np.array_equal(labels, marked[1])
    # blur takes detail away, noise adds some: both kinds are there, and the scene is still the same one
    detail = [cv2.Laplacian(image, cv2.CV_64F).std() / cv2.Laplacian(plain, cv2.CV_64F).std() for image in changed]
    assert min(detail) < 0.7
    assert any((image.mean() < 0.8 * plain.mean()) for image in changed)
    assert all(np.corrcoef(cv2.blur(image, (5, 5)).ravel(), cv2.blur(plain, (5, 5)).ravel())[0, 1] > 0.5 for image in changed)


def test_boxes_stay_inside_whatever_happens() -> None:
    rng = np.random.default_rng(5)
    photos = [coloured((90, 120), i) for i in range(4)]
    for others in ([], photos[1:]):
        for _ in range(40):
            image, boxes_xyxy, labels = augment(photos[0], others, (96, 160), AugmentConfig(degrade=0.5), rng)
            assert (image.shape, image.dtype) == ((96, 160, 3), np.uint8)
            assert len(boxes_xyxy) == len(labels)
            assert (boxes_xyxy >= 0).all()
            assert (boxes_xyxy <= np.array([160, 96, 160, 96])).all()
            assert ((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) >= 2).all()


def test_fit_is_the_letterbox_of_the_contract(picture: Callable[..., np.ndarray]) -> None:
    photo = picture("fit", (50, 100))
    image, boxes_xyxy, labels = fit((photo, np.array([(10, 10, 30, 50)], dtype=np.float32), np.array([1])), (96, 128))
    assert np.array_equal(image, letterbox(photo, (96, 128))[0])
    # 100x50 becomes 128x64 (times 1.28), 16 rows of grey above and below
    assert boxes_xyxy == pytest.approx(np.array([(12.8, 28.8, 38.4, 80.0)]))
    assert labels.tolist() == [1]
    assert (image[:16] == 114).all()
    assert (image[80:] == 114).all()


@pytest.fixture
def annotated(picture: Callable[..., np.ndarray], tmp_path: Path) -> list[AnnotatedImage]:
    images = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), picture(f"sample{i}")[..., ::-1])
        objects = (AnnotatedObject("helmet", (4, 4, 40, 30)), AnnotatedObject("none", (20, 20, 50, 44), i % 2 == 0))
        images.append(AnnotatedImage(str(path), objects if i else (), path, str(i)))
    return images


def training(annotated: list[AnnotatedImage], seed: int = 0, keep_difficult: bool = True) -> TrainingDataset:
    return TrainingDataset(annotated, ("helmet", "none"), AugmentConfig(), seed=seed, keep_difficult=keep_difficult)


def batches(annotated: list[AnnotatedImage], workers: int, epoch: int = 0, seed: int = 0) -> list[Batch]:
    dataset = training(annotated, seed)
    sampler = DistributedSampler(dataset, 1, 0, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    batch_sampler = TrainingBatchSampler(sampler, 4, (64, 64), (32, 96), AugmentConfig(mosaic=0.5), 10)
    torch.manual_seed(workers)  # nothing may depend on it
    np.random.seed(workers)
    return list(DataLoader(dataset, batch_sampler=batch_sampler, num_workers=workers, collate_fn=collate))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        x.images.shape == y.images.shape
        and torch.equal(x.images, y.images)
        and all(torch.equal(s[k], t[k]) for s, t in zip(x.targets, y.targets, strict=True) for k in s)
        for x, y in zip(a, b, strict=True)
    )


def test_the_number_of_workers_changes_nothing(annotated: list[AnnotatedImage]) -> None:
    first = batches(annotated, 0, epoch=3)
    assert [len(b.targets) for b in first] == [4, 2]
    assert same(first, batches(annotated, 2, epoch=3))
    assert not same(first, batches(annotated, 0, epoch=4))
    assert not same(first, batches(annotated, 0, epoch=3, seed=1))


def test_a_key_gives_the_same_bytes_in_any_order(annotated: list[AnnotatedImage]) -> None:
    keys = [SampleKey(i, epoch, (64, 96), 0.5) for i in range(6) for epoch in range(2)]
    forward = [training(annotated)[k] for k in keys]
    dataset = training(annotated)
    backward = [dataset[k] for k in reversed(keys)][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target["boxes_xyxy"], b.target["boxes_xyxy"])
    assert not torch.equal(forward[0].image, forward[1].image)  # another epoch


def test_multi_scale_sizes(annotated: list[AnnotatedImage]) -> None:
    sampler = DistributedSampler(training(annotated), 1, 0, seed=3)
    drawn = set()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        for keys in TrainingBatchSampler(sampler, 2, (192, 256), (128, 320), AugmentConfig(), 60):
            assert len({key.input_size for key in keys}) == 1  # a batch is of one size
            drawn.add(keys[0].input_size)
            assert keys[0].epoch == epoch
    # the longer side in steps of 32, the shorter one in proportion (3 to 4), rounded to steps of 32
    assert drawn == {(96, 128), (128, 160), (128, 192), (160, 224), (192, 256), (224, 288), (256, 320)}


def test_every_process_draws_the_same_sizes_and_its_own_photos(annotated: list[AnnotatedImage]) -> None:
    shares = []
    for rank in range(2):
        sampler = DistributedSampler(training(annotated), 2, rank, seed=3)
        shares.append(list(TrainingBatchSampler(sampler, 1, (64, 64), (32, 320), AugmentConfig(), 10)))
        assert len(shares[rank]) == len(TrainingBatchSampler(sampler, 1, (64, 64), None, AugmentConfig(), 10)) == 3
    assert [[k.input_size for k in b] for b in shares[0]] == [[k.input_size for k in b] for b in shares[1]]
    assert sorted(k.photo for share in shares for b in share for k in b) == list(range(6))


def test_difficult_objects_are_kept_or_dropped(annotated: list[AnnotatedImage]) -> None:
    key = SampleKey(2, 0, (64, 64), 0.0)
    still = [
        TrainingDataset(annotated, ("helmet", "none"), STILL, seed=0, keep_difficult=keep)[key].target["labels"].tolist()
        for keep in (True, False)
    ]
    assert still == [[0, 1], [0]]
    target = EvaluationDataset(annotated, ("helmet", "none"), (64, 64))[2].target
    assert target["labels"].tolist() == [0, 1]
    assert target["difficult"].tolist() == [False, True]


def test_a_photo_without_objects_is_a_sample(annotated: list[AnnotatedImage]) -> None:
    for target in (
        training(annotated)[SampleKey(0, 0, (64, 64), 0.0)].target,
        EvaluationDataset(annotated, ("helmet", "none"), (64, 64))[0].target,
    ):
        assert target["boxes_xyxy"].shape == (0, 4)
        assert (target["boxes_xyxy"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
        assert target["labels"].shape == target["difficult"].shape == (0,)
